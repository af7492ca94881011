import { css, html, LitElement, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import { styles } from "../../ui/styles";
import { exactly } from "../../ui/time";
import type { Token } from "../../types";
import { uses } from "./words";

/** A card with a link, to be given to somebody: nobody sees it but the printer. */
@customElement("otsd-card")
export class Card extends LitElement {
  static override styles = [
    styles,
    css`
      :host {
        display: none;
      }
      @media print {
        :host {
          display: block;
        }
      }
      article {
        display: grid;
        justify-items: center;
        gap: 4mm;
        width: 105mm;
        max-width: 100%;
        margin: 10mm auto;
        padding: 10mm 8mm;
        border: 0.3mm solid #999;
        border-radius: 4mm;
        break-inside: avoid;
        text-align: center;
        font: 11pt/1.4 var(--wa-font-family-body);
        color: #000;
        background: #fff;
      }
      h1 {
        font-size: 18pt;
        text-wrap: balance;
      }
      p {
        max-width: 100%;
      }
      .for {
        font-size: 13pt;
      }
      img {
        width: 60mm;
        height: 60mm;
      }
      .link {
        font: 9pt/1.4 var(--wa-font-family-code);
        overflow-wrap: anywhere;
      }
    `,
  ];

  @property({ attribute: false }) token!: Token;
  @property() heading = "";
  @property() url = "";
  @property() qr = "";

  protected override render() {
    const { comment, max_uses, valid_from, expires_at } = this.token;
    const span = [
      valid_from ? `from ${exactly(valid_from)}` : "",
      expires_at ? `until ${exactly(expires_at)}` : "",
    ].filter(Boolean);
    return html`<article>
      <h1>${this.heading}</h1>
      ${comment ? html`<p class="for">${comment}</p>` : nothing}
      <img src=${this.qr} alt="QR code of the link" />
      <p class="link">${this.url}</p>
      <p>
        Scan the code, open the page and press the button.<br />
        ${span.length ? html`Valid ${span.join(" ")}.` : nothing}
        ${max_uses === null ? nothing : html`Can be used ${uses(max_uses)}.`}
      </p>
    </article>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-card": Card;
  }
}
