import { css, html, LitElement, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import { live } from "../store/live";

export const LOCALE = navigator.languages.find((each) => each.startsWith("en")) ?? "en-GB";
const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["year", 31_557_600],
  ["month", 2_629_800],
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
];
const relative = new Intl.RelativeTimeFormat(LOCALE, { numeric: "auto" });

/** Say a time as people do: "in 3 days", "5 minutes ago". */
export function fromNow(at: string, now = Date.now()): string {
  const seconds = (Date.parse(at) - now) / 1000;
  const size = Math.abs(seconds);
  // nobody says "in 60 minutes"
  const found = UNITS.find(([, length]) => size >= length * 0.99);
  if (!found) return seconds > 0 ? "in less than a minute" : "just now";
  return relative.format(Math.round(seconds / found[1]), found[0]);
}

/** Say a time exactly, in the house's time zone. */
export function exactly(at: string): string {
  const zone = live.session?.time_zone;
  return new Intl.DateTimeFormat(LOCALE, {
    dateStyle: "medium",
    timeStyle: "short",
    ...(zone ? { timeZone: zone } : {}),
  }).format(new Date(at));
}

const shown = new Set<Time>();
setInterval(() => {
  for (const each of shown) each.requestUpdate();
}, 10_000);

/** A time, relative to now and exact on pointing at it; `otherwise` where there is none. */
@customElement("otsd-time")
export class Time extends LitElement {
  static override styles = css`
    :host {
      white-space: nowrap;
    }
  `;

  @property() at: string | null = null;
  @property() otherwise = "never";
  /** Whether the exact time is the text. */
  @property({ type: Boolean }) exact = false;

  override connectedCallback(): void {
    super.connectedCallback();
    shown.add(this);
  }

  override disconnectedCallback(): void {
    shown.delete(this);
    super.disconnectedCallback();
  }

  protected override render() {
    if (!this.at) return this.otherwise || nothing;
    const [text, title] = this.exact
      ? [exactly(this.at), fromNow(this.at)]
      : [fromNow(this.at), exactly(this.at)];
    return html`<time datetime=${this.at} title=${title}>${text}</time>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-time": Time;
  }
}
