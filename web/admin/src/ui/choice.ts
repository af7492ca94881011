import { css, html, LitElement } from "lit";
import { customElement, property } from "lit/decorators.js";
import { styles } from "./styles";

export interface Option {
  value: string;
  text: string;
}

/** One of a few, as chips in a row. Fires `change`. */
@customElement("otsd-choice")
export class Choice extends LitElement {
  static override styles = [
    styles,
    css`
      fieldset {
        margin: 0;
        padding: 0;
        border: 0;
        min-width: 0;
      }
      legend {
        padding: 0;
        margin-block-end: 0.5rem;
        font-weight: var(--wa-form-control-label-font-weight, 500);
        line-height: 1.5;
      }
      .chips {
        display: flex;
        flex-wrap: wrap;
        gap: 0.5rem;
      }
      :host([scrolls]) .chips {
        flex-wrap: nowrap;
        overflow-x: auto;
        scrollbar-width: none;
        /* room for the ring around what has the focus, and up to the edge of a phone */
        margin: -0.25rem -1rem;
        padding: 0.25rem 1rem;
        scroll-padding-inline: 1rem;
      }
      label {
        position: relative;
        display: inline-flex;
        align-items: center;
        flex: none;
        min-height: 2.5rem;
        padding: 0 1rem;
        border: 1px solid var(--wa-color-surface-border);
        border-radius: var(--wa-border-radius-pill);
        font-size: 0.9375rem;
        cursor: pointer;
        -webkit-tap-highlight-color: transparent;
      }
      @media (pointer: coarse) {
        label {
          min-height: 2.75rem;
        }
      }
      @media (hover: hover) {
        label:hover {
          background: color-mix(in srgb, currentColor 5%, transparent);
        }
      }
      label:has(:checked) {
        border-color: transparent;
        font-weight: 500;
        color: var(--wa-color-brand-on-normal);
        background: var(--wa-color-brand-fill-normal);
      }
      label:has(:focus-visible) {
        outline: var(--wa-focus-ring);
        outline-offset: var(--wa-focus-ring-offset);
      }
      input {
        position: absolute;
        inset: 0;
        margin: 0;
        opacity: 0;
        cursor: pointer;
      }
    `,
  ];

  @property() label = "";
  @property({ attribute: false }) options: Option[] = [];
  @property() value = "";
  /** Whether the label is for screen readers alone. */
  @property({ type: Boolean }) unlabelled = false;
  /** Whether the chips stay in one line that scrolls. */
  @property({ type: Boolean, reflect: true }) scrolls = false;

  private choose(event: Event): void {
    const chip = event.target as HTMLInputElement;
    this.value = chip.value;
    chip.parentElement?.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.dispatchEvent(new Event("change", { bubbles: true }));
  }

  protected override render() {
    return html`<fieldset>
      <legend class=${this.unlabelled ? "out-of-sight" : ""}>${this.label}</legend>
      <div class="chips">
        ${this.options.map(
          ({ value, text }) =>
            html`<label
              ><input
                type="radio"
                name="choice"
                value=${value}
                .checked=${value === this.value}
                @change=${this.choose}
              />${text}</label
            >`,
        )}
      </div>
    </fieldset>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-choice": Choice;
  }
}
