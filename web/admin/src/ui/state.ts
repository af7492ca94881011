import {
  mdiAlertCircleOutline,
  mdiCalendarClockOutline,
  mdiCancel,
  mdiCheckCircleOutline,
  mdiClockAlertOutline,
  mdiCounter,
  mdiHelpCircleOutline,
  mdiMinusCircleOutline,
  mdiPauseCircleOutline,
  mdiProgressClock,
  mdiSync,
} from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import type { ConnectionState, SubmissionState, TokenState } from "../types";
import "./icon";

export type AnyState = TokenState | SubmissionState | ConnectionState;
type Tone = "success" | "brand" | "warning" | "danger" | "neutral";

/** How a state is told, on labels and in choices. */
export const STATES: Record<AnyState, { text: string; tone: Tone; icon: string }> = {
  active: { text: "Active", tone: "success", icon: mdiCheckCircleOutline },
  scheduled: { text: "Scheduled", tone: "brand", icon: mdiCalendarClockOutline },
  paused: { text: "Paused", tone: "warning", icon: mdiPauseCircleOutline },
  used_up: { text: "Used up", tone: "neutral", icon: mdiCounter },
  expired: { text: "Expired", tone: "neutral", icon: mdiClockAlertOutline },
  revoked: { text: "Revoked", tone: "danger", icon: mdiCancel },
  running: { text: "Running", tone: "brand", icon: mdiProgressClock },
  executed: { text: "Done", tone: "success", icon: mdiCheckCircleOutline },
  failed: { text: "Failed", tone: "danger", icon: mdiAlertCircleOutline },
  unconfirmed: { text: "Unconfirmed", tone: "warning", icon: mdiHelpCircleOutline },
  connected: { text: "Connected", tone: "success", icon: mdiCheckCircleOutline },
  connecting: { text: "Connecting", tone: "warning", icon: mdiSync },
  refused: { text: "Refused", tone: "danger", icon: mdiAlertCircleOutline },
  off: { text: "Off", tone: "neutral", icon: mdiMinusCircleOutline },
};

/** A state as a label: colour, icon and word. */
@customElement("otsd-state")
export class StateBadge extends LitElement {
  static override styles = css`
    :host {
      display: inline-flex;
      flex: none;
    }
    span {
      display: inline-flex;
      align-items: center;
      gap: 0.25rem;
      padding: 0.125rem 0.625rem 0.125rem 0.375rem;
      border-radius: var(--wa-border-radius-pill);
      font-size: 0.8125rem;
      font-weight: 500;
      line-height: 1.5;
      white-space: nowrap;
    }
    otsd-icon {
      font-size: 1.125rem;
    }
  `;

  @property() state: AnyState | "" = "";

  protected override render() {
    if (!this.state) return nothing;
    const { text, tone, icon } = STATES[this.state];
    const color = `var(--wa-color-${tone}-on-normal)`;
    const fill = `var(--wa-color-${tone}-fill-quiet)`;
    return html`<span style="color: ${color}; background: ${fill}"
      ><otsd-icon .path=${icon}></otsd-icon>${text}</span
    >`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-state": StateBadge;
  }
}
