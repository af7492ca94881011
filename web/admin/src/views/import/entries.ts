import {
  mdiAlertOutline,
  mdiCheckCircleOutline,
  mdiCircleEditOutline,
  mdiCloseCircleOutline,
  mdiHistory,
  mdiMagnify,
} from "@mdi/js";
import { css, html, LitElement, nothing, type PropertyValues } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { href } from "../../router";
import type { Import, ImportedAction, ImportedToken, ImportOutcome } from "../../types";
import "../../ui/choice";
import "../../ui/icon";
import { styles } from "../../ui/styles";
import { fromNow } from "../../ui/time";
import { knownEntities, summary, type Entities } from "../actions/known";
import { usesLeft } from "../tokens/words";
import { several } from "./words";

const OUTCOMES: Record<ImportOutcome, { before: string; after: string; icon: string }> = {
  taken: { before: "To be taken over", after: "Taken over", icon: mdiCheckCircleOutline },
  changed: {
    before: "To be taken over with a change",
    after: "Taken over with a change",
    icon: mdiCircleEditOutline,
  },
  refused: { before: "Cannot be taken over", after: "Not taken over", icon: mdiCloseCircleOutline },
  known: { before: "Already here", after: "Already here", icon: mdiHistory },
};
const ORDER = Object.keys(OUTCOMES) as ImportOutcome[];
const TYPING = 150;
const PORTION = 50;
/** Where looking through is no longer enough. */
const MANY = 20;
/** Lines of YAML that are there without scrolling. */
const LINES = 12;

interface Group<Entry> {
  outcome: ImportOutcome;
  entries: Entry[];
}

/** Every action and token of an import, by what becomes of it. */
@customElement("otsd-import-entries")
export class ImportEntries extends LitElement {
  static override styles = [
    styles,
    css`
      h2 {
        margin-block: 1.5rem 0.25rem;
      }
      h3 {
        display: flex;
        align-items: center;
        gap: 0.5rem;
        margin-block: 0.75rem 0.5rem;
        font-size: 1rem;
        font-weight: 400;
      }
      h3 > otsd-icon {
        font-size: 1.25rem;
        color: var(--wa-color-text-quiet);
      }
      h3.taken > otsd-icon {
        color: var(--wa-color-success-on-quiet);
      }
      h3.changed > otsd-icon {
        color: var(--wa-color-warning-on-quiet);
      }
      h3.refused > otsd-icon {
        color: var(--wa-color-danger-on-quiet);
      }
      .filters {
        grid-template-columns: minmax(0, 1fr);
        margin-block: 1rem 0;
      }
      .rows > li {
        display: grid;
        gap: 0.125rem;
        padding: 0.75rem 1rem;
      }
      /* there may be thousands, and what is out of sight costs nothing */
      .rows > .link {
        content-visibility: auto;
        contain-intrinsic-height: auto 2.75rem;
      }
      .first {
        display: flex;
        flex-wrap: wrap;
        align-items: baseline;
        gap: 0 0.625rem;
      }
      .note {
        display: flex;
        gap: 0.5rem;
        margin-block-start: 0.25rem;
        font-size: 0.875rem;
      }
      .note > otsd-icon {
        font-size: 1.25rem;
        color: var(--wa-color-warning-on-quiet);
      }
    `,
  ];

  @property({ attribute: false }) report!: Import;
  @state() private words = "";
  @state() private outcome: ImportOutcome | "" = "";
  @state() private entities: Entities = new Map();
  /** How many rows of a group are there, where it is not one portion. */
  @state() private shown: Record<string, number> = {};

  private titles = new Map<string, string>();
  private actions: Group<ImportedAction>[] = [];
  private tokens: Group<ImportedToken>[] = [];
  private typing = 0;

  override connectedCallback(): void {
    super.connectedCallback();
    void this.loadEntities();
  }

  override disconnectedCallback(): void {
    clearTimeout(this.typing);
    super.disconnectedCallback();
  }

  private async loadEntities(): Promise<void> {
    this.entities = await knownEntities();
  }

  protected override willUpdate(changed: PropertyValues): void {
    const { report, words, outcome } = this;
    if (changed.has("report")) {
      this.words = this.outcome = "";
      this.titles = new Map(
        report.actions.flatMap(({ name, title }) => (name && title ? [[name, title]] : [])),
      );
    }
    if (!["report", "words", "outcome"].some((each) => changed.has(each))) return;
    this.shown = {};
    this.actions = grouped(report.actions, outcome, words, ({ title, source, yaml }) => [
      title ?? source,
      yaml,
    ]);
    this.tokens = grouped(report.tokens, outcome, words, ({ comment, action, id }) => [
      comment,
      this.titleOf(action),
      id,
    ]);
  }

  private titleOf(action: string | null): string {
    return this.titles.get(action ?? "") ?? action ?? "";
  }

  private search(event: Event): void {
    const words = (event.target as HTMLInputElement).value.trim().toLowerCase();
    clearTimeout(this.typing);
    this.typing = window.setTimeout(() => (this.words = words), TYPING);
  }

  protected override render() {
    const { actions, tokens, words, outcome } = this;
    const isNone = !actions.length && !tokens.length;
    return html`
      ${this.renderFilters()}
      <p role="status" class="out-of-sight">
        ${words || outcome ? `${several(count(actions), "action")}, ${several(count(tokens), "link")}` : ""}
      </p>
      ${this.renderKind("action", actions, (action) => this.renderAction(action))}
      ${this.renderKind("link", tokens, (token) => this.renderToken(token))}
      ${isNone ? html`<p class="empty">${words ? "None found" : "The file is empty."}</p>` : nothing}
    `;
  }

  private renderFilters() {
    const { actions, tokens, dry_run } = this.report;
    const all = [...actions, ...tokens];
    const there = ORDER.filter((outcome) => this.report.counts[outcome] > 0);
    if (all.length < MANY) return nothing;
    return html`<div class="filters">
      <wa-input
        class="label-out-of-sight"
        type="search"
        label="Search"
        placeholder="Search"
        autocomplete="off"
        with-clear
        @input=${this.search}
      >
        <otsd-icon slot="start" .path=${mdiMagnify}></otsd-icon>
      </wa-input>
      ${
        there.length > 1
          ? html`<otsd-choice
              label="What becomes of it"
              unlabelled
              scrolls
              .options=${[
                { value: "", text: "All" },
                ...there.map((value) => ({
                  value,
                  text: OUTCOMES[value][dry_run ? "before" : "after"],
                })),
              ]}
              .value=${this.outcome}
              @change=${(event: Event) =>
                (this.outcome = (event.target as HTMLInputElement).value as ImportOutcome | "")}
            ></otsd-choice>`
          : nothing
      }
    </div>`;
  }

  private renderKind<Entry>(
    kind: "action" | "link",
    groups: Group<Entry>[],
    row: (entry: Entry) => unknown,
  ) {
    if (!groups.length) return nothing;
    return html`<h2>${kind === "action" ? "Actions" : "Links"}</h2>
      ${groups.map(({ outcome, entries }) => {
        const { icon, ...texts } = OUTCOMES[outcome];
        const key = `${kind} ${outcome}`;
        const shown = this.shown[key] ?? PORTION;
        return html`<h3 class=${outcome} id=${`${kind}-${outcome}`}>
            <otsd-icon .path=${icon}></otsd-icon>
            <span>${texts[this.report.dry_run ? "before" : "after"]}</span>
            <span class="quiet">${several(entries.length, kind)}</span>
          </h3>
          <ul class="card rows" aria-labelledby=${`${kind}-${outcome}`}>
            ${entries.slice(0, shown).map((entry) => html`<li class=${kind}>${row(entry)}</li>`)}
          </ul>
          ${
            entries.length > shown
              ? html`<div class="more">
                  <wa-button
                    appearance="plain"
                    @click=${() => {
                      const more = Math.min(shown, 10 * PORTION);
                      this.shown = { ...this.shown, [key]: shown + more };
                    }}
                    >Show more
                    <span class="out-of-sight">${`of ${several(entries.length, kind)}`}</span>
                  </wa-button>
                </div>`
              : nothing
          }`;
      })}`;
  }

  private renderAction(action: ImportedAction) {
    const { source, name, title, yaml, notes, warnings, outcome } = action;
    const isHere = name && (outcome === "known" || !this.report.dry_run);
    const does = summary(yaml ?? "", this.entities);
    return html`
      <span class="first">
        <span class="strong"
          >${isHere ? html`<a href=${href("actions", name)}>${title ?? name}</a>` : (title ?? source)}</span
        >
        ${name ? html`<code class="quiet">${name}</code>` : nothing}
      </span>
      ${does ? html`<span class="quiet">${does}</span>` : nothing}
      ${
        yaml
          ? html`<pre tabindex=${yaml.split("\n").length > LINES ? 0 : nothing}>
${yaml.trimEnd()}</pre>`
          : nothing
      }
      ${this.renderNotes(notes, warnings)}
    `;
  }

  private renderToken(token: ImportedToken) {
    const { number, id, action, comment, max_uses, expires_at, notes } = token;
    const name = comment || `Link ${id ?? number}`;
    // one whose action is not in the file is revoked
    const isAlive = max_uses !== null && this.titles.has(action ?? "");
    const facts = [
      this.titleOf(action),
      ...(isAlive ? [usesLeft(token), end(expires_at)] : []),
    ].filter(Boolean);
    return html`
      <span class="strong">${id ? html`<a href=${href("tokens", id)}>${name}</a>` : name}</span>
      ${facts.length ? html`<span class="quiet">${facts.join(" · ")}</span>` : nothing}
      ${this.renderNotes(notes)}
    `;
  }

  /** Warnings stay as they are: they may begin with an entity's id. */
  private renderNotes(notes: string[], warnings: string[] = []) {
    const sentences = notes.map((note) => note.charAt(0).toUpperCase() + note.slice(1));
    return [...sentences, ...warnings].map(
      (text) =>
        html`<span class="note"
          ><otsd-icon .path=${mdiAlertOutline}></otsd-icon><span>${text}</span></span
        >`,
    );
  }
}

function end(expires_at: string | null): string {
  if (!expires_at) return "no end";
  return `${Date.parse(expires_at) <= Date.now() ? "expired" : "expires"} ${fromNow(expires_at)}`;
}

/** The entries that were asked for, by outcome. */
function grouped<Entry extends { outcome: ImportOutcome }>(
  entries: Entry[],
  wanted: ImportOutcome | "",
  words: string,
  texts: (entry: Entry) => (string | null)[],
): Group<Entry>[] {
  const found = words
    ? entries.filter((each) => texts(each).some((text) => text?.toLowerCase().includes(words)))
    : entries;
  return ORDER.filter((outcome) => !wanted || outcome === wanted)
    .map((outcome) => ({ outcome, entries: found.filter((each) => each.outcome === outcome) }))
    .filter(({ entries }) => entries.length);
}

function count(groups: Group<unknown>[]): number {
  return groups.reduce((sum, { entries }) => sum + entries.length, 0);
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-import-entries": ImportEntries;
  }
}
