import type WaDialog from "@awesome.me/webawesome/dist/components/dialog/dialog.js";
import { css, html, LitElement, nothing, type CSSResultGroup, type TemplateResult } from "lit";
import { query } from "lit/decorators.js";
import { styles } from "./styles";

interface Frame {
  label: string;
  body: unknown;
  footer?: TemplateResult | typeof nothing;
  /** Whether a tap beside it closes it: not where something was typed. */
  isLight?: boolean;
}

/**
 * A dialog in the middle of a desktop, and from below on a phone. `show()` puts it beside the page;
 * it is gone when it was closed, or when another page is gone to.
 */
export abstract class Sheet extends LitElement {
  static override styles: CSSResultGroup = [
    styles,
    css`
      wa-dialog {
        --width: 30rem;
        --spacing: 1.25rem;
      }
      wa-dialog::part(title) {
        font-size: 1.25rem;
        line-height: 1.3;
        overflow-wrap: anywhere;
      }
      wa-dialog::part(body) {
        overscroll-behavior: contain;
      }
      wa-dialog::part(close-button) {
        margin: -0.25rem;
      }
      @media (max-width: 600px) {
        wa-dialog::part(dialog) {
          margin: auto 0 0;
          width: 100%;
          max-width: 100%;
          max-height: calc(100dvh - 1.5rem);
          padding-block-end: env(safe-area-inset-bottom);
          border-radius: 1.25rem 1.25rem 0 0;
          transform-origin: 50% 100%;
        }
        wa-button[slot="footer"]:not([appearance="plain"]) {
          flex: 1;
        }
      }
      /* big rows to tap, one choice each */
      .choices {
        display: grid;
        gap: 0.5rem;
      }
      .choice {
        display: flex;
        align-items: center;
        gap: 0.75rem;
        width: 100%;
        min-height: 3.75rem;
        padding: 0.625rem 1rem;
        border: 1px solid var(--wa-color-surface-border);
        border-radius: var(--wa-panel-border-radius);
        font: inherit;
        text-align: start;
        color: inherit;
        background: none;
        cursor: pointer;
        -webkit-tap-highlight-color: transparent;
      }
      @media (hover: hover) {
        .choice:hover {
          background: color-mix(in srgb, currentColor 5%, transparent);
        }
      }
      .choice > .grow {
        flex: 1;
        min-width: 0;
      }
      .choice > otsd-icon {
        color: var(--otsd-accent);
      }
      .form {
        display: grid;
        gap: 1.25rem;
      }
    `,
  ];

  @query("wa-dialog") private dialog!: WaDialog;
  private closed: () => void = () => {};

  /** Show it; resolves when it is closed. */
  show(): Promise<void> {
    document.body.append(this);
    return new Promise((closed) => (this.closed = closed));
  }

  close(): void {
    this.dialog.open = false;
  }

  override connectedCallback(): void {
    super.connectedCallback();
    addEventListener("hashchange", this.leave);
  }

  override disconnectedCallback(): void {
    removeEventListener("hashchange", this.leave);
    super.disconnectedCallback();
    this.closed();
  }

  protected override async firstUpdated(): Promise<void> {
    await this.dialog.updateComplete;
    this.dialog.open = true;
  }

  /** Go on with other content: begin at its top, and at the field or button that comes first. */
  protected async turn(first: string): Promise<void> {
    await this.updateComplete;
    this.dialog.shadowRoot?.querySelector('[part~="body"]')?.scrollTo(0, 0);
    this.renderRoot.querySelector<HTMLElement>(first)?.focus();
  }

  protected frame({ label, body, footer = nothing, isLight = true }: Frame): TemplateResult {
    return html`<wa-dialog label=${label} ?light-dismiss=${isLight} @wa-after-hide=${this.gone}
      >${body}${footer}</wa-dialog
    >`;
  }

  private readonly gone = (event: Event): void => {
    if (event.target === this.dialog) this.remove(); // what is inside tells of its own hiding
  };

  private readonly leave = (): void => this.close();
}
