import { mdiChevronRight, mdiFlashOutline, mdiPlus } from "@mdi/js";
import { css, html, LitElement, nothing, type PropertyValues } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { keyed } from "lit/directives/keyed.js";
import { repeat } from "lit/directives/repeat.js";
import { href } from "../router";
import { Following } from "../store/live";
import type { Action } from "../types";
import "../ui/icon";
import { styles } from "../ui/styles";
import "./actions/editor";
import { knownEntities, KnownActions, summary, type Entities } from "./actions/known";
import { defaultsOf } from "./tokens/words";

// no action can have the second name, so that one called "new" can be opened
const NEW = "new";
const NEW_BESIDE_NEW = "+";

/** Every action, or the editor of one. */
@customElement("otsd-actions")
export class ActionsView extends LitElement {
  static override styles = [
    styles,
    css`
      .row {
        align-items: flex-start;
      }
      .row > otsd-icon {
        align-self: center;
        color: var(--wa-color-text-quiet);
      }
      .row .grow {
        display: grid;
        gap: 0.125rem;
      }
      .first {
        display: flex;
        flex-wrap: wrap;
        align-items: baseline;
        gap: 0 0.625rem;
      }
    `,
  ];

  @property() selected: string | null = null;
  @state() private entities: Entities = new Map();

  private readonly actions = new KnownActions(this);

  constructor() {
    super();
    const ask = () => void this.loadEntities();
    new Following(this, "connection", ask, ask);
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has("selected") && this.selected === null) void this.loadEntities();
  }

  private async loadEntities(): Promise<void> {
    this.entities = await knownEntities();
  }

  private get isNewTaken(): boolean {
    return this.actions.items?.some(({ name }) => name === NEW) ?? false;
  }

  protected override render() {
    const { selected } = this;
    if (selected === null) return this.renderList();
    // only the list tells whether there is an action of that name
    if (selected === NEW && !this.actions.items && !this.actions.error) return nothing;
    const isNew = selected === NEW_BESIDE_NEW || (selected === NEW && !this.isNewTaken);
    return keyed(
      selected,
      html`<otsd-action-editor .action=${isNew ? null : selected}></otsd-action-editor>`,
    );
  }

  private renderList() {
    const { items, error } = this.actions;
    return html`
      <div class="head">
        <h1>Actions</h1>
        <wa-button variant="brand" href=${href("actions", this.isNewTaken ? NEW_BESIDE_NEW : NEW)}>
          <otsd-icon slot="start" .path=${mdiPlus}></otsd-icon>New action
        </wa-button>
      </div>
      ${error ? html`<p class="bad" role="alert">${error.message}</p>` : nothing}
      ${
        items?.length
          ? html`<ul class="card rows">
              ${repeat(
                items,
                (action) => action.name,
                (action) => html`<li>${this.renderRow(action)}</li>`,
              )}
            </ul>`
          : items
            ? html`<div class="empty">
                <otsd-icon .path=${mdiFlashOutline}></otsd-icon>
                <h2>No actions yet</h2>
                <p>An action is what a link does: unlock the door, open the garage.</p>
                <wa-button appearance="plain" href=${href("import")}
                  >Import from One Time Service…</wa-button
                >
              </div>`
            : nothing
      }
    `;
  }

  private renderRow(action: Action) {
    const { title, name, yaml } = action;
    const does = summary(yaml, this.entities);
    return html`<a class="row" href=${href("actions", name)}>
      <span class="grow">
        <span class="first">
          <span class="strong">${title}</span>
          <code class="quiet">${name}</code>
        </span>
        ${does ? html`<span class="quiet">${does}</span>` : nothing}
        <span class="quiet">A new link: ${defaultsOf(action)}</span>
      </span>
      <otsd-icon .path=${mdiChevronRight}></otsd-icon>
    </a>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-actions": ActionsView;
  }
}
