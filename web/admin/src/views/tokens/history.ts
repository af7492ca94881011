import { css, html, LitElement, nothing, type PropertyValues } from "lit";
import { customElement, property } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import { api } from "../../api";
import { LiveList } from "../../store/live-list";
import type { Submission } from "../../types";
import "../../ui/state";
import { styles } from "../../ui/styles";
import "../../ui/time";
import { isRefundable } from "../activity/outcome";
import { giveBack } from "../activity/refund";

/** What became of one token: its submissions, newest first. */
@customElement("otsd-token-history")
export class TokenHistory extends LitElement {
  static override styles = [
    styles,
    css`
      h2 {
        margin-block: 0.5rem 0.75rem;
      }
      .row {
        flex-wrap: wrap;
      }
      .row > .grow {
        flex-basis: 11rem;
      }
    `,
  ];

  @property() token = "";
  /** Whether its uses are counted, so that one can come back. */
  @property({ type: Boolean }) limited = false;
  /** Whether it was never used; nobody knows that of one from One Time Service. */
  @property({ type: Boolean }) unused = false;

  private readonly submissions = new LiveList<Submission>(this, {
    kind: "submission",
    fetch: (window) => api.submissions({ token: this.token }, window),
    id: (submission) => submission.id,
    order: (submission) => submission.id,
    matches: (submission) => submission.token_id === this.token,
  });

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has("token") && this.hasUpdated) void this.submissions.load();
  }

  protected override render() {
    const { items, isLoading, error, hasMore } = this.submissions;
    return html`
      <h2>What happened</h2>
      ${error ? html`<p class="bad" role="alert">${error.message}</p>` : nothing}
      ${
        items.length
          ? html`<ul class="card rows">
              ${repeat(
                items,
                (submission) => submission.id,
                (submission) => this.renderRow(submission),
              )}
            </ul>`
          : isLoading || error
            ? nothing
            : html`<p class="quiet">
                ${this.unused ? "Nobody has used it yet." : "Nothing that otsd knows of."}
              </p>`
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

  private renderRow(submission: Submission) {
    const { id, state, started_at, remote_ip, error } = submission;
    return html`<li class="row">
      <span class="grow">
        <otsd-time exact .at=${started_at}></otsd-time>
        <span class="quiet">${remote_ip ? `from ${remote_ip}` : nothing}</span>
        ${error ? html`<br /><span class="quiet">${error}</span>` : nothing}
      </span>
      ${
        isRefundable(submission) && this.limited
          ? html`<wa-button
              size="s"
              appearance="outlined"
              @click=${() => giveBack(this.submissions, id)}
              >Give the use back</wa-button
            >`
          : nothing
      }
      <otsd-state .state=${state}></otsd-state>
    </li>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-token-history": TokenHistory;
  }
}
