import { mdiFlashOutline, mdiLinkPlus, mdiMagnify, mdiTune } from "@mdi/js";
import { css, html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import { api, Away, Problem } from "../../api";
import { href } from "../../router";
import { LiveList } from "../../store/live-list";
import type { Action, Mint, Minted } from "../../types";
import "../../ui/choice";
import "../../ui/icon";
import { Sheet } from "../../ui/sheet";
import "./hand-over";
import { fromWall, lasting, lengthInWords, midnight, soon } from "./when";
import "./uses-field";
import { defaultsOf, sentence } from "./words";

const LENGTHS = ["1h", "1d", "7d"];
const MANY = 8;

interface Wish {
  comment: string;
  max_uses: number | null;
  /** A length, or `today`, `at`, `never`. */
  until: string;
  expires_at: string;
  from: "now" | "at";
  valid_from: string;
}

/** Makes a link: choose an action, and there it is; or first say how often and how long. */
@customElement("otsd-new-link")
export class NewLink extends Sheet {
  static override styles = [
    ...[Sheet.styles].flat(),
    css`
      .action {
        display: flex;
        border: 1px solid var(--wa-color-surface-border);
        border-radius: var(--wa-panel-border-radius);
        overflow: clip;
      }
      .action .choice {
        border: 0;
        border-radius: 0;
      }
      .action .choice:focus-visible {
        outline-offset: -3px;
      }
      .action .more {
        flex: none;
        justify-content: center;
        width: 3.5rem;
        padding: 0;
        border-inline-start: 1px solid var(--wa-color-surface-border);
      }
      .action .more otsd-icon {
        color: var(--wa-color-text-quiet);
      }
      wa-spinner {
        font-size: 1.5rem;
        --indicator-color: var(--otsd-accent);
      }
      .lead otsd-icon {
        font-size: 1.125rem;
        vertical-align: -0.2em;
      }
      .search {
        margin-block-end: 0.75rem;
      }
      .at {
        max-width: 15rem;
        margin-block-start: 0.75rem;
      }
      .bad {
        margin-block-end: 1rem;
      }
      .form .bad {
        margin-block: 0.5rem 0;
        font-size: 0.875rem;
      }
      .wrong::part(hint) {
        color: var(--wa-color-danger-on-quiet);
      }
    `,
  ];

  /** The action whose choices are open. */
  @property({ attribute: false }) action: Action | null = null;
  @state() private wish!: Wish;
  @state() private isMaking: string | null = null;
  @state() private error: Error | null = null;
  @state() private made: { token: Minted; title: string } | null = null;
  @state() private words = "";

  // asked once more for the same wish, the daemon answers with the same token
  private asked = { body: "", key: "" };

  private readonly actions = new LiveList<Action>(this, {
    kind: "action",
    fetch: (window) => api.actions({ ...window, limit: 500 }),
    id: (action) => action.name,
    order: () => 0,
  });

  override connectedCallback(): void {
    super.connectedCallback();
    if (this.action) this.begin(this.action);
  }

  private begin(action: Action): void {
    const { max_uses = 1, expires_in = null } = action.defaults;
    this.wish = {
      comment: "",
      max_uses,
      until: expires_in ?? "never",
      expires_at: soon(),
      from: "now",
      valid_from: soon(),
    };
    this.action = action;
    this.error = null;
  }

  private async choose(action: Action): Promise<void> {
    this.begin(action);
    await this.turn(matchMedia("(pointer: fine)").matches ? "wa-input" : "otsd-choice");
  }

  private async make(action: Action, wish: Omit<Mint, "action"> = {}): Promise<void> {
    if (this.isMaking) return;
    this.isMaking = action.name;
    this.error = null;
    const body = { action: action.name, ...wish };
    if (this.asked.body !== JSON.stringify(body)) {
      this.asked = { body: JSON.stringify(body), key: unique() };
    }
    try {
      this.made = { token: await api.mint(body, this.asked.key), title: action.title };
      await this.turn("otsd-hand-over");
    } catch (error) {
      if (!(error instanceof Away)) this.asked.body = "";
      this.error = error as Error;
      await this.turn(".bad");
    } finally {
      this.isMaking = null;
    }
  }

  private submit(event: Event): void {
    event.preventDefault();
    if (!this.action) return;
    const { comment, max_uses, until, expires_at, from, valid_from } = this.wish;
    const wish: Omit<Mint, "action"> = { comment: comment.trim(), max_uses };
    if (from === "at") wish.valid_from = fromWall(valid_from);
    if (until === "at") wish.expires_at = fromWall(expires_at);
    else if (until === "today") wish.expires_at = fromWall(midnight());
    else wish.expires_in = until === "never" ? null : until;
    void this.make(this.action, wish);
  }

  private take<Key extends keyof Wish>(key: Key, value: Wish[Key]): void {
    this.wish = { ...this.wish, [key]: value };
  }

  protected override render() {
    if (this.made) return this.renderMade(this.made.token, this.made.title);
    return this.action ? this.renderForm(this.action) : this.renderActions();
  }

  private renderError() {
    return this.error
      ? html`<p class="bad" role="alert" tabindex="-1">${this.error.message}</p>`
      : nothing;
  }

  private renderActions() {
    const { items, isLoading, error } = this.actions;
    const words = this.words.toLowerCase();
    const found = items
      .filter(({ title, name }) => `${title} ${name}`.toLowerCase().includes(words))
      .sort((one, other) => one.title.localeCompare(other.title));
    return this.frame({
      label: "New link",
      body: html`
        ${this.renderError()}
        ${error ? html`<p class="bad" role="alert">${error.message}</p>` : nothing}
        ${
          items.length > MANY
            ? html`<wa-input
                class="search label-out-of-sight"
                type="search"
                label="Search actions"
                placeholder="Search"
                with-clear
                @input=${(event: Event) => (this.words = valueOf(event))}
              >
                <otsd-icon slot="start" .path=${mdiMagnify}></otsd-icon>
              </wa-input>`
            : nothing
        }
        ${
          items.length
            ? html`<p class="lead">
                  What shall it do? A tap makes the link at once;
                  <otsd-icon .path=${mdiTune} label="the button beside it"></otsd-icon> has more
                  choices.
                </p>
                <ul class="choices">
                  ${repeat(
                    found,
                    ({ name }) => name,
                    (action) => this.renderAction(action),
                  )}
                </ul>`
            : isLoading || error
              ? nothing
              : html`<div class="empty">
                  <otsd-icon .path=${mdiFlashOutline}></otsd-icon>
                  <h2>No actions yet</h2>
                  <p>A link does something: say first what that is.</p>
                  <wa-button variant="brand" href=${href("actions")}>Make an action</wa-button>
                </div>`
        }
      `,
    });
  }

  private renderAction(action: Action) {
    return html`<li class="action">
      <button class="choice" aria-disabled=${!!this.isMaking} @click=${() => this.make(action)}>
        ${
          this.isMaking === action.name
            ? html`<wa-spinner></wa-spinner>`
            : html`<otsd-icon .path=${mdiLinkPlus}></otsd-icon>`
        }
        <span class="grow">
          <span class="strong">${action.title}</span><br />
          <span class="quiet">${sentence(defaultsOf(action))}</span>
        </span>
      </button>
      <button
        class="choice more"
        title="More choices"
        aria-label="More choices for ${action.title}"
        @click=${() => this.choose(action)}
      >
        <otsd-icon .path=${mdiTune}></otsd-icon>
      </button>
    </li>`;
  }

  private renderForm(action: Action) {
    const { comment, max_uses, until, expires_at, from, valid_from } = this.wish;
    const problem = this.error instanceof Problem ? this.error : null;
    const fault = (field: string) => problem?.fault(field) ?? "";
    const ends = fault("expires_at") || fault("expires_in");
    const isTold = fault("comment") || fault("max_uses") || ends || fault("valid_from");
    const lengths = [...LENGTHS];
    const usual = action.defaults.expires_in;
    if (usual && !lengths.some((each) => lasting(each) === lasting(usual))) lengths.push(usual);
    lengths.sort((one, other) => lasting(one) - lasting(other));
    const chosen = lengths.find((each) => lasting(each) === lasting(until)) ?? until;
    return this.frame({
      label: action.title,
      isLight: false,
      body: html`
        ${isTold ? nothing : this.renderError()}
        <form id="wish" class="form" novalidate @submit=${this.submit}>
          <wa-input
            label="Who is it for?"
            hint=${sentence(fault("comment")) || "A note for you; whoever opens the link sees it too."}
            class=${fault("comment") ? "wrong" : ""}
            maxlength="500"
            autocomplete="off"
            .value=${comment}
            @input=${(event: Event) => this.take("comment", valueOf(event))}
            @keydown=${(event: KeyboardEvent) => {
              if (event.key === "Enter" && !event.isComposing) this.submit(event);
            }}
          ></wa-input>
          <otsd-uses-field
            .value=${max_uses}
            .fault=${fault("max_uses")}
            @change=${(event: Event) =>
              this.take(
                "max_uses",
                (event.target as HTMLElementTagNameMap["otsd-uses-field"]).value,
              )}
          ></otsd-uses-field>
          <div>
            <otsd-choice
              label="How long?"
              .value=${chosen}
              .options=${[
                ...lengths.map((each) => ({ value: each, text: lengthInWords(each) })),
                { value: "today", text: "Today" },
                { value: "at", text: "Date and time" },
                { value: "never", text: "No end" },
              ]}
              @change=${(event: Event) => this.take("until", valueOf(event))}
            ></otsd-choice>
            ${
              until === "at"
                ? html`<wa-input
                    class="at label-out-of-sight"
                    type="datetime-local"
                    label="Until"
                    .value=${expires_at}
                    @input=${(event: Event) => this.take("expires_at", valueOf(event))}
                  ></wa-input>`
                : nothing
            }
            ${ends ? html`<p class="bad" role="alert">${sentence(ends)}</p>` : nothing}
          </div>
          <div>
            <otsd-choice
              label="From when?"
              .value=${from}
              .options=${[
                { value: "now", text: "Now" },
                { value: "at", text: "Date and time" },
              ]}
              @change=${(event: Event) => this.take("from", valueOf(event) as Wish["from"])}
            ></otsd-choice>
            ${
              from === "at"
                ? html`<wa-input
                    class="at label-out-of-sight"
                    type="datetime-local"
                    label="From"
                    .value=${valid_from}
                    @input=${(event: Event) => this.take("valid_from", valueOf(event))}
                  ></wa-input>`
                : nothing
            }
            ${
              fault("valid_from")
                ? html`<p class="bad" role="alert">${sentence(fault("valid_from"))}</p>`
                : nothing
            }
          </div>
        </form>
      `,
      footer: html`<wa-button
          slot="footer"
          appearance="plain"
          @click=${() => {
            this.action = null;
            this.error = null;
          }}
          >Back</wa-button
        >
        <wa-button
          slot="footer"
          variant="brand"
          ?loading=${!!this.isMaking}
          @click=${(event: Event) => this.submit(event)}
          >Make the link</wa-button
        >`,
    });
  }

  private renderMade(token: Minted, title: string) {
    return this.frame({
      label: "The link is ready",
      body: html`<otsd-hand-over
        fresh
        .token=${token}
        .url=${token.url}
        .heading=${title}
      ></otsd-hand-over>`,
      footer: html`<wa-button
          slot="footer"
          appearance="plain"
          href=${href("tokens", token.id)}
          @click=${this.close}
          >Details</wa-button
        >
        <wa-button slot="footer" appearance="outlined" @click=${this.close}>Done</wa-button>`,
    });
  }
}

/** Make a link: of an action that the owner chooses, or of this one with more choices. */
export function newLink(action: Action | null = null): Promise<void> {
  return Object.assign(new NewLink(), { action }).show();
}

/** An id that nobody else has; `crypto.randomUUID` is not there over plain HTTP. */
function unique(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}

function valueOf(event: Event): string {
  return (event.target as HTMLInputElement).value ?? "";
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-new-link": NewLink;
  }
}
