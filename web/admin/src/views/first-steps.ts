import { mdiCheckCircle, mdiCircleOutline } from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { go, href } from "../router";
import { live, Watching } from "../store/live";
import "../ui/icon";
import { styles } from "../ui/styles";
import { beginWith } from "./actions/draft";
import { examples, type Example } from "./actions/examples";
import { vocabulary } from "./actions/known";
import "./import/offer";
import { newLink } from "./tokens/mint";
import { warnIfLocal } from "./tokens/reach";

/** Whether there is no link: none was made yet, or all are forgotten. */
export function isBeginning(): boolean {
  return live.status?.counts.tokens === 0;
}

/** Three steps to the first link, each ticked when it is done. */
@customElement("otsd-welcome")
export class FirstSteps extends LitElement {
  static override styles = [
    styles,
    css`
      ol {
        margin: 0;
        padding: 0;
        list-style: none;
        display: grid;
        gap: 0.75rem;
      }
      li {
        display: grid;
        grid-template-columns: auto 1fr;
        gap: 0.25rem 1rem;
      }
      li > otsd-icon {
        grid-row: 1;
        color: var(--wa-color-text-quiet);
      }
      li > div {
        grid-column: 2;
      }
      li.done > otsd-icon {
        color: var(--wa-color-success-on-quiet);
      }
      li.now {
        border-color: var(--otsd-accent);
      }
      li.now > otsd-icon {
        color: var(--otsd-accent);
      }
      li:not(.now, .done) {
        background: none;
        box-shadow: none;
      }
      .buttons,
      .notice {
        margin-block-start: 0.5rem;
      }
    `,
  ];

  @state() private examples: Example[] = [];

  private isReachable = false;

  constructor() {
    super();
    new Watching(this);
  }

  protected override willUpdate(): void {
    const isReachable = live.status?.home_assistant.state === "connected";
    if (isReachable && !this.isReachable) void this.load();
    this.isReachable = isReachable;
  }

  private async load(): Promise<void> {
    this.examples = examples((await vocabulary()).entities);
  }

  private begin({ form }: Example): void {
    beginWith(form);
    go("actions", "new");
  }

  protected override render() {
    const { status } = live;
    if (!status) return nothing;
    const isConnected = status.home_assistant.state === "connected";
    const hasAction = status.counts.actions > 0;
    return html`
      <div class="head"><h1>Welcome</h1></div>
      <p class="lead">Three steps, and you have a link that opens your door once.</p>
      <ol>
        ${this.renderStep(
          "Connect otsd to Home Assistant",
          isConnected,
          true,
          this.renderConnect(),
        )}
        ${this.renderStep(
          "Say what a link does",
          hasAction,
          isConnected,
          html`<p class="quiet">
              ${
                this.examples.length
                  ? "Start from one of these, or write your own."
                  : "An action of Home Assistant, such as unlocking the door."
              }
            </p>
            <div class="buttons">
              ${this.examples.map(
                (each) =>
                  html`<wa-button appearance="outlined" @click=${() => this.begin(each)}>
                    <otsd-icon slot="start" .path=${each.icon}></otsd-icon>${each.form.title}
                  </wa-button>`,
              )}
              <wa-button appearance="plain" href=${href("actions", "new")}
                >${this.examples.length ? "Something else" : "Write an action"}</wa-button
              >
            </div>`,
        )}
        ${this.renderStep(
          "Make a link, and hand it over",
          false,
          isConnected && hasAction,
          html`<p class="quiet">Whoever opens it presses one button, as often as you allow.</p>
            ${live.session ? warnIfLocal(live.session.base_url) : nothing}
            <div class="buttons">
              <wa-button variant="brand" @click=${() => newLink()}>Make a link</wa-button>
            </div>`,
        )}
      </ol>
      <otsd-import-offer></otsd-import-offer>
    `;
  }

  private renderConnect() {
    const { session, status } = live;
    const configured = session?.home_assistant.configured;
    if (
      configured === "none" ||
      (configured === "login" && status?.home_assistant.state !== "connecting")
    ) {
      return html`<p class="quiet">
          You log in there once more, so that otsd has a way in of its own.
        </p>
        <div class="buttons">
          <wa-button variant="brand" href="./connect">Connect</wa-button>
        </div>`;
    }
    return html`<p class="quiet">
      It is set up, but Home Assistant is not there at the moment.
      <a href=${href("connections")}>See what to do</a>
    </p>`;
  }

  private renderStep(title: string, isDone: boolean, isNow: boolean, how: unknown) {
    const isOpen = isNow && !isDone;
    return html`<li
      class="card ${isDone ? "done" : isOpen ? "now" : ""}"
      aria-current=${isOpen ? "step" : nothing}
    >
      <otsd-icon
        .path=${isDone ? mdiCheckCircle : mdiCircleOutline}
        .label=${isDone ? "Done" : "To do"}
      ></otsd-icon>
      <h2>${title}</h2>
      ${isOpen ? html`<div>${how}</div>` : nothing}
    </li>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-welcome": FirstSteps;
  }
}
