/** What links begin with, and whether anybody else can open them. */

import { mdiAlertOutline } from "@mdi/js";
import { html, nothing } from "lit";
import { live } from "../../store/live";
import "../../ui/icon";

// a URL's host is written in one way alone: 127.1 is 127.0.0.1
const LOOPBACK = /^(localhost|.+\.localhost|127\.[\d.]+|\[::1\])$/;

/** Whether nobody but otsd's own machine can open what begins like this. */
export function isLocal(url: string): boolean {
  return LOOPBACK.test(new URL(url).hostname);
}

function isAddon(): boolean {
  return live.session?.home_assistant.configured === "supervisor";
}

/** The setting that says what links begin with, as the owner finds it. */
export function settingOfLinks() {
  return isAddon() ? html`<em>What links begin with</em>` : html`<code>public.base_url</code>`;
}

/** What a setting needs to hold. */
export function restart(): string {
  return isAddon() ? "restart the add-on" : "restart otsd";
}

/** A warning where a link, or what links begin with, works only on otsd's own machine. */
export function warnIfLocal(url: string) {
  if (!isLocal(url)) return nothing;
  const place = isAddon()
    ? "in the add-on's configuration"
    : html`in <code>config.toml</code> (or <code>OTSD_PUBLIC__BASE_URL</code>)`;
  return html`<p class="card notice">
    <otsd-icon .path=${mdiAlertOutline}></otsd-icon>
    <span
      >Links begin with <code>${new URL(url).origin}</code>, which works only on the machine that
      otsd runs on. Set ${settingOfLinks()} ${place} to an address that visitors can reach, and
      ${restart()}. Links made before keep their codes: open them again then, to hand them
      over.</span
    >
  </p>`;
}
