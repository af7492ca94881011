import { mdiChevronDown, mdiDownload, mdiHistory, mdiUndoVariant } from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import { api } from "../api";
import { href } from "../router";
import { LiveList } from "../store/live-list";
import type { Submission, SubmissionState } from "../types";
import { confirm } from "../ui/confirm";
import "../ui/icon";
import { STATES } from "../ui/state";
import { styles } from "../ui/styles";
import "../ui/time";
import { KnownActions } from "./actions/known";
import "./activity/chart";
import { LinkNames } from "./activity/links";
import { browserInWords, durationInWords, isRefundable, outcomeInWords } from "./activity/outcome";
import { giveBack } from "./activity/refund";

const CHOICES: [SubmissionState | "", string][] = [
  ["", "Everything"],
  ["executed", "Done"],
  ["failed", "Failed"],
  ["unconfirmed", "Not confirmed"],
  ["running", "Running"],
];
const TONES = { success: "good", warning: "warning", danger: "bad" } as Record<string, string>;

/** Every submission: what became of it, who it was, and its use given back. */
@customElement("otsd-activity")
export class ActivityView extends LitElement {
  static override styles = [
    styles,
    css`
      otsd-chart {
        margin-block-end: 1rem;
      }
      .filters {
        grid-template-columns: minmax(0, 12rem) auto;
        justify-content: space-between;
      }
      details > summary {
        cursor: pointer;
        list-style: none;
      }
      summary::-webkit-details-marker {
        display: none;
      }
      summary:hover {
        background: color-mix(in srgb, currentColor 5%, transparent);
      }
      summary:focus-visible {
        outline-offset: -3px;
        border-radius: var(--wa-panel-border-radius);
      }
      .mark {
        font-size: 1.5rem;
      }
      .good {
        color: var(--wa-color-success-on-quiet);
      }
      .warning {
        color: var(--wa-color-warning-on-quiet);
      }
      .brand {
        color: var(--wa-color-brand-on-quiet);
      }
      .turn {
        color: var(--wa-color-text-quiet);
        transition: transform var(--wa-transition-normal);
      }
      details[open] .turn {
        transform: rotate(180deg);
      }
      .grow {
        display: grid;
        gap: 0.125rem;
      }
      .more-of-it {
        padding: 0.25rem 1rem 1rem 3.5rem;
      }
      @media (max-width: 480px) {
        .more-of-it {
          padding-inline-start: 1rem;
        }
      }
    `,
  ];

  @state() private wanted: SubmissionState | "" = "";

  private readonly actions = new KnownActions(this);
  private readonly links = new LinkNames(this, (id) => this.forget(id));
  private readonly submissions = new LiveList<Submission>(this, {
    kind: "submission",
    fetch: (window) => api.submissions({ state: this.wanted }, window),
    id: (submission) => submission.id,
    order: (submission) => submission.id,
    matches: ({ state }) => !this.wanted || state === this.wanted,
  });

  /** The history of a token that was deleted is gone, too. */
  private forget(token: string): void {
    for (const each of this.submissions.items) {
      if (each.token_id === token) this.submissions.apply({ id: each.id, item: null });
    }
  }

  private choose(event: Event): void {
    this.wanted = (event.target as HTMLInputElement).value as SubmissionState | "";
    void this.submissions.load();
  }

  private async refund(submission: Submission): Promise<void> {
    const isMeant = await confirm({
      title: "Give back the use?",
      text:
        submission.state === "unconfirmed"
          ? `Home Assistant may have done it all the same. “${this.links.of(submission.token_id)}” can then be used once more.`
          : `Its first steps may have happened. “${this.links.of(submission.token_id)}” can then be used once more.`,
      yes: "Give it back",
    });
    if (isMeant) await giveBack(this.submissions, submission.id);
  }

  protected override render() {
    const { items, isLoading, error, hasMore } = this.submissions;
    const isEmpty = !items.length && !isLoading && !error;
    return html`
      <div class="head"><h1>Activity</h1></div>
      ${isEmpty && !this.wanted ? nothing : this.renderTop()}
      ${error ? html`<p class="bad" role="alert">${error.message}</p>` : nothing}
      ${
        items.length
          ? html`<ul class="card rows">
              ${repeat(
                items,
                (submission) => submission.id,
                (submission) => html`<li>${this.renderRow(submission)}</li>`,
              )}
            </ul>`
          : isEmpty
            ? html`<div class="empty">
                <otsd-icon .path=${mdiHistory}></otsd-icon>
                <h2>${this.wanted ? "None found" : "Nobody has used a link yet"}</h2>
                ${this.wanted ? nothing : html`<p>Whoever does is shown here, at once.</p>`}
              </div>`
            : nothing
      }
      ${
        hasMore
          ? html`<div class="more">
              <wa-button appearance="plain" @click=${() => this.submissions.more()}
                >Show more</wa-button
              >
            </div>`
          : nothing
      }
    `;
  }

  private renderTop() {
    return html`
      <otsd-chart></otsd-chart>
      <div class="filters">
        <wa-select
          class="label-out-of-sight"
          label="What became of it"
          .value=${this.wanted}
          @change=${this.choose}
        >
          ${CHOICES.map(([value, text]) => html`<wa-option value=${value}>${text}</wa-option>`)}
        </wa-select>
        <wa-button appearance="plain" href=${api.csv()} download="submissions.csv">
          <otsd-icon slot="start" .path=${mdiDownload}></otsd-icon>Export
          <span class="out-of-sight">as CSV</span>
        </wa-button>
      </div>
    `;
  }

  private renderRow(submission: Submission) {
    const { state, action, token_id, started_at } = submission;
    const { icon, tone } = STATES[state];
    return html`<details>
      <summary class="row">
        <otsd-icon class="mark ${TONES[tone] ?? tone}" .path=${icon}></otsd-icon>
        <span class="grow">
          <span class="strong">${this.actions.titleOf(action)}</span>
          <span class="quiet">${this.links.of(token_id)}</span>
          <span class="quiet">
            <span class=${state === "executed" ? "" : (TONES[tone] ?? "")}
              >${outcomeInWords(submission)}</span
            >
            · <otsd-time .at=${started_at}></otsd-time>
          </span>
        </span>
        <otsd-icon class="turn" .path=${mdiChevronDown}></otsd-icon>
      </summary>
      ${this.renderDetail(submission)}
    </details>`;
  }

  private renderDetail(submission: Submission) {
    const { token_id, started_at, finished_at, error, remote_ip, user_agent, uses_left } =
      submission;
    return html`<div class="more-of-it">
      <dl class="facts">
        <dt>Link</dt>
        <dd><a href=${href("tokens", token_id)}>${this.links.of(token_id)}</a></dd>
        <dt>Action</dt>
        <dd>
          <a href=${href("actions", submission.action)}
            >${this.actions.titleOf(submission.action)}</a
          >
        </dd>
        <dt>When</dt>
        <dd><otsd-time .at=${started_at} exact></otsd-time></dd>
        ${
          finished_at
            ? html`<dt>It took</dt>
                <dd>${durationInWords(started_at, finished_at)}</dd>`
            : nothing
        }
        ${
          error
            ? html`<dt>Reason</dt>
                <dd class="bad">${error}</dd>`
            : nothing
        }
        <dt>Uses left</dt>
        <dd>${uses_left ?? "without limit"}</dd>
        <dt>Address</dt>
        <dd>${remote_ip ?? "not kept any more"}</dd>
        ${
          user_agent
            ? html`<dt>Browser</dt>
                <dd>
                  ${browserInWords(user_agent) ?? "unknown"}<br />
                  <span class="quiet">${user_agent}</span>
                </dd>`
            : nothing
        }
      </dl>
      ${
        isRefundable(submission)
          ? html`<div class="buttons">
              <wa-button appearance="outlined" @click=${() => this.refund(submission)}>
                <otsd-icon slot="start" .path=${mdiUndoVariant}></otsd-icon>Give back the use
              </wa-button>
            </div>`
          : nothing
      }
    </div>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-activity": ActivityView;
  }
}
