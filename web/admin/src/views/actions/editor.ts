/** One action: what it is called, what it does, what its links get, and what becomes of running it. */

import {
  mdiAlertCircleOutline,
  mdiAlertOutline,
  mdiArrowLeft,
  mdiCheckCircleOutline,
  mdiDeleteOutline,
  mdiPlay,
} from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, property, query, state } from "lit/decorators.js";
import { api, Problem } from "../../api";
import { go, href } from "../../router";
import { Following, live, Watching } from "../../store/live";
import type { Action, Ran, Target, Validation } from "../../types";
import "../../ui/choice";
import { confirm } from "../../ui/confirm";
import "../../ui/icon";
import { styles } from "../../ui/styles";
import "../../ui/time";
import { toast, toastError } from "../../ui/toast";
import { EMPTY, formOf, keepDraft, readDraft, takeBeginning, type Form } from "./draft";
import { examples, type Example } from "./examples";
import { isBeginning } from "../first-steps";
import "../tokens/uses-field";
import { lengthInWords } from "../tokens/when";
import { vocabulary } from "./known";
import { nameFrom } from "./name";

const TYPING = 500;
const LOOK_AGAIN = 15_000;
const LENGTHS = ["1h", "1d", "7d", "30d"];
const OTHER = "other";
const NONE = "none";

type Verdict =
  | { kind: "accepted"; validation: Validation }
  | { kind: "refused"; text: string; yaml: string }
  | { kind: "unknown"; text: string };

/** The editor of an action, or of a new one. */
@customElement("otsd-action-editor")
export class ActionEditor extends LitElement {
  static override styles = [
    styles,
    css`
      .cards {
        gap: 1rem;
      }
      .fields {
        display: grid;
        gap: 1rem;
      }
      @media (min-width: 560px) {
        .fields {
          grid-template-columns: 1fr 1fr;
        }
      }
      .card > h2 {
        margin-block-end: 0.75rem;
      }
      .card > h2 + .quiet {
        margin-block: -0.5rem 0.75rem;
      }
      .wrong::part(hint) {
        color: var(--wa-color-danger-on-quiet);
      }
      .waiting {
        min-height: 11rem;
        display: grid;
        place-items: center;
      }
      .verdict {
        display: grid;
        gap: 0.5rem;
        margin-block-start: 0.75rem;
      }
      .said {
        display: flex;
        gap: 0.5rem;
        align-items: flex-start;
      }
      .said > otsd-icon {
        font-size: 1.375rem;
      }
      .good > otsd-icon {
        color: var(--wa-color-success-on-quiet);
      }
      .warning {
        color: var(--wa-color-warning-on-quiet);
      }
      .targets {
        display: flex;
        flex-wrap: wrap;
        gap: 0.5rem;
      }
      .targets li {
        padding: 0.25rem 0.75rem;
        border: 1px solid var(--otsd-line);
        border-radius: var(--wa-border-radius-pill);
        background: var(--otsd-ground);
        font-size: 0.875rem;
      }
      .examples {
        display: flex;
        flex-wrap: wrap;
        gap: 0.5rem;
        margin-block-end: 0.75rem;
      }
      .note {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        gap: 0.5rem 1rem;
        padding-block: 0.75rem;
        background: var(--wa-color-brand-fill-quiet);
        color: var(--wa-color-brand-on-normal);
      }
      .note > span {
        flex: 1 1 14rem;
      }
      .defaults {
        display: grid;
        gap: 1.25rem;
      }
      .time {
        max-width: 14rem;
        margin-block-start: 0.75rem;
      }
      .bar {
        position: sticky;
        inset-block-end: calc(4rem + env(safe-area-inset-bottom));
        z-index: 1;
        display: flex;
        gap: 0.5rem;
        align-items: center;
        margin-block-start: 1rem;
        padding: 0.625rem 0.75rem;
        box-shadow: 0 2px 12px #0002;
      }
      .bar .alone {
        display: flex;
      }
      .bar .space {
        flex: 1;
      }
      .bar wa-button {
        flex: none;
      }
      @media (max-width: 359px) {
        .bar {
          gap: 0.25rem;
        }
        .bar wa-button::part(button) {
          padding-inline: 0.75rem;
        }
      }
      @media (min-width: 870px) {
        .bar {
          inset-block-end: 1rem;
        }
      }
    `,
  ];

  /** The name of the action; null is a new one. */
  @property({ attribute: false }) action: string | null = null;

  @state() private saved: Action | null = null;
  @state() private form: Form = { ...EMPTY };
  @state() private isOpen = false;
  @state() private isMissing = false;
  @state() private isFromDraft = false;
  @state() private hasChangedElsewhere = false;
  @state() private hasEditor = false;
  @state() private isNamed = false;
  @state() private otherLength = false;
  @state() private verdict: Verdict | null = null;
  @state() private problem: Problem | null = null;
  @state() private isSaving = false;
  @state() private isRunning = false;
  @state() private ran: { at: string; answer: Ran } | { at: string; error: Error } | null = null;
  @state() private examples: Example[] = [];

  @query("otsd-yaml-editor") private editor!: HTMLElement | null;
  @query(".verdict") private said!: HTMLElement | null;

  private since: string | null = null;
  private typing = 0;
  private watching = 0;
  private asking = new AbortController();

  constructor() {
    super();
    new Watching(this);
    new Following<Action>(
      this,
      "action",
      ({ id, item }) => {
        if (id === this.action) void this.changedElsewhere(item === null);
      },
      () => void this.changedElsewhere(false),
    );
  }

  override connectedCallback(): void {
    super.connectedCallback();
    addEventListener("beforeunload", this.warn);
    // what gets the focus is not behind the bar
    document.documentElement.style.scrollPaddingBlockEnd = "9.5rem";
    this.watching = window.setInterval(() => {
      if (!document.hidden && this.verdict) void this.validate();
    }, LOOK_AGAIN);
    void import("./yaml").then(() => (this.hasEditor = true), toastError);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    removeEventListener("beforeunload", this.warn);
    document.documentElement.style.scrollPaddingBlockEnd = "";
    clearInterval(this.watching);
    clearTimeout(this.typing);
    this.asking.abort();
  }

  protected override firstUpdated(): void {
    void this.open();
  }

  private get isChanged(): boolean {
    return JSON.stringify(this.form) !== JSON.stringify(this.base);
  }

  /** Whether what is written now was refused; what came since is another question. */
  private get isRefused(): boolean {
    return this.verdict?.kind === "refused" && this.verdict.yaml === this.form.yaml;
  }

  private get base(): Form {
    return this.saved ? formOf(this.saved) : EMPTY;
  }

  /** A page that is closed keeps nothing. */
  private readonly warn = (event: BeforeUnloadEvent): void => {
    if (this.isChanged) event.preventDefault();
  };

  private async open(): Promise<void> {
    if (this.action !== null) {
      try {
        this.saved = await api.action(this.action);
      } catch (error) {
        if (error instanceof Problem && error.status === 404) this.isMissing = true;
        else toastError(error);
        return;
      }
    }
    const beginning = this.action === null ? takeBeginning() : null;
    await live.known(); // whose draft it is
    const draft = beginning ? null : readDraft(this.action);
    this.form = beginning ?? draft?.form ?? this.base;
    this.since = draft ? draft.since : (this.saved?.updated_at ?? null);
    this.isFromDraft = draft !== null && this.isChanged;
    this.hasChangedElsewhere = this.since !== (this.saved?.updated_at ?? null);
    this.isNamed = this.form.name !== nameFrom(this.form.title);
    this.setOtherLength();
    this.isOpen = true;
    void this.validate();
    if (this.action === null) this.examples = examples((await vocabulary()).entities);
  }

  private async changedElsewhere(isGone: boolean): Promise<void> {
    if (this.action === null || this.isSaving) return;
    if (isGone) {
      this.isMissing = !this.isChanged;
      return;
    }
    const { isChanged } = this;
    try {
      this.saved = await api.action(this.action);
    } catch {
      return; // it is told by what comes next
    }
    const at = this.saved.updated_at ?? null;
    if (isChanged) {
      this.hasChangedElsewhere ||= at !== this.since;
    } else if (at !== this.since) {
      this.since = at;
      this.form = formOf(this.saved);
      void this.validate();
    }
  }

  private set(what: Partial<Form>): void {
    this.form = { ...this.form, ...what };
    this.problem = null;
    keepDraft(this.action, this.isChanged ? { form: this.form, since: this.since } : null);
    if ("yaml" in what) {
      clearTimeout(this.typing);
      this.typing = window.setTimeout(() => void this.validate(), TYPING);
    }
  }

  private setTitle(title: string): void {
    const isNew = this.action === null && !this.isNamed;
    this.set(isNew ? { title, name: nameFrom(title) } : { title });
  }

  private begin({ form }: Example): void {
    this.isNamed = false;
    this.set(form);
  }

  private async validate(): Promise<void> {
    this.asking.abort();
    const { signal } = (this.asking = new AbortController());
    const { yaml } = this.form;
    if (!yaml.trim()) {
      this.verdict = null;
      return;
    }
    const before = faultsOf(this.verdict);
    try {
      const validation = await api.validateAction(yaml, signal);
      this.verdict = { kind: "accepted", validation };
    } catch (error) {
      if (signal.aborted) return;
      this.verdict =
        error instanceof Problem && error.status === 422
          ? { kind: "refused", text: error.fault("yaml") ?? error.message, yaml }
          : { kind: "unknown", text: (error as Error).message };
    }
    const now = faultsOf(this.verdict);
    await this.updateComplete;
    // on a phone it would be behind the bar; who writes elsewhere is left there
    if (now && now !== before && (this.renderRoot as ShadowRoot).activeElement === this.editor) {
      this.said?.scrollIntoView({ block: "nearest" });
    }
  }

  private async save(): Promise<boolean> {
    const { title, name, yaml, uses, length } = this.form;
    const body = { title, yaml, defaults: { max_uses: uses, expires_in: length } };
    this.isSaving = true;
    this.problem = null;
    try {
      this.saved =
        this.action === null
          ? await api.createAction({ name, ...body })
          : await api.replaceAction(this.action, body);
    } catch (error) {
      if (error instanceof Problem && (error.errors.length || error.code === "action_exists")) {
        this.problem = error;
        await this.updateComplete;
        this.focusFault();
      } else toastError(error);
      return false;
    } finally {
      this.isSaving = false;
    }
    keepDraft(this.action, null);
    this.since = this.saved.updated_at ?? null;
    this.form = formOf(this.saved);
    this.isFromDraft = this.hasChangedElsewhere = false;
    return true;
  }

  private focusFault(): void {
    const first = this.renderRoot.querySelector<HTMLElement>(".wrong");
    (first ?? this.editor)?.focus();
  }

  private async saveAndStay(): Promise<void> {
    const isNew = this.action === null;
    if (!(await this.save())) return;
    toast("Saved.");
    if (!isNew) return;
    await live.refresh();
    // the first action leads on to the first link
    if (isBeginning() && live.status?.counts.actions === 1) go("tokens", null, { replace: true });
    else go("actions", this.saved?.name, { replace: true });
  }

  private discard(): void {
    keepDraft(this.action, null);
    this.form = this.base;
    this.since = this.saved?.updated_at ?? null;
    this.problem = null;
    this.isNamed = this.isFromDraft = this.hasChangedElsewhere = false;
    this.setOtherLength();
    void this.validate();
  }

  private async run(): Promise<void> {
    const { isChanged } = this;
    const isMeant = await confirm({
      title: "Run it now?",
      text: `Home Assistant does it at once: ${this.form.title || this.action}. No link loses a use.${
        isChanged ? " Your changes are saved first." : ""
      }`,
      yes: isChanged ? "Save and run" : "Run now",
    });
    if (!isMeant || (isChanged && !(await this.save()))) return;
    this.isRunning = true;
    this.ran = null;
    try {
      const answer = await api.runAction(this.action!);
      this.ran = { at: new Date().toISOString(), answer };
    } catch (error) {
      this.ran = { at: new Date().toISOString(), error: error as Error };
    }
    this.isRunning = false;
    void this.validate();
    await this.updateComplete;
    this.renderRoot.querySelector("#answer")?.scrollIntoView({ block: "nearest" });
  }

  private async delete(): Promise<void> {
    const name = this.action!;
    const title = this.saved?.title ?? name;
    const isMeant = await confirm({
      title: `Delete “${title}”?`,
      text: "This cannot be undone.",
      yes: "Delete",
      danger: true,
    });
    if (!isMeant) return;
    try {
      try {
        await api.deleteAction(name);
      } catch (error) {
        if (!(error instanceof Problem) || error.code !== "action_in_use") throw error;
        const isForced = await confirm({
          title: "Revoke its links, too?",
          text: "There are links that do this. If you delete it, they are revoked for good, and whoever opens one reads that it is no longer valid.",
          yes: "Revoke links and delete",
          danger: true,
        });
        if (!isForced) return;
        await api.deleteAction(name, true);
      }
    } catch (error) {
      return toastError(error);
    }
    keepDraft(name, null);
    this.form = this.base;
    toast(`“${title}” is deleted.`);
    go("actions", null, { replace: true });
  }

  private setOtherLength(): void {
    const { length } = this.form;
    this.otherLength = length !== null && !LENGTHS.includes(length);
  }

  protected override render() {
    const { action, saved, isMissing } = this;
    const title = action === null ? "New action" : (saved?.title ?? action);
    return html`
      <div class="head">
        <a class="back" href=${href("actions")} aria-label="All actions"
          ><otsd-icon .path=${mdiArrowLeft}></otsd-icon
        ></a>
        <h1>${title}</h1>
      </div>
      ${
        isMissing
          ? html`<p class="bad" role="alert">There is no such action.</p>`
          : this.isOpen
            ? this.renderForm()
            : nothing
      }
    `;
  }

  private renderForm() {
    return html`
      <div class="cards">
        ${this.renderNote()} ${this.renderNames()} ${this.renderYaml()} ${this.renderDefaults()}
        ${this.renderAnswer()}
      </div>
      ${this.renderBar()}
    `;
  }

  private renderNote() {
    if (this.hasChangedElsewhere) {
      return html`<div class="card note" role="status">
        <span
          >This action was changed elsewhere while you were writing. If you save, yours replaces
          it.</span
        >
        <wa-button appearance="outlined" size="s" @click=${this.discard}>Show that one</wa-button>
      </div>`;
    }
    if (!this.isFromDraft) return nothing;
    return html`<div class="card note" role="status">
      <span>These are changes of yours that are not saved yet.</span>
      <wa-button appearance="outlined" size="s" @click=${this.discard}>Discard them</wa-button>
    </div>`;
  }

  private renderNames() {
    const { form, problem } = this;
    const title = problem?.fault("title");
    const name =
      problem?.fault("name") ??
      (problem?.code === "action_exists" ? "There is an action of this name already." : undefined);
    return html`<section class="card fields" aria-label="Names">
      <wa-input
        label="Title"
        class=${title ? "wrong" : ""}
        maxlength="200"
        placeholder="Open the front door"
        hint=${title ?? "Whoever opens a link reads it."}
        .value=${form.title}
        @input=${(event: Event) => this.setTitle(valueOf(event))}
      ></wa-input>
      ${
        this.action === null
          ? html`<wa-input
              label="Name"
              class=${name ? "wrong" : ""}
              maxlength="64"
              autocapitalize="none"
              autocorrect="off"
              spellcheck="false"
              placeholder="open-the-front-door"
              hint=${name ?? "For programs. It cannot be changed later."}
              .value=${form.name}
              @input=${(event: Event) => {
                this.isNamed = true;
                this.set({ name: valueOf(event) });
              }}
            ></wa-input>`
          : html`<dl class="facts">
              <dt>Name</dt>
              <dd><code>${this.action}</code></dd>
            </dl>`
      }
    </section>`;
  }

  private renderYaml() {
    const { form, verdict, problem } = this;
    const fault = problem?.fault("yaml") ?? (verdict?.kind === "refused" ? verdict.text : "");
    return html`<section class="card">
      <h2>What Home Assistant does</h2>
      <p class="quiet">
        The YAML that Home Assistant shows in Developer tools › Actions, or a list of steps.
      </p>
      ${
        this.examples.length && !form.yaml.trim()
          ? html`<div class="examples" role="group" aria-label="Start from an example">
              ${this.examples.map(
                (each) =>
                  html`<wa-button appearance="outlined" size="s" @click=${() => this.begin(each)}>
                    <otsd-icon slot="start" .path=${each.icon}></otsd-icon>${each.form.title}
                  </wa-button>`,
              )}
            </div>`
          : nothing
      }
      ${
        this.hasEditor
          ? html`<otsd-yaml-editor
              .value=${form.yaml}
              .fault=${fault}
              @otsd-yaml=${(event: CustomEvent<string>) => this.set({ yaml: event.detail })}
            ></otsd-yaml-editor>`
          : html`<div class="waiting"><wa-spinner></wa-spinner></div>`
      }
      <div class="verdict" role="status">${this.renderVerdict()}</div>
    </section>`;
  }

  private renderVerdict() {
    const { verdict } = this;
    if (!verdict) return nothing;
    if (verdict.kind === "unknown") {
      return html`<p class="said warning">
        <otsd-icon .path=${mdiAlertOutline}></otsd-icon><span>${verdict.text}</span>
      </p>`;
    }
    if (verdict.kind === "refused") {
      return html`<p class="said bad">
        <otsd-icon .path=${mdiAlertCircleOutline}></otsd-icon>
        <span>Not right yet: ${verdict.text}</span>
      </p>`;
    }
    const { warnings, targets } = verdict.validation;
    const isThere = live.status?.home_assistant.state === "connected";
    return html`
      ${
        warnings.length
          ? html`<div class="said warning">
              <otsd-icon .path=${mdiAlertOutline}></otsd-icon>
              <div>
                ${isThere ? html`<p>It is written correctly, but:</p>` : nothing}
                <ul>
                  ${warnings.map((text) => html`<li>${text}</li>`)}
                </ul>
              </div>
            </div>`
          : isThere
            ? html`<p class="said good">
                <otsd-icon .path=${mdiCheckCircleOutline}></otsd-icon>
                <span>Home Assistant accepts it.</span>
              </p>`
            : nothing
      }
      ${
        targets.length
          ? html`<ul class="targets" aria-label="What it touches">
              ${targets.map((each) => html`<li>${targetInWords(each)}</li>`)}
            </ul>`
          : nothing
      }
    `;
  }

  private renderDefaults() {
    const { form, problem } = this;
    const at = (field: string) =>
      problem?.errors.find(({ loc }) => loc[0] === "defaults" && loc[1] === field)?.msg;
    const length = at("expires_in");
    return html`<section class="card">
      <h2>A new link of it</h2>
      <p class="quiet">Each link can be given something else.</p>
      <div class="defaults">
        <otsd-uses-field
          .value=${form.uses}
          .fault=${at("max_uses") ?? ""}
          @change=${(event: Event) =>
            this.set({
              uses: (event.currentTarget as HTMLElementTagNameMap["otsd-uses-field"]).value,
            })}
        ></otsd-uses-field>
        <div>
          <otsd-choice
            label="How long?"
            .options=${[
              ...LENGTHS.map((value) => ({ value, text: lengthInWords(value) })),
              { value: NONE, text: "No end" },
              { value: OTHER, text: "Other…" },
            ]}
            .value=${this.otherLength ? OTHER : (form.length ?? NONE)}
            @change=${(event: Event) => {
              const value = valueOf(event);
              this.otherLength = value === OTHER;
              if (value !== OTHER) this.set({ length: value === NONE ? null : value });
            }}
          ></otsd-choice>
          ${
            this.otherLength
              ? html`<wa-input
                  label="Time"
                  autocapitalize="none"
                  class="time ${length ? "wrong" : ""}"
                  hint=${length ?? "Such as 90m, 12h or 3d."}
                  .value=${form.length ?? ""}
                  @input=${(event: Event) => this.set({ length: valueOf(event).trim() })}
                ></wa-input>`
              : nothing
          }
        </div>
      </div>
    </section>`;
  }

  private renderAnswer() {
    const { ran } = this;
    if (!ran) return html`<div role="status"></div>`;
    const response = "answer" in ran ? ran.answer.response : null;
    const hasMore = response != null && JSON.stringify(response) !== "{}";
    return html`<section class="card" id="answer" role="status">
      ${
        "error" in ran
          ? html`<p class="said bad">
              <otsd-icon .path=${mdiAlertCircleOutline}></otsd-icon>
              <span>It did not work: ${ran.error.message}</span>
            </p>`
          : html`<p class="said good">
              <otsd-icon .path=${mdiCheckCircleOutline}></otsd-icon>
              <span>Done <otsd-time .at=${ran.at}></otsd-time>.</span>
            </p>`
      }
      ${
        hasMore
          ? html`<pre tabindex="0" aria-label="What it answered">
${JSON.stringify(response, null, 2)}</pre>`
          : nothing
      }
    </section>`;
  }

  private renderBar() {
    const { action, isChanged, isSaving, isRunning } = this;
    return html`<div class="card bar">
      <wa-button
        variant="brand"
        ?loading=${isSaving}
        ?disabled=${!isChanged || this.isRefused}
        @click=${this.saveAndStay}
        >Save</wa-button
      >
      ${
        action === null
          ? nothing
          : html`<wa-button appearance="outlined" ?loading=${isRunning} @click=${this.run}>
                <otsd-icon slot="start" .path=${mdiPlay}></otsd-icon>Run now
              </wa-button>
              <span class="space"></span>
              <wa-button appearance="plain" variant="danger" @click=${this.delete}>
                <otsd-icon class="alone" .path=${mdiDeleteOutline} label="Delete"></otsd-icon>
              </wa-button>`
      }
    </div>`;
  }
}

/** What is wrong or doubtful, as one text. */
function faultsOf(verdict: Verdict | null): string {
  if (verdict?.kind === "accepted") return verdict.validation.warnings.join("\n");
  return verdict?.text ?? "";
}

const ABSENT: Record<string, string> = { unavailable: "unavailable", unknown: "state unknown" };

function targetInWords({ kind, id, name, state }: Target): unknown {
  if (kind !== "entity_id") return html`${capital(kind.replace("_id", ""))} ${id}`;
  if (state === null) return html`${name ?? id}`;
  const how = ABSENT[state] ?? state.replaceAll("_", " ");
  return html`<span title=${id}>${name ?? id}</span> <span class="quiet">${how}</span>`;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function valueOf(event: Event): string {
  return (event.target as HTMLInputElement).value;
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-action-editor": ActionEditor;
  }
}
