import { mdiCheck, mdiLinkPlus } from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import { href } from "../../router";
import { live, Watching } from "../../store/live";
import "../../ui/icon";
import { styles } from "../../ui/styles";
import { newLink } from "./mint";

/** What there is to do before the first link. */
@customElement("otsd-first-steps")
export class FirstSteps extends LitElement {
  static override styles = [
    styles,
    css`
      .card {
        padding: 1.5rem 1.25rem;
      }
      ol {
        display: grid;
        gap: 1.5rem;
        margin: 1.25rem 0 0;
        padding: 0;
        list-style: none;
      }
      li {
        display: flex;
        gap: 1rem;
      }
      li > div {
        display: grid;
        gap: 0.25rem;
        justify-items: start;
      }
      wa-button {
        margin-block-start: 0.5rem;
      }
      .number {
        display: grid;
        place-items: center;
        flex: none;
        width: 2rem;
        height: 2rem;
        border: 1px solid var(--wa-color-surface-border);
        border-radius: 50%;
        font-weight: 500;
      }
      .next .number {
        border-color: transparent;
        color: var(--wa-color-brand-on-loud);
        background: var(--wa-color-brand-fill-loud);
      }
      .done .number {
        border-color: transparent;
        color: var(--wa-color-success-on-normal);
        background: var(--wa-color-success-fill-quiet);
      }
      .done h2 {
        color: var(--wa-color-text-quiet);
      }
    `,
  ];

  @property({ type: Boolean }) hasActions = false;

  constructor() {
    super();
    new Watching(this);
  }

  protected override render() {
    if (!live.status) return nothing;
    const steps = [
      {
        isDone: live.status.home_assistant.state === "connected",
        title: "Connect Home Assistant",
        text: "It does what your links ask for.",
        button: html`<wa-button variant="brand" href=${href("connections")}>Connect</wa-button>`,
      },
      {
        isDone: this.hasActions,
        title: "Say what a link may do",
        text: "Open the front door, for example.",
        button: html`<wa-button variant="brand" href=${href("actions")}>Make an action</wa-button>`,
      },
      {
        isDone: false,
        title: "Make your first link",
        text: "Give it to somebody, who opens it and presses the button.",
        button: html`<wa-button variant="brand" @click=${() => newLink()}>
          <otsd-icon slot="start" .path=${mdiLinkPlus}></otsd-icon>New link
        </wa-button>`,
      },
    ];
    const next = steps.findIndex(({ isDone }) => !isDone);
    return html`<div class="card">
      <h2>No links yet</h2>
      <ol>
        ${steps.map(
          ({ isDone, title, text, button }, place) =>
            html`<li
              class=${isDone ? "done" : place === next ? "next" : ""}
              aria-current=${place === next ? "step" : nothing}
            >
              <span class="number" aria-hidden="true"
                >${isDone ? html`<otsd-icon .path=${mdiCheck}></otsd-icon>` : place + 1}</span
              >
              <div>
                <h2>
                  ${title}${isDone ? html`<span class="out-of-sight">: done</span>` : nothing}
                </h2>
                ${isDone ? nothing : html`<p class="quiet">${text}</p>`}
                ${place === next ? button : nothing}
              </div>
            </li>`,
        )}
      </ol>
    </div>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-first-steps": FirstSteps;
  }
}
