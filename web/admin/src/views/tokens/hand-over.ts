import { mdiCheck, mdiPrinterOutline, mdiShareVariant } from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, property, query, state } from "lit/decorators.js";
import { api, Problem } from "../../api";
import "../../ui/copy";
import "../../ui/icon";
import { Sheet } from "../../ui/sheet";
import { styles } from "../../ui/styles";
import { exactly } from "../../ui/time";
import { toastError } from "../../ui/toast";
import { href, route } from "../../router";
import type { Token } from "../../types";
import { Card } from "./card";
import { warnIfLocal } from "./reach";
import { sentence, usesLeft } from "./words";

// only on https, and not in every browser
const CAN_SHARE = "share" in navigator;

/** A link and all the ways to give it to somebody. */
@customElement("otsd-hand-over")
export class HandOver extends LitElement {
  static override styles = [
    styles,
    css`
      :host {
        display: grid;
        gap: 1rem;
      }
      .qr {
        justify-self: center;
        width: min(15rem, 60vw);
        aspect-ratio: 1;
        border: 1px solid var(--otsd-line);
        border-radius: var(--wa-panel-border-radius);
        background: #fff;
      }
      .facts {
        display: block;
        text-align: center;
        text-wrap: balance;
      }
      .for {
        font-size: 1.125rem;
      }
      .link {
        display: block;
        padding: 0.75rem 1rem;
        border-radius: var(--wa-border-radius-m);
        font-family: var(--wa-font-family-code);
        font-size: 0.875rem;
        line-height: 1.5;
        background: color-mix(in srgb, currentColor 6%, transparent);
        user-select: all;
        overflow-wrap: anywhere;
      }
      .buttons {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr));
      }
      .buttons > otsd-copy {
        display: grid;
      }
      .saved {
        display: flex;
        align-items: center;
        gap: 0.25rem;
        color: var(--wa-color-success-on-quiet);
      }
      .saved otsd-icon {
        font-size: 1.125rem;
      }
      .wrong::part(hint) {
        color: var(--wa-color-danger-on-quiet);
      }
    `,
  ];

  @property({ attribute: false }) token!: Token;
  @property() url = "";
  /** The action's title. */
  @property() heading = "";
  /** Whether it was made just now, so that a comment may still be missing. */
  @property({ type: Boolean }) fresh = false;

  @state() private isNamed = false;
  @state() private fault = "";
  @query(".buttons > *") private first!: LitElement;

  private readonly card = new Card();
  private asksFor = false;

  override connectedCallback(): void {
    super.connectedCallback();
    this.asksFor = this.fresh && !this.token.comment;
    document.body.append(this.card); // so that the browser's own printing prints it as well
  }

  override disconnectedCallback(): void {
    this.card.remove();
    super.disconnectedCallback();
  }

  override focus(): void {
    void this.updateComplete.then(async () => {
      await this.first.updateComplete;
      this.first.focus();
    });
  }

  protected override updated(): void {
    Object.assign(this.card, {
      token: this.token,
      heading: this.heading,
      url: this.url,
      qr: api.qr(this.token.id),
    });
  }

  private async share(): Promise<void> {
    try {
      await navigator.share({ title: this.heading, url: this.url });
    } catch (error) {
      if ((error as Error).name !== "AbortError") toastError("The browser did not share it.");
    }
  }

  private async print(): Promise<void> {
    await this.card.updateComplete;
    await this.card.renderRoot.querySelector("img")?.decode();
    print();
  }

  private async name(event: Event): Promise<void> {
    const comment = (event.target as HTMLInputElement).value.trim();
    if (comment === (this.token.comment ?? "")) return;
    this.isNamed = false;
    this.fault = "";
    try {
      this.token = await api.editToken(this.token.id, { comment });
      this.isNamed = true;
    } catch (error) {
      this.fault = (error instanceof Problem && error.fault("comment")) || (error as Error).message;
    }
  }

  protected override render() {
    const { comment, max_uses, uses_left, valid_from, expires_at } = this.token;
    const often =
      max_uses !== null && max_uses === uses_left
        ? `good for ${amount(max_uses)}`
        : usesLeft(this.token);
    return html`
      <div class="facts">
        ${comment && !this.asksFor ? html`<p class="for">Made for: ${comment}</p>` : nothing}
        <p class="quiet">
          ${this.heading}:
          ${often}${valid_from ? `, from ${exactly(valid_from)}` : ""}${
            expires_at ? `, until ${exactly(expires_at)}` : ", no end"
          }
        </p>
      </div>
      <img class="qr" src=${api.qr(this.token.id)} alt="QR code of the link" />
      <span class="link" role="textbox" aria-readonly="true" aria-label="Link" tabindex="0"
        >${this.url}</span
      >
      ${warnIfLocal(this.url)}
      <div class="buttons">
        ${
          CAN_SHARE
            ? html`<wa-button variant="brand" @click=${this.share}>
                <otsd-icon slot="start" .path=${mdiShareVariant}></otsd-icon>Share
              </wa-button>`
            : nothing
        }
        <otsd-copy .text=${this.url} label="Copy" ?primary=${!CAN_SHARE}></otsd-copy>
        <wa-button appearance="outlined" @click=${this.print}>
          <otsd-icon slot="start" .path=${mdiPrinterOutline}></otsd-icon>Print
        </wa-button>
      </div>
      ${
        this.asksFor
          ? html`<div>
              <wa-input
                label="Who is it for?"
                hint=${sentence(this.fault) || "A note for you; whoever opens the link sees it too."}
                class=${this.fault ? "wrong" : ""}
                maxlength="500"
                autocomplete="off"
                enterkeyhint="done"
                @change=${this.name}
              ></wa-input>
              <p role="status" class="quiet">
                ${
                  this.isNamed
                    ? html`<span class="saved"
                        ><otsd-icon .path=${mdiCheck}></otsd-icon>Saved</span
                      >`
                    : nothing
                }
              </p>
            </div>`
          : nothing
      }
    `;
  }
}

function amount(max: number): string {
  return max === 1 ? "one use" : `${max} uses`;
}

/** The link of a token that there is already. */
@customElement("otsd-link-sheet")
export class LinkSheet extends Sheet {
  @property() label = "Link";
  @property({ attribute: false }) token!: Token;
  @property() url = "";
  @property() heading = "";
  @property({ type: Boolean }) fresh = false;

  protected override render() {
    return this.frame({
      label: this.label,
      body: html`<otsd-hand-over
        .token=${this.token}
        .url=${this.url}
        .heading=${this.heading}
        .fresh=${this.fresh}
      ></otsd-hand-over>`,
      footer: html`${
          route().id === this.token.id
            ? nothing
            : html`<wa-button
                slot="footer"
                appearance="plain"
                href=${href("tokens", this.token.id)}
                @click=${this.close}
                >Details</wa-button
              >`
        } <wa-button slot="footer" appearance="outlined" @click=${this.close}>Done</wa-button>`,
    });
  }
}

/** Show a link to hand it over. */
export function handOver(what: {
  token: Token;
  url: string;
  heading: string;
  label?: string;
  fresh?: boolean;
}): Promise<void> {
  return Object.assign(new LinkSheet(), what).show();
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-hand-over": HandOver;
    "otsd-link-sheet": LinkSheet;
  }
}
