import {
  mdiArrowLeft,
  mdiAutorenew,
  mdiCalendarPlusOutline,
  mdiCancel,
  mdiContentDuplicate,
  mdiLinkVariantOff,
  mdiPause,
  mdiPencilOutline,
  mdiPlay,
  mdiQrcode,
  mdiRestore,
  mdiShieldAlertOutline,
  mdiTrashCanOutline,
} from "@mdi/js";
import { css, html, LitElement, nothing, type PropertyValues } from "lit";
import { customElement, property, query, state } from "lit/decorators.js";
import { api, Problem } from "../../api";
import { go, href } from "../../router";
import { Following } from "../../store/live";
import type { Minted, Token } from "../../types";
import { confirm } from "../../ui/confirm";
import "../../ui/icon";
import "../../ui/state";
import { styles } from "../../ui/styles";
import "../../ui/time";
import { toast, toastError } from "../../ui/toast";
import { editToken, extendToken } from "./edit";
import { handOver } from "./hand-over";
import "./history";
import { lastUse, maker, nameOf, stateAt, usesLeft } from "./words";

interface Deed {
  text: string;
  icon: string;
  do: () => Promise<unknown>;
  isDanger?: boolean;
}

/** One token: what it is, what can be done with it, and what became of it. */
@customElement("otsd-token")
export class TokenDetail extends LitElement {
  static override styles = [
    styles,
    css`
      h1:focus {
        outline: none;
      }
      .cards {
        gap: 1rem;
      }
      .deeds {
        display: grid;
        grid-template-columns: repeat(auto-fill, minmax(6.25rem, 1fr));
        gap: 0.25rem;
        padding: 0.5rem;
      }
      .deeds button {
        display: grid;
        justify-items: center;
        align-content: start;
        gap: 0.375rem;
        width: 100%;
        height: 100%;
        min-height: 4.75rem;
        padding: 0.75rem 0.25rem 0.5rem;
        border: 0;
        border-radius: var(--wa-border-radius-m);
        font: inherit;
        font-size: 0.8125rem;
        line-height: 1.3;
        color: inherit;
        background: none;
        cursor: pointer;
        -webkit-tap-highlight-color: transparent;
      }
      @media (hover: hover) {
        .deeds button:hover {
          background: color-mix(in srgb, currentColor 6%, transparent);
        }
      }
      .deeds otsd-icon {
        color: var(--otsd-accent);
      }
      .deeds .danger,
      .deeds .danger otsd-icon {
        color: var(--wa-color-danger-on-quiet);
      }
      .notice {
        flex-wrap: wrap;
        align-items: center;
        gap: 0.75rem 1rem;
      }
      .notice > span {
        flex: 1 1 14rem;
      }
    `,
  ];

  @property() selected = "";
  @property({ attribute: false }) titles: ReadonlyMap<string, string> = new Map();
  @state() private token: Token | null = null;
  @state() private error: Error | null = null;
  @state() private isGone = false;
  @query("h1") private heading!: HTMLElement;

  private ticking = 0;
  private isBusy = false;

  constructor() {
    super();
    new Following<Token>(
      this,
      "token",
      ({ id, item }) => {
        if (id !== this.selected) return;
        this.isGone = item === null;
        if (item) this.token = item;
      },
      () => void this.load(),
    );
  }

  override connectedCallback(): void {
    super.connectedCallback();
    this.ticking = window.setInterval(() => this.requestUpdate(), 10_000);
  }

  override disconnectedCallback(): void {
    clearInterval(this.ticking);
    super.disconnectedCallback();
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has("selected")) {
      this.token = this.error = null;
      this.isGone = false;
      void this.load();
    }
  }

  protected override updated(changed: PropertyValues<this>): void {
    if (changed.has("selected")) this.heading.focus({ preventScroll: true });
  }

  private async load(): Promise<void> {
    const id = this.selected;
    try {
      const token = await api.token(id);
      if (id !== this.selected) return;
      this.token = token;
      this.error = null;
    } catch (error) {
      if (id !== this.selected) return;
      if (error instanceof Problem && error.status === 404) this.isGone = true;
      else if (!this.token) this.error = error as Error;
    }
  }

  /** Do one thing at a time, and say why not where it cannot be done. */
  private async try(what: () => Promise<unknown>): Promise<void> {
    if (this.isBusy) return;
    this.isBusy = true;
    try {
      await what();
    } catch (error) {
      toastError(error);
    } finally {
      this.isBusy = false;
    }
  }

  private get does(): string {
    const { action } = this.token!;
    return this.titles.get(action) ?? action;
  }

  private async showLink(): Promise<void> {
    const token = this.token!;
    const { url } = await api.link(token.id);
    void handOver({ token, url, heading: this.does });
  }

  private async pause(): Promise<void> {
    const { id } = (this.token = await api.changeToken(this.selected, "pause"));
    toast("Paused. The link does nothing now.", () => api.changeToken(id, "resume"));
  }

  private async resume(): Promise<void> {
    const { id } = (this.token = await api.changeToken(this.selected, "resume"));
    toast("The link works again.", () => api.changeToken(id, "pause"));
  }

  private async replenish(): Promise<void> {
    const { max_uses, uses_left } = this.token!;
    const all = max_uses === 1 ? "once more" : `${max_uses} times again`;
    const isSure =
      uses_left !== 0 ||
      (await confirm({
        title: "Refill the uses?",
        text: `It was used up. Whoever has the link can use it ${all}.`,
        yes: "Refill",
      }));
    if (!isSure) return;
    this.token = await api.changeToken(this.selected, "replenish");
    toast(`It can be used ${all}.`);
  }

  private async rotate(): Promise<void> {
    const isSure = await confirm({
      title: "Replace the link?",
      text: "The link that there is now ends at once, for everybody who has it. The new one has the same uses and the same end.",
      yes: "Replace",
      danger: true,
    });
    if (!isSure) return;
    const { url, ...token } = await api.rotateToken(this.selected);
    if (token.id === this.selected) this.token = token;
    this.hand({ ...token, url }, "The new link");
  }

  private async duplicate(): Promise<void> {
    this.hand(await api.duplicateToken(this.selected), "A second link like it", true);
  }

  private hand(made: Minted, label: string, fresh = false): void {
    const { url, ...token } = made;
    void handOver({ token, url, heading: this.does, label, fresh });
  }

  private async revoke(): Promise<void> {
    const isSure = await confirm({
      title: "End this link for good?",
      text: "Nobody can use it any more, and this cannot be undone. What happened with it stays in the activity.",
      yes: "Revoke",
      danger: true,
    });
    if (!isSure) return;
    this.token = await api.changeToken(this.selected, "revoke");
    toast("Revoked.");
  }

  private async delete(): Promise<void> {
    const isSure = await confirm({
      title: "Delete it with its history?",
      text: "The link ends, and everything that happened with it is forgotten. This cannot be undone.",
      yes: "Delete",
      danger: true,
    });
    if (!isSure) return;
    await api.deleteToken(this.selected);
    toast("Deleted.");
    go("tokens", null, { replace: true });
  }

  /** What can be done in a state. */
  private deeds(token: Token): Deed[] {
    const state = stateAt(token, Date.now());
    const { max_uses, uses_left, expires_at, weak } = token;
    const deeds: (Deed | false)[] = [
      state !== "revoked" &&
        !weak && {
          text: "Link and QR code",
          icon: mdiQrcode,
          do: () => this.showLink(),
        },
      (state === "active" || state === "scheduled") && {
        text: "Pause",
        icon: mdiPause,
        do: () => this.pause(),
      },
      state === "paused" && { text: "Resume", icon: mdiPlay, do: () => this.resume() },
      state !== "revoked" && {
        text: expires_at ? "Extend" : "Set an end",
        icon: mdiCalendarPlusOutline,
        do: () => extendToken(token),
      },
      state !== "revoked" && {
        text: "Change",
        icon: mdiPencilOutline,
        do: () => editToken(token),
      },
      state !== "revoked" &&
        state !== "expired" &&
        max_uses !== uses_left && {
          text: "Refill uses",
          icon: mdiRestore,
          do: () => this.replenish(),
        },
      { text: "Duplicate", icon: mdiContentDuplicate, do: () => this.duplicate() },
      state !== "revoked" &&
        !weak && {
          text: "Replace link",
          icon: mdiAutorenew,
          do: () => this.rotate(),
        },
      state !== "revoked" && {
        text: "Revoke",
        icon: mdiCancel,
        do: () => this.revoke(),
        isDanger: true,
      },
      { text: "Delete", icon: mdiTrashCanOutline, do: () => this.delete(), isDanger: true },
    ];
    return deeds.filter((deed) => deed !== false);
  }

  protected override render() {
    const { token } = this;
    return html`
      <div class="head">
        <a class="back" href=${href("tokens")} aria-label="All links"
          ><otsd-icon .path=${mdiArrowLeft}></otsd-icon
        ></a>
        <h1 tabindex="-1">${token ? nameOf(token, this.titles) : `Link ${this.selected}`}</h1>
        ${
          token && !this.isGone
            ? html`<otsd-state role="status" .state=${stateAt(token, Date.now())}></otsd-state>`
            : nothing
        }
      </div>
      ${this.error ? html`<p class="bad" role="alert">${this.error.message}</p>` : nothing}
      ${
        this.isGone
          ? html`<div class="empty">
              <otsd-icon .path=${mdiLinkVariantOff}></otsd-icon>
              <h2>There is no such link</h2>
              <p>It was deleted with its history, or it never was.</p>
            </div>`
          : token
            ? this.renderToken(token)
            : nothing
      }
    `;
  }

  private renderToken(token: Token) {
    const { id, action, valid_from, expires_at, last_used_at, created_at, created_by } = token;
    const state = stateAt(token, Date.now());
    return html`<div class="cards">
      ${
        token.weak && state !== "revoked"
          ? html`<div class="card notice">
              <otsd-icon .path=${mdiShieldAlertOutline}></otsd-icon>
              <span
                >This link was imported. Its code comes from a generator that can be guessed.
                Replace it when you can; the old one ends then.</span
              >
              <wa-button variant="brand" @click=${() => this.try(() => this.rotate())}
                >Replace link</wa-button
              >
            </div>`
          : nothing
      }
      <ul class="card deeds" aria-label="What you can do">
        ${this.deeds(token).map(
          ({ text, icon, do: deed, isDanger }) =>
            html`<li>
              <button class=${isDanger ? "danger" : ""} @click=${() => this.try(deed)}>
                <otsd-icon .path=${icon}></otsd-icon>${text}
              </button>
            </li>`,
        )}
      </ul>
      <div class="card">
        <dl class="facts">
          <dt>Action</dt>
          <dd><a href=${href("actions", action)}>${this.does}</a></dd>
          ${
            state === "revoked"
              ? nothing
              : html`<dt>Uses</dt>
                  <dd>${usesLeft(token)}</dd>`
          }
          ${
            valid_from
              ? html`<dt>From</dt>
                  <dd>${this.renderTime(valid_from)}</dd>`
              : nothing
          }
          ${
            state === "revoked"
              ? nothing
              : html`<dt>${state === "expired" ? "Expired" : "Expires"}</dt>
                  <dd>${expires_at ? this.renderTime(expires_at) : "never"}</dd>`
          }
          <dt>Last used</dt>
          <dd>${last_used_at ? this.renderTime(last_used_at) : lastUse(token, Date.now())}</dd>
          <dt>Made</dt>
          <dd>${this.renderTime(created_at)}, ${maker(created_by)}</dd>
          <dt>Id</dt>
          <dd><code>${id}</code></dd>
        </dl>
      </div>
      <otsd-token-history
        .token=${id}
        .limited=${token.max_uses !== null}
        .unused=${!last_used_at && created_by !== "import"}
      ></otsd-token-history>
    </div>`;
  }

  private renderTime(at: string) {
    return html`<otsd-time .at=${at}></otsd-time>
      <span class="quiet">(<otsd-time exact .at=${at}></otsd-time>)</span>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-token": TokenDetail;
  }
}
