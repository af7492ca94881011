import { mdiCalendarClockOutline, mdiChevronRight, mdiInfinity } from "@mdi/js";
import { css, html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { api, Problem } from "../../api";
import type { Edit, Token } from "../../types";
import "../../ui/icon";
import { Sheet } from "../../ui/sheet";
import { exactly } from "../../ui/time";
import { toast } from "../../ui/toast";
import "./uses-field";
import { fromWall, lasting, lengthInWords, midnight, soon, wall } from "./when";
import { sentence } from "./words";

const LENGTHS = ["1h", "1d", "7d"];

const fields = css`
  .wrong::part(hint) {
    color: var(--wa-color-danger-on-quiet);
  }
  .bad {
    margin-block-end: 1rem;
  }
`;

/** Change a token, and offer to take it back. */
async function edit(token: Token, wish: Edit, done: string): Promise<void> {
  const before: Edit = {};
  for (const key of Object.keys(wish) as (keyof Edit)[])
    Object.assign(before, { [key]: token[key] });
  await api.editToken(token.id, wish);
  const end = before.expires_at;
  // an end that is past cannot be given again
  const isSafe = !end || Date.parse(end) > Date.now() + 10_000;
  toast(done, isSafe ? () => api.editToken(token.id, before) : undefined);
}

/** Changes the comment of a token, how often it can be used, and from when. */
@customElement("otsd-edit-token")
export class EditToken extends Sheet {
  static override styles = [...[Sheet.styles].flat(), fields];

  @property({ attribute: false }) token!: Token;
  @state() private comment = "";
  @state() private max: number | null = null;
  @state() private isSaving = false;
  @state() private error: Error | null = null;

  override connectedCallback(): void {
    super.connectedCallback();
    this.comment = this.token.comment ?? "";
    this.max = this.token.max_uses;
  }

  private get taken(): number {
    const { max_uses, uses_left } = this.token;
    return (max_uses ?? 0) - (uses_left ?? 0);
  }

  private async save(event: Event): Promise<void> {
    event.preventDefault();
    if (this.isSaving) return;
    const wish: Edit = {};
    const comment = this.comment.trim();
    if (comment !== (this.token.comment ?? "")) wish.comment = comment;
    if (this.max !== this.token.max_uses) wish.max_uses = this.max;
    if (!Object.keys(wish).length) return this.close();
    this.isSaving = true;
    this.error = null;
    try {
      await edit(this.token, wish, "Changed.");
      this.close();
    } catch (error) {
      this.error = error as Error;
    }
    this.isSaving = false;
  }

  protected override render() {
    const problem = this.error instanceof Problem ? this.error : null;
    const [comment, max] = [problem?.fault("comment"), problem?.fault("max_uses")];
    return this.frame({
      label: "Change",
      isLight: false,
      body: html`
        ${
          this.error && !comment && !max
            ? html`<p class="bad" role="alert">${this.error.message}</p>`
            : nothing
        }
        <form class="form" novalidate @submit=${this.save}>
          <wa-input
            label="Who is it for?"
            hint=${sentence(comment ?? "") || "A note for you; whoever opens the link sees it too."}
            class=${comment ? "wrong" : ""}
            maxlength="500"
            autocomplete="off"
            autofocus
            .value=${this.comment}
            @input=${(event: Event) => (this.comment = valueOf(event))}
            @keydown=${(event: KeyboardEvent) => {
              if (event.key === "Enter" && !event.isComposing) void this.save(event);
            }}
          ></wa-input>
          <otsd-uses-field
            .value=${this.max}
            .taken=${this.taken}
            .fault=${max ?? ""}
            @change=${(event: Event) =>
              (this.max = (event.target as HTMLElementTagNameMap["otsd-uses-field"]).value)}
          ></otsd-uses-field>
        </form>
      `,
      footer: html`<wa-button slot="footer" appearance="plain" @click=${this.close}
          >Cancel</wa-button
        >
        <wa-button slot="footer" variant="brand" ?loading=${this.isSaving} @click=${this.save}
          >Save</wa-button
        >`,
    });
  }
}

/** Gives a token another end. */
@customElement("otsd-extend-token")
export class ExtendToken extends Sheet {
  static override styles = [
    ...[Sheet.styles].flat(),
    fields,
    css`
      form {
        display: grid;
        grid-template-columns: minmax(0, 15rem) auto;
        align-items: end;
        gap: 0.75rem;
        padding-block: 0.5rem;
      }
    `,
  ];

  @property({ attribute: false }) token!: Token;
  @state() private isExact = false;
  @state() private at = "";
  @state() private isSaving = false;
  @state() private error: Error | null = null;

  private async extend(to: string | null): Promise<void> {
    if (this.isSaving) return;
    this.isSaving = true;
    this.error = null;
    try {
      await edit(this.token, { expires_at: to }, to ? "It has a new end." : "It has no end now.");
      this.close();
    } catch (error) {
      this.error = error as Error;
    }
    this.isSaving = false;
  }

  private choose(): void {
    const { expires_at } = this.token;
    const isAhead = expires_at !== null && Date.parse(expires_at) > Date.now();
    this.at = isAhead ? wall(expires_at) : soon();
    this.isExact = true;
    void this.turn("wa-input");
  }

  private save(event: Event): void {
    event.preventDefault();
    void this.extend(fromWall(this.at));
  }

  protected override render() {
    const { expires_at, valid_from } = this.token;
    const now = Date.now();
    const end = expires_at ? Date.parse(expires_at) : 0;
    const isLonger = end > now;
    const start = Math.max(now, end, valid_from ? Date.parse(valid_from) : 0);
    const problem = this.error instanceof Problem ? this.error : null;
    const fault = problem?.fault("expires_at") ?? this.error?.message;
    const told = fault ? html`<p class="bad" role="alert">${sentence(fault)}</p>` : nothing;
    return this.frame({
      label: expires_at ? "Extend" : "Set an end",
      body: html`
        <p class="lead">
          ${
            expires_at
              ? `It ${isLonger ? "ends" : "ended"} ${exactly(expires_at)}.`
              : "It has no end so far."
          }
        </p>
        ${this.isExact ? nothing : told}
        <ul class="choices">
          ${LENGTHS.map((length) => {
            const to = new Date(start + lasting(length)).toISOString();
            const words = lengthInWords(length);
            return this.renderChoice(
              isLonger ? `${words} longer` : `${words} from ${start > now ? "its start" : "now"}`,
              `until ${exactly(to)}`,
              mdiCalendarClockOutline,
              () => this.extend(to),
            );
          })}
          ${
            isLonger || start > now
              ? nothing
              : this.renderChoice("Today", "until midnight", mdiCalendarClockOutline, () =>
                  this.extend(fromWall(midnight())),
                )
          }
          ${
            expires_at
              ? this.renderChoice("No end", "until you end it", mdiInfinity, () =>
                  this.extend(null),
                )
              : nothing
          }
          ${
            this.isExact
              ? html`<li>
                  <form @submit=${this.save}>
                    <wa-input
                      type="datetime-local"
                      label="Until"
                      .value=${this.at}
                      @input=${(event: Event) => (this.at = valueOf(event))}
                    ></wa-input>
                    <wa-button variant="brand" ?loading=${this.isSaving} @click=${this.save}
                      >Save</wa-button
                    >
                  </form>
                  ${told}
                </li>`
              : this.renderChoice("Date and time", "", mdiCalendarClockOutline, () => this.choose())
          }
        </ul>
      `,
    });
  }

  private renderChoice(title: string, text: string, icon: string, chosen: () => unknown) {
    return html`<li>
      <button class="choice" @click=${chosen}>
        <otsd-icon .path=${icon}></otsd-icon>
        <span class="grow">
          <span class="strong">${title}</span>
          ${text ? html`<br /><span class="quiet">${text}</span>` : nothing}
        </span>
        <otsd-icon .path=${mdiChevronRight} style="color: inherit"></otsd-icon>
      </button>
    </li>`;
  }
}

/** Let the owner change the comment and the uses. */
export function editToken(token: Token): Promise<void> {
  return Object.assign(new EditToken(), { token }).show();
}

/** Let the owner choose another end. */
export function extendToken(token: Token): Promise<void> {
  return Object.assign(new ExtendToken(), { token }).show();
}

function valueOf(event: Event): string {
  return (event.target as HTMLInputElement).value ?? "";
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-edit-token": EditToken;
    "otsd-extend-token": ExtendToken;
  }
}
