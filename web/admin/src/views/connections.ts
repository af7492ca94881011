import {
  mdiBellAlertOutline,
  mdiHomeAssistant,
  mdiImport,
  mdiTransitConnectionVariant,
} from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { api } from "../api";
import { href } from "../router";
import { live, Watching } from "../store/live";
import type { Connection, Session, Status } from "../types";
import { confirm } from "../ui/confirm";
import "../ui/icon";
import "../ui/state";
import { styles } from "../ui/styles";
import "../ui/time";
import { toast, toastError } from "../ui/toast";
import { adviceForHome, adviceForMqtt } from "./connections/advice";
import "./connections/api-keys";
import { warnIfLocal } from "./tokens/reach";

/** What otsd is connected to, how, and what to do where it is not; the keys of programs. */
@customElement("otsd-connections")
export class ConnectionsView extends LitElement {
  static override styles = [
    styles,
    css`
      .cards {
        align-items: start;
      }
      @media (min-width: 1180px) {
        .cards {
          grid-template-columns: 1fr 1fr;
        }
        .cards > :is(.wide, .notice) {
          grid-column: 1 / -1;
        }
      }
      .title {
        display: flex;
        align-items: center;
        gap: 0.75rem;
        margin-block-end: 0.75rem;
      }
      .title h2 {
        flex: 1;
      }
      .title > otsd-icon {
        color: var(--otsd-accent);
      }
      .said,
      .advice {
        margin-block-start: 0.75rem;
      }
      .buttons {
        margin-block-start: 1rem;
      }
      .buttons:not(:has(wa-button)) {
        display: none;
      }
      otsd-api-keys + h2 {
        margin-block: 1.75rem 0.25rem;
      }
      h2 + .quiet {
        margin-block-end: 0.75rem;
      }
      .first-upper::first-letter {
        text-transform: uppercase;
      }
    `,
  ];

  @state() private isTrying = false;

  constructor() {
    super();
    new Watching(this);
  }

  override connectedCallback(): void {
    super.connectedCallback();
    void live.refresh();
  }

  private async retry(again: () => Promise<void>): Promise<void> {
    this.isTrying = true;
    try {
      await again();
      await live.refresh();
    } catch (error) {
      toastError(error);
    }
    this.isTrying = false;
  }

  private async disconnect(): Promise<void> {
    const isMeant = await confirm({
      title: "Disconnect otsd from Home Assistant?",
      text: "No link does anything until otsd is connected again. Nothing else is lost.",
      yes: "Disconnect",
      danger: true,
    });
    if (!isMeant) return;
    try {
      await api.disconnectHome();
      live.session = null; // it says how otsd is connected
      toast("otsd is disconnected from Home Assistant.");
      await live.refresh();
    } catch (error) {
      toastError(error);
    }
  }

  protected override render() {
    const { status } = live;
    return html`
      <div class="head"><h1>Connections</h1></div>
      ${
        status
          ? html`<div class="cards">
              ${live.session ? warnIfLocal(live.session.base_url) : nothing}
              ${this.renderHome(status.home_assistant)}
              ${this.renderConnection("MQTT", mdiTransitConnectionVariant, status.mqtt, {
                advice: adviceForMqtt(status.mqtt, live.session?.home_assistant.configured),
                buttons:
                  status.mqtt.state === "refused"
                    ? html`<wa-button
                        appearance="outlined"
                        ?loading=${this.isTrying}
                        @click=${() => this.retry(api.retryBroker)}
                        >Try again now</wa-button
                      >`
                    : nothing,
              })}
              ${this.renderWaiting(status)}
            </div>`
          : nothing
      }
      <otsd-api-keys></otsd-api-keys>
      <h2>One Time Service</h2>
      <p class="quiet">
        Actions and links of that add-on can be taken over. Links go on working at the same address.
      </p>
      <wa-button appearance="outlined" href=${href("import")}>
        <otsd-icon slot="start" .path=${mdiImport}></otsd-icon>Import from One Time Service…
      </wa-button>
    `;
  }

  private renderHome(connection: Connection) {
    const { home_assistant: home } = live.session ?? {};
    const canConnect = home?.configured === "none" || home?.configured === "login";
    const { state, error } = connection;
    // one that is only away comes back by itself
    const connect = canConnect && state !== "connecting" && (state !== "connected" || error);
    return this.renderConnection("Home Assistant", mdiHomeAssistant, connection, {
      advice: adviceForHome(connection, home?.configured),
      facts: home ? this.renderHow(home) : nothing,
      buttons: html`
        ${
          connect
            ? html`<wa-button variant="brand" href="./connect"
                >${home.configured === "none" ? "Connect" : "Connect again"}</wa-button
              >`
            : nothing
        }
        ${
          state === "connecting" || state === "refused"
            ? html`<wa-button
                appearance="outlined"
                ?loading=${this.isTrying}
                @click=${() => this.retry(api.retryHome)}
                >Try again now</wa-button
              >`
            : nothing
        }
        ${
          home?.configured === "login"
            ? html`<wa-button appearance="plain" @click=${this.disconnect}>Disconnect</wa-button>`
            : nothing
        }
      `,
    });
  }

  private renderHow({ configured, url }: Session["home_assistant"]) {
    const how = {
      token: "with the access token of the configuration",
      supervisor: "as an add-on",
      login: "by the login of an administrator",
      none: "",
    }[configured];
    return html`
      <dt>Address</dt>
      <dd>${/^https?:/.test(url) ? html`<a href=${url} rel="noreferrer">${url}</a>` : url}</dd>
      ${
        how
          ? html`<dt>How</dt>
              <dd>${how}</dd>`
          : nothing
      }
    `;
  }

  private renderConnection(
    title: string,
    icon: string,
    connection: Connection,
    { advice, facts = nothing, buttons = nothing }: Parts,
  ) {
    const { state, since, version, error } = connection;
    return html`<section class="card" aria-label=${title}>
      <div class="title">
        <otsd-icon .path=${icon}></otsd-icon>
        <h2>${title}</h2>
        <otsd-state .state=${state}></otsd-state>
      </div>
      <dl class="facts">
        ${
          since && state !== "off"
            ? html`<dt>Since</dt>
                <dd><otsd-time .at=${since} exact></otsd-time></dd>`
            : nothing
        }
        ${
          version
            ? html`<dt>Version</dt>
                <dd>${version}</dd>`
            : nothing
        }
        ${facts}
      </dl>
      <div role="status">
        ${error && state !== "off" ? html`<p class="said bad first-upper">${sentence(error)}</p>` : nothing}
        ${advice ? html`<p class="advice">${advice}</p>` : nothing}
      </div>
      <div class="buttons">${buttons}</div>
    </section>`;
  }

  private renderWaiting({ event_error, notification_error, counts }: Status) {
    const waiting = [
      counts.waiting_events
        ? `${several(counts.waiting_events, "event waits", "events wait")} for Home Assistant, and none is lost.`
        : "",
      counts.waiting_notifications
        ? `${several(counts.waiting_notifications, "notification waits", "notifications wait")} to be sent.`
        : "",
    ].filter(Boolean);
    if (!waiting.length && !event_error && !notification_error) return nothing;
    return html`<section class="card wide" aria-label="Events and notifications">
      <div class="title">
        <otsd-icon .path=${mdiBellAlertOutline}></otsd-icon>
        <h2>Events and notifications</h2>
      </div>
      ${waiting.map((text) => html`<p class="said">${text}</p>`)}
      ${
        event_error
          ? html`<p class="said bad">Home Assistant refuses events: ${sentence(event_error)}</p>
              <p class="advice">Connect otsd as an administrator; then they are delivered.</p>`
          : nothing
      }
      ${
        notification_error
          ? html`<p class="said bad">
                The last notification was not sent: ${sentence(notification_error)}
              </p>
              <p class="advice">
                See whether the notify action in the configuration is right (notifications.target).
              </p>`
          : nothing
      }
    </section>`;
  }
}

interface Parts {
  advice: string | null;
  facts?: unknown;
  buttons?: unknown;
}

/** Errors are told without a full stop. */
function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

function several(count: number, one: string, more: string): string {
  return `${count} ${count === 1 ? one : more}`;
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-connections": ConnectionsView;
  }
}
