import { html, LitElement, nothing, type PropertyValues } from "lit";
import { customElement, property } from "lit/decorators.js";
import { api } from "../api";
import { LiveList } from "../store/live-list";
import type { Action } from "../types";
import { styles } from "../ui/styles";
import "./tokens/detail";
import "./tokens/list";

/** Every token, or one of them. The list stays where it is while one of them is shown. */
@customElement("otsd-tokens")
export class TokensView extends LitElement {
  static override styles = styles;

  @property() selected: string | null = null;

  private scrolled = 0;
  private readonly actions = new LiveList<Action>(this, {
    kind: "action",
    fetch: (window) => api.actions({ ...window, limit: 500 }),
    id: (action) => action.name,
    order: () => 0,
  });

  protected override willUpdate(changed: PropertyValues<this>): void {
    // only when one is opened from the list; the list is shown until this update
    if (changed.get("selected") === null && this.selected !== null) this.scrolled = scrollY;
  }

  protected override updated(changed: PropertyValues<this>): void {
    if (!changed.has("selected") || changed.get("selected") === undefined) return;
    scrollTo(0, this.selected === null ? this.scrolled : 0);
  }

  protected override render() {
    const titles = new Map(this.actions.items.map(({ name, title }) => [name, title]));
    return html`
      <otsd-token-list ?hidden=${this.selected !== null} .titles=${titles}></otsd-token-list>
      ${
        this.selected === null
          ? nothing
          : html`<otsd-token .selected=${this.selected} .titles=${titles}></otsd-token>`
      }
    `;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-tokens": TokensView;
  }
}
