import { mdiShieldAlertOutline } from "@mdi/js";
import { css, html, LitElement } from "lit";
import { customElement } from "lit/decorators.js";
import "../../ui/icon";

/** The mark of a token whose code was imported; as high as a line of quiet text. */
@customElement("otsd-weak")
export class WeakBadge extends LitElement {
  static override styles = css`
    :host {
      display: inline-flex;
      flex: none;
      align-items: center;
      gap: 0.25rem;
      padding-inline: 0.375rem 0.5rem;
      border-radius: var(--wa-border-radius-pill);
      font-size: 0.75rem;
      font-weight: 500;
      line-height: 1.3125rem;
      white-space: nowrap;
      color: var(--wa-color-warning-on-normal);
      background: var(--wa-color-warning-fill-quiet);
    }
    otsd-icon {
      font-size: 1rem;
    }
  `;

  protected override render() {
    return html`<otsd-icon .path=${mdiShieldAlertOutline}></otsd-icon>Weak code`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-weak": WeakBadge;
  }
}
