/** What links begin with, and whether anybody else can open them. */

import { mdiAlertOutline } from "@mdi/js";
import { html, nothing } from "lit";
import { live } from "../../store/live";
import "../../ui/icon";

// a URL's host is written in one way alone: 127.1 is 127.0.0.1
const LOOPBACK = /^(localhost|.+\.localhost|127\.[\d.]+|\[::1\])$/;

/** The setting that says what links begin with, as the owner finds it. */
export function settingOfLinks(): string {
  const isAddon = live.session?.home_assistant.configured === "supervisor";
  return isAddon ? "public_token_base_url" : "public.base_url";
}

/** A warning where a link, or what links begin with, works only on otsd's own machine. */
export function warnIfLocal(url: string) {
  const { hostname, origin } = new URL(url);
  if (!LOOPBACK.test(hostname)) return nothing;
  return html`<p class="card notice">
    <otsd-icon .path=${mdiAlertOutline}></otsd-icon>
    <span
      >Links begin with <code>${origin}</code>, which works only on the machine that otsd runs on.
      Set <code>${settingOfLinks()}</code> to an address that visitors can reach, and restart
      otsd.</span
    >
  </p>`;
}
