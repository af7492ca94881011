import { css, html, LitElement, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import "../../ui/choice";
import { styles } from "../../ui/styles";
import { sentence } from "./words";

/** How often a link can be used: `null` is without limit. Fires `change`. */
@customElement("otsd-uses-field")
export class UsesField extends LitElement {
  static override styles = [
    styles,
    css`
      wa-input {
        max-width: 11rem;
        margin-block-start: 0.75rem;
      }
      .bad {
        margin-block-start: 0.5rem;
        font-size: 0.875rem;
      }
    `,
  ];

  @property({ attribute: false }) value: number | null = 1;
  /** How many of them are taken already. */
  @property({ type: Number }) taken = 0;
  @property() fault = "";
  @state() private isSeveral = false;

  override connectedCallback(): void {
    super.connectedCallback();
    this.isSeveral = this.value !== null && this.value !== 1;
  }

  private set(value: number | null): void {
    this.value = value;
    this.dispatchEvent(new Event("change"));
  }

  private choose(event: Event): void {
    const { value } = event.target as HTMLInputElement;
    this.isSeveral = value === "several";
    if (value === "several") this.set(Math.max(this.value ?? 0, this.taken + 1, 3));
    else this.set(value === "once" ? 1 : null);
  }

  private count(event: Event): void {
    event.stopPropagation();
    this.set(Number((event.target as HTMLInputElement).value));
  }

  protected override render() {
    const chosen = this.isSeveral ? "several" : this.value === null ? "unlimited" : "once";
    return html`
      <otsd-choice
        label="How often?"
        .options=${[
          ...(this.taken > 1 ? [] : [{ value: "once", text: "Once" }]),
          { value: "several", text: "Several times" },
          { value: "unlimited", text: "Without limit" },
        ]}
        .value=${chosen}
        @change=${this.choose}
      ></otsd-choice>
      ${
        this.isSeveral
          ? html`<wa-input
              type="number"
              label="How many times?"
              class="label-out-of-sight"
              inputmode="numeric"
              min=${Math.max(this.taken, 1)}
              max="1000000000"
              .value=${String(this.value ?? "")}
              hint=${this.taken ? `In all; ${this.taken} used already.` : nothing}
              @input=${this.count}
              @change=${this.count}
            ></wa-input>`
          : nothing
      }
      ${this.fault ? html`<p class="bad" role="alert">${sentence(this.fault)}</p>` : nothing}
    `;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-uses-field": UsesField;
  }
}
