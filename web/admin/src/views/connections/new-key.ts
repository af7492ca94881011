import { css, html, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { api, Problem } from "../../api";
import type { Action, ApiKey, NewApiKey, Scope } from "../../types";
import "../../ui/choice";
import "../../ui/copy";
import { Sheet } from "../../ui/sheet";

const SCOPES: { value: Scope; title: string; text: string }[] = [
  {
    value: "read",
    title: "Read",
    text: "Sees links and what became of them, but never a link's address or an action's YAML.",
  },
  {
    value: "mint",
    title: "Make links",
    text: "Makes links of the actions that you choose, and sees and changes only its own.",
  },
  {
    value: "admin",
    title: "Everything",
    text: "May do whatever you may, also run any action and make further keys.",
  },
];
const LENGTHS = [
  { value: "30d", text: "30 days" },
  { value: "90d", text: "90 days" },
  { value: "365d", text: "1 year" },
  { value: "", text: "No end" },
];

/** Makes an API key, and shows it this once. */
@customElement("otsd-new-key")
export class NewKey extends Sheet {
  static override styles = [
    ...[Sheet.styles].flat(),
    css`
      fieldset {
        display: grid;
        gap: 0.5rem;
        margin: 0;
        padding: 0;
        border: 0;
        min-width: 0;
      }
      legend {
        padding: 0;
        margin-block-end: 0.5rem;
        font-weight: var(--wa-form-control-label-font-weight, 500);
      }
      .choice {
        min-height: 2.75rem;
      }
      .choice.choice:has(:checked) {
        border-color: var(--otsd-accent);
        background: var(--wa-color-brand-fill-quiet);
      }
      .choice:has(:focus-visible) {
        outline: var(--wa-focus-ring);
        outline-offset: var(--wa-focus-ring-offset);
      }
      .choice input {
        flex: none;
        width: 1.25rem;
        height: 1.25rem;
        margin: 0;
        accent-color: var(--wa-color-brand-fill-loud);
      }
      .wrong::part(hint) {
        color: var(--wa-color-danger-on-quiet);
      }
      .key {
        display: block;
        padding: 0.75rem 1rem;
        margin-block-end: 0.75rem;
        border: 1px solid var(--wa-color-surface-border);
        border-radius: 8px;
        overflow-wrap: anywhere;
        user-select: all;
      }
    `,
  ];

  actions: Action[] = [];
  /** The key that was made, if one was. */
  @state() made: (ApiKey & { key: string }) | null = null;

  @state() private name = "";
  @state() private scope: Scope = "read";
  @state() private chosen: ReadonlySet<string> = new Set();
  @state() private length = "365d";
  @state() private problem: Error | null = null;
  @state() private isMaking = false;

  private async make(): Promise<void> {
    const { name, scope, chosen, length } = this;
    const body: NewApiKey = { name, scope };
    if (scope === "mint") body.actions = [...chosen];
    if (length) body.expires_in = length;
    this.isMaking = true;
    this.problem = null;
    try {
      this.made = await api.createApiKey(body);
      await this.turn("otsd-copy");
    } catch (error) {
      this.problem = error as Error;
    }
    this.isMaking = false;
  }

  private choose(name: string, isChosen: boolean): void {
    const chosen = new Set(this.chosen);
    if (isChosen) chosen.add(name);
    else chosen.delete(name);
    this.chosen = chosen;
  }

  protected override render() {
    return this.made ? this.renderMade(this.made) : this.renderForm();
  }

  private renderMade({ name, key }: ApiKey & { key: string }) {
    return this.frame({
      label: name,
      isLight: false,
      body: html`<p class="lead">
          This is the key. It is shown only this once: put it where the program finds it.
        </p>
        <code class="key" tabindex="0" aria-label="The key">${key}</code>
        <otsd-copy .text=${key} label="Copy the key"></otsd-copy>`,
      footer: html`<wa-button slot="footer" variant="brand" @click=${this.close}>Done</wa-button>`,
    });
  }

  private renderForm() {
    const { problem } = this;
    const at = (field: string) => (problem instanceof Problem ? problem.fault(field) : undefined);
    const isTaken = problem instanceof Problem && problem.code === "key_exists";
    const fault = at("name") ?? (isTaken ? problem.message : undefined);
    const other = problem && !fault && !at("actions") ? problem.message : "";
    return this.frame({
      label: "New API key",
      isLight: false,
      body: html`<form
        class="form"
        @submit=${(event: Event) => {
          event.preventDefault();
          void this.make();
        }}
      >
        <wa-input
          autofocus
          label="Name"
          maxlength="64"
          placeholder="Booking system"
          class=${fault ? "wrong" : ""}
          hint=${fault ?? "What is it for? You see it in the list."}
          .value=${this.name}
          @input=${(event: Event) => (this.name = valueOf(event))}
        ></wa-input>
        <fieldset>
          <legend>What may it do?</legend>
          ${SCOPES.map(
            ({ value, title, text }) =>
              html`<label class="choice">
                <input
                  type="radio"
                  name="scope"
                  value=${value}
                  .checked=${this.scope === value}
                  @change=${() => (this.scope = value)}
                />
                <span class="grow"
                  ><span class="strong">${title}</span><br /><span class="quiet"
                    >${text}</span
                  ></span
                >
              </label>`,
          )}
        </fieldset>
        ${this.scope === "mint" ? this.renderActions(at("actions")) : nothing}
        <otsd-choice
          label="How long?"
          .options=${LENGTHS}
          .value=${this.length}
          @change=${(event: Event) => (this.length = valueOf(event))}
        ></otsd-choice>
        ${other ? html`<p class="bad" role="alert">${other}</p>` : nothing}
      </form>`,
      footer: html`<wa-button
        slot="footer"
        variant="brand"
        ?loading=${this.isMaking}
        @click=${this.make}
        >Make the key</wa-button
      >`,
    });
  }

  private renderActions(fault: string | undefined) {
    return html`<fieldset>
      <legend>Of which actions?</legend>
      ${this.actions.map(
        ({ name, title }) =>
          html`<label class="choice">
            <input
              type="checkbox"
              .checked=${this.chosen.has(name)}
              @change=${(event: Event) =>
                this.choose(name, (event.target as HTMLInputElement).checked)}
            />
            <span class="grow">${title}</span>
          </label>`,
      )}
      ${this.actions.length ? nothing : html`<p class="quiet">There is no action yet.</p>`}
      ${fault ? html`<p class="bad" role="alert">${fault}</p>` : nothing}
    </fieldset>`;
  }
}

function valueOf(event: Event): string {
  return (event.target as HTMLInputElement).value;
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-new-key": NewKey;
  }
}
