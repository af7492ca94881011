import { css, html, LitElement, nothing, svg } from "lit";
import { customElement, property } from "lit/decorators.js";

/** An icon of `@mdi/js`; without a label it is decoration. */
@customElement("otsd-icon")
export class Icon extends LitElement {
  static override styles = css`
    :host {
      display: inline-flex;
      flex: none;
      font-size: 1.5rem;
    }
    svg {
      width: 1em;
      height: 1em;
      fill: currentColor;
    }
  `;

  @property({ attribute: false }) path = "";
  @property() label = "";

  protected override render() {
    return html`<svg
      viewBox="0 0 24 24"
      role=${this.label ? "img" : nothing}
      aria-label=${this.label || nothing}
      aria-hidden=${this.label ? nothing : "true"}
    >
      ${svg`<path d=${this.path}></path>`}
    </svg>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-icon": Icon;
  }
}
