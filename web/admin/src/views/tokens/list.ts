import { mdiLinkPlus, mdiMagnify, mdiMagnifyClose } from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, property, query, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import { api, type TokenFilter } from "../../api";
import { href } from "../../router";
import { LiveList } from "../../store/live-list";
import type { Token, TokenState } from "../../types";
import "../../ui/choice";
import "../../ui/icon";
import { STATES } from "../../ui/state";
import { styles } from "../../ui/styles";
import { newLink } from "./mint";
import "./weak";
import { lastUse, nameOf, span, stateAt, usesLeft } from "./words";

const CHOICES: TokenState[] = ["active", "scheduled", "paused", "used_up", "expired", "revoked"];
const STATE_OPTIONS = [
  { value: "", text: "All" },
  ...CHOICES.map((value) => ({ value, text: STATES[value].text })),
];
/** How many rows are there beyond those in sight, and by how many at a time they change. */
const BEYOND = 20;
const STEP = 10;
const TICK = 10_000;
const TYPING = 250;

/** The tokens, newest first, as they are now. */
@customElement("otsd-token-list")
export class TokenList extends LitElement {
  static override styles = [
    styles,
    css`
      :host {
        padding-block-end: 4.5rem;
      }
      .new {
        position: fixed;
        z-index: 1;
        inset: auto 1rem calc(5rem + env(safe-area-inset-bottom)) auto;
        --wa-form-control-height: 3.5rem;
        border-radius: var(--wa-border-radius-pill);
        box-shadow: 0 3px 12px #0004;
      }
      .filters {
        grid-template-columns: 1fr;
      }
      @media (min-width: 360px) {
        .filters.with-actions {
          grid-template-columns: minmax(0, 1fr) 10rem;
        }
      }
      .filters otsd-choice {
        grid-column: 1 / -1;
        min-width: 0;
      }
      /* every row is as high as every other: what is out of sight is a gap of so many rows */
      .rows li {
        border-block-end: 1px solid var(--otsd-line);
      }
      a.row {
        display: grid;
        grid-template: "name state" auto "what what" auto "when when" auto / 1fr auto;
        gap: 0.125rem 0.75rem;
      }
      .name {
        grid-area: name;
        overflow: hidden;
        text-overflow: ellipsis;
        white-space: nowrap;
      }
      .what {
        grid-area: what;
        display: flex;
        min-width: 0;
      }
      .what,
      .when {
        min-height: 1lh;
        white-space: pre;
        overflow: hidden;
      }
      .when,
      .what > :first-child {
        overflow: hidden;
        text-overflow: ellipsis;
      }
      .when {
        grid-area: when;
      }
      .dots > span + span::before {
        content: " · ";
      }
      otsd-weak {
        margin-inline-start: 0.5rem;
      }
      otsd-state {
        grid-area: state;
      }
      @media (min-width: 700px) {
        :host {
          padding-block-end: 0;
        }
        .new {
          position: static;
          box-shadow: none;
          --wa-form-control-height: 2.75rem;
        }
        .filters.with-actions {
          grid-template-columns: 1fr 14rem;
        }
        a.row {
          grid-template: "name when state" auto "what used state" auto / 1fr auto 7.5rem;
          gap: 0.125rem 1.5rem;
        }
        .when {
          display: contents;
        }
        .when > span {
          justify-self: end;
        }
        .when > span::before {
          content: none !important;
        }
        .used {
          grid-area: used;
        }
        otsd-state {
          justify-self: end;
          align-self: center;
        }
      }
    `,
  ];

  /** The titles of the actions by their names. */
  @property({ attribute: false }) titles: ReadonlyMap<string, string> = new Map();
  @state() private filter: TokenFilter = {};
  @state() private isGrowing = false;
  /** The rows that are there: in sight, or nearly. */
  @state() private first = 0;
  @state() private last = 2 * BEYOND;
  @query(".rows") private rows!: HTMLElement | null;
  @query(".more") private end!: HTMLElement | null;

  private height = 0;
  private typing = 0;
  private ticking = 0;
  private readonly tokens = new LiveList<Token>(this, {
    kind: "token",
    fetch: (window) => api.tokens(this.filter, window),
    id: (token) => token.id,
    order: (token) => token.created_at,
    matches: (token) => this.belongs(token),
  });

  private readonly atTheEnd = new IntersectionObserver(
    (seen) => {
      if (seen.some((each) => each.isIntersecting)) void this.grow();
    },
    { rootMargin: "0px 0px 800px" },
  );

  override connectedCallback(): void {
    super.connectedCallback();
    this.ticking = window.setInterval(() => this.tick(), TICK);
    addEventListener("scroll", this.look, { passive: true });
    addEventListener("resize", this.look);
  }

  override disconnectedCallback(): void {
    removeEventListener("scroll", this.look);
    removeEventListener("resize", this.look);
    clearInterval(this.ticking);
    clearTimeout(this.typing);
    this.atTheEnd.disconnect();
    super.disconnectedCallback();
  }

  /** Many changes may come at once, and one picture a frame is enough. */
  protected override async scheduleUpdate(): Promise<void> {
    if (this.hasUpdated && !document.hidden) {
      await new Promise((frame) => requestAnimationFrame(frame));
    }
    super.scheduleUpdate();
  }

  protected override updated(): void {
    this.look();
    this.atTheEnd.disconnect();
    if (this.end && !this.isGrowing) this.atTheEnd.observe(this.end); // tells at once if it is seen
  }

  /** See which rows are in sight. */
  private readonly look = (): void => {
    const height = this.rows?.querySelector("li")?.getBoundingClientRect().height;
    if (!this.rows || !height) return; // there is none, or all of it is hidden
    const above = -this.rows.getBoundingClientRect().top;
    const step = (row: number) => Math.floor(row / STEP) * STEP;
    this.height = height;
    this.first = Math.max(0, step(above / height - BEYOND));
    this.last = step((above + innerHeight) / height + BEYOND) + STEP;
  };

  /** Follow the clock: no event tells of a token that begins or ends with time. */
  private tick(): void {
    const now = Date.now();
    for (const token of this.tokens.items) {
      const state = stateAt(token, now);
      if (state !== token.state) this.tokens.apply({ id: token.id, item: { ...token, state } });
    }
    this.requestUpdate(); // "5 minutes ago"
  }

  private belongs({ id, state, action, comment }: Token): boolean {
    const { state: wanted, action: name, q } = this.filter;
    const words = q?.toLowerCase();
    return (
      (!wanted || state === wanted) &&
      (!name || action === name) &&
      (!words || id.includes(words) || (comment ?? "").toLowerCase().includes(words))
    );
  }

  private get isFiltered(): boolean {
    return Object.values(this.filter).some(Boolean);
  }

  private choose(filter: TokenFilter): void {
    this.filter = { ...this.filter, ...filter };
    clearTimeout(this.typing);
    this.typing = window.setTimeout(() => void this.tokens.load(), "q" in filter ? TYPING : 0);
  }

  private async grow(): Promise<void> {
    if (this.isGrowing || this.tokens.error) return;
    this.isGrowing = true;
    await this.tokens.more();
    this.isGrowing = false;
  }

  protected override render() {
    const { items, isLoading, error, hasMore } = this.tokens;
    const first = Math.min(this.first, Math.max(0, items.length - BEYOND));
    const isBare = !items.length && !isLoading && !error && !this.isFiltered;
    return html`
      <div class="head">
        <h1>Links</h1>
        <wa-button class="new" variant="brand" @click=${() => newLink()}>
          <otsd-icon slot="start" .path=${mdiLinkPlus}></otsd-icon>New link
        </wa-button>
      </div>
      ${isBare ? nothing : this.renderFilters()}
      ${error ? html`<p class="bad" role="alert">${error.message}</p>` : nothing}
      <p role="status" class="out-of-sight">${this.count()}</p>
      ${
        items.length
          ? html`<div class="card rows">
              ${this.renderGap(first)}
              <ul>
                ${repeat(
                  items.slice(first, this.last),
                  (token) => token.id,
                  (token, place) => this.renderRow(token, first + place),
                )}
              </ul>
              ${this.renderGap(items.length - this.last)}
            </div>`
          : nothing
      }
      ${
        !items.length && !isLoading && this.isFiltered && !error
          ? html`<div class="empty">
              <otsd-icon .path=${mdiMagnifyClose}></otsd-icon>
              <h2>None found</h2>
              <p>No link is like that at the moment.</p>
            </div>`
          : nothing
      }
      ${
        hasMore
          ? html`<div class="more">
              <wa-button appearance="plain" ?loading=${this.isGrowing} @click=${this.grow}
                >Show more</wa-button
              >
            </div>`
          : nothing
      }
    `;
  }

  /** What a search found, for those who do not see it. */
  private count(): string {
    const { items, isLoading, hasMore } = this.tokens;
    if (isLoading || !this.isFiltered) return "";
    if (hasMore) return "More than 50 found";
    return items.length ? `${items.length} found` : "None found";
  }

  private renderFilters() {
    const actions = [...this.titles].sort(([, one], [, other]) => one.localeCompare(other));
    return html`<div class="filters ${actions.length > 1 ? "with-actions" : ""}">
      <wa-input
        class="label-out-of-sight"
        type="search"
        label="Search"
        placeholder="Search"
        autocomplete="off"
        maxlength="500"
        with-clear
        @input=${(event: Event) => this.choose({ q: valueOf(event).trim() })}
      >
        <otsd-icon slot="start" .path=${mdiMagnify}></otsd-icon>
      </wa-input>
      ${
        actions.length > 1
          ? html`<wa-select
              class="label-out-of-sight"
              label="Action"
              value=""
              @change=${(event: Event) => this.choose({ action: valueOf(event) })}
            >
              <wa-option value="">All actions</wa-option>
              ${actions.map(([name, title]) => html`<wa-option value=${name}>${title}</wa-option>`)}
            </wa-select>`
          : nothing
      }
      <otsd-choice
        label="State"
        unlabelled
        scrolls
        .options=${STATE_OPTIONS}
        .value=${this.filter.state ?? ""}
        @change=${(event: Event) => this.choose({ state: valueOf(event) as TokenState | "" })}
      ></otsd-choice>
    </div>`;
  }

  private renderGap(rows: number) {
    return html`<div style="height: ${Math.max(0, rows) * this.height}px"></div>`;
  }

  private renderRow(token: Token, place: number) {
    const title = this.titles.get(token.action) ?? token.action;
    const now = Date.now();
    const state = stateAt(token, now);
    const times = span({ ...token, state }, now);
    const count = this.tokens.hasMore ? -1 : this.tokens.items.length;
    return html`<li aria-posinset=${place + 1} aria-setsize=${count}>
      <a class="row" href=${href("tokens", token.id)}>
        <span class="name strong">${nameOf(token, this.titles)}</span>
        <span class="what quiet dots"
          ><span>${token.comment ? title : html`<code>${token.id}</code>`}</span
          >${state === "revoked" ? nothing : html`<span>${usesLeft(token)}</span>`}${
            token.weak ? html`<otsd-weak></otsd-weak>` : nothing
          }</span
        >
        <span class="when quiet dots"
          >${times ? html`<span>${times}</span>` : nothing}<span class="used"
            >${lastUse(token, now)}</span
          ></span
        >
        <otsd-state .state=${state}></otsd-state>
      </a>
    </li>`;
  }
}

function valueOf(event: Event): string {
  return (event.target as HTMLInputElement).value ?? "";
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-token-list": TokenList;
  }
}
