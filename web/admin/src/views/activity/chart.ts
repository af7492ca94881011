import { css, html, LitElement, svg } from "lit";
import { customElement, state } from "lit/decorators.js";
import { api } from "../../api";
import { Following } from "../../store/live";
import type { Day, Submission } from "../../types";
import { LOCALE } from "../../ui/time";
import { styles } from "../../ui/styles";

const DAYS = 28;
const HEIGHT = 100;
const STEP = 10;
const GAP = 2;
const SETTLING = 1000;
const OUTCOMES = [
  { key: "executed", text: "done" },
  { key: "unconfirmed", text: "not confirmed" },
  { key: "failed", text: "failed" },
] as const;

/** How often links were used on each of the last days: bars, and the same as a table. */
@customElement("otsd-chart")
export class Chart extends LitElement {
  static override styles = [
    styles,
    css`
      figure {
        margin: 0;
      }
      .head {
        align-items: baseline;
        gap: 0.25rem 1.25rem;
        min-height: 0;
        margin-block-end: 0.75rem;
      }
      .head h2 {
        flex: 1 1 auto;
      }
      .legend {
        display: flex;
        flex-wrap: wrap;
        gap: 0.25rem 1rem;
      }
      .legend li {
        display: flex;
        align-items: center;
        gap: 0.375rem;
      }
      .legend li::before {
        content: "";
        width: 0.75rem;
        height: 0.75rem;
        border-radius: 3px;
        background: var(--color);
      }
      .executed {
        --color: var(--otsd-chart-good, var(--wa-color-success-fill-loud));
      }
      .unconfirmed {
        --color: var(--wa-color-warning-fill-loud);
      }
      .failed {
        --color: var(--wa-color-danger-fill-loud);
      }
      svg {
        display: block;
        width: 100%;
        height: 6rem;
        border-block-end: 1px solid var(--wa-color-surface-border);
      }
      rect {
        fill: var(--color);
      }
      rect.day {
        fill: transparent;
      }
      g:hover rect.day {
        fill: color-mix(in srgb, var(--wa-color-text-normal) 8%, transparent);
      }
      .axis {
        display: flex;
        justify-content: space-between;
        margin-block-start: 0.25rem;
        font-size: 0.8125rem;
      }
    `,
  ];

  @state() private days: Day[] = [];
  private waiting = 0;

  constructor() {
    super();
    const soon = () => {
      this.waiting ||= window.setTimeout(() => void this.load(), SETTLING);
    };
    new Following<Submission>(this, "submission", soon, soon);
    new Following(this, "token", ({ item }) => item === null && soon(), soon);
  }

  override connectedCallback(): void {
    super.connectedCallback();
    void this.load();
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    clearTimeout(this.waiting);
    this.waiting = 0;
  }

  private async load(): Promise<void> {
    this.waiting = 0;
    try {
      this.days = (await api.daily(DAYS)).items;
    } catch {
      // the list beside it tells what is wrong
    }
  }

  protected override render() {
    const { days } = this;
    const total = (key: (typeof OUTCOMES)[number]["key"]) =>
      days.reduce((sum, day) => sum + day[key], 0);
    const most = Math.max(1, ...days.map(sumOf));
    const shown = OUTCOMES.filter(({ key }) => key === "executed" || total(key));
    return html`<figure class="card" aria-labelledby="about">
      <div class="head">
        <h2 id="about">The last four weeks</h2>
        <ul class="legend quiet">
          ${shown.map(({ key, text }) => html`<li class=${key}>${total(key)} ${text}</li>`)}
        </ul>
      </div>
      <svg viewBox="0 0 ${DAYS * STEP} ${HEIGHT}" preserveAspectRatio="none" aria-hidden="true">
        ${days.map((day, place) => renderDay(day, place, most))}
      </svg>
      <div class="axis quiet" aria-hidden="true">
        <span>${days[0] ? dayInWords(days[0].day) : "\u00a0"}</span>
        <span>${days.length ? "Today" : ""}</span>
      </div>
      <div class="out-of-sight">
        <table>
          <caption>
            How often links were used on each of the last ${DAYS} days
          </caption>
          <thead>
            <tr>
              <th scope="col">Day</th>
              ${OUTCOMES.map(({ text }) => html`<th scope="col">${text}</th>`)}
            </tr>
          </thead>
          <tbody>
            ${days.filter(sumOf).map(
              (day) =>
                html`<tr>
                  <th scope="row">${dayInWords(day.day)}</th>
                  ${OUTCOMES.map(({ key }) => html`<td>${day[key]}</td>`)}
                </tr>`,
            )}
          </tbody>
        </table>
      </div>
    </figure>`;
  }
}

function sumOf(day: Day): number {
  return OUTCOMES.reduce((sum, { key }) => sum + day[key], 0);
}

function renderDay(day: Day, place: number, most: number) {
  const x = place * STEP;
  let top = HEIGHT;
  const parts = OUTCOMES.filter(({ key }) => day[key]).map(({ key }) => {
    const height = (day[key] / most) * (HEIGHT - 4);
    top -= height;
    return svg`<rect class=${key} x=${x + GAP / 2} y=${top} width=${STEP - GAP} height=${height} />`;
  });
  const told = OUTCOMES.filter(({ key }) => day[key]).map(({ key, text }) => `${day[key]} ${text}`);
  return svg`<g>
    <title>${dayInWords(day.day)}: ${told.join(", ") || "nothing"}</title>
    <rect class="day" x=${x} y="0" width=${STEP} height=${HEIGHT} />${parts}
  </g>`;
}

/** A day of the house's calendar, which has no time zone any more. */
function dayInWords(day: string): string {
  return new Intl.DateTimeFormat(LOCALE, {
    day: "numeric",
    month: "short",
    timeZone: "UTC",
  }).format(new Date(`${day}T00:00:00Z`));
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-chart": Chart;
  }
}
