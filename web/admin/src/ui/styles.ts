/** What every view looks like: pages, cards, rows, quiet text. */

import { css } from "lit";

export const styles = css`
  :host {
    display: block;
  }
  :host([hidden]),
  [hidden] {
    display: none !important;
  }
  *,
  *::before,
  *::after {
    box-sizing: border-box;
  }
  h1,
  h2,
  h3,
  p,
  dl,
  dd,
  ul {
    margin: 0;
    padding: 0;
  }
  h1 {
    font-size: 1.5rem;
    font-weight: 500;
    line-height: 1.25;
  }
  h2 {
    font-size: 1.0625rem;
    font-weight: 500;
    line-height: 1.35;
  }
  ul {
    list-style: none;
  }
  a {
    color: var(--wa-color-text-link);
  }
  code {
    font-family: var(--wa-font-family-code);
    font-size: 0.9em;
  }
  :focus-visible {
    outline: var(--wa-focus-ring);
    outline-offset: var(--wa-focus-ring-offset);
  }
  wa-button {
    --wa-form-control-border-radius: var(--wa-border-radius-pill);
    max-width: 100%;
  }
  /* what it says may be longer than a phone is wide */
  wa-button::part(button) {
    height: auto;
    min-height: var(--wa-form-control-height);
    line-height: 1.25;
    overflow-wrap: normal;
    white-space: normal;
  }
  wa-select,
  wa-input {
    min-width: 0;
  }
  wa-input > otsd-icon[slot],
  wa-button > otsd-icon[slot] {
    font-size: 1.25rem;
  }

  /* the head of a page: its name, then what can be done */
  .head {
    display: flex;
    flex-wrap: wrap;
    align-items: center;
    gap: 0.75rem;
    margin-block-end: 1rem;
    min-height: 2.75rem;
  }
  .head h1 {
    flex: 1;
  }
  .back {
    display: grid;
    place-items: center;
    width: 2.75rem;
    height: 2.75rem;
    margin-inline: -0.625rem -0.5rem;
    border-radius: 50%;
    color: inherit;
  }
  .back:hover {
    background: color-mix(in srgb, currentColor 8%, transparent);
  }
  .filters {
    display: grid;
    grid-template-columns: 1fr auto;
    gap: 0.75rem;
    margin-block-end: 1rem;
  }

  .card {
    background: var(--otsd-card);
    border: 1px solid var(--otsd-line);
    border-radius: var(--wa-panel-border-radius);
    box-shadow: var(--otsd-card-shadow);
    padding: 1rem;
  }
  .cards {
    display: grid;
    grid-template-columns: minmax(0, 1fr);
    gap: 0.75rem;
  }

  /* a card whose rows are divided by lines */
  .rows {
    padding: 0;
    overflow: clip;
  }
  .rows > li + li {
    border-block-start: 1px solid var(--otsd-line);
  }
  .row {
    display: flex;
    align-items: center;
    gap: 0.75rem 1rem;
    padding: 0.75rem 1rem;
    min-height: 4rem;
    color: inherit;
    text-decoration: none;
  }
  .row > .grow {
    flex: 1;
    min-width: 0;
  }
  a.row:hover {
    background: color-mix(in srgb, currentColor 5%, transparent);
  }
  a.row:focus-visible {
    outline-offset: -3px;
    border-radius: var(--wa-panel-border-radius);
  }
  .strong {
    font-weight: 500;
  }
  .quiet {
    color: var(--wa-color-text-quiet);
    font-size: 0.875rem;
  }
  .bad {
    color: var(--wa-color-danger-on-quiet);
  }
  /* what a page begins with, in a sentence */
  .lead {
    margin-block-end: 1rem;
    color: var(--wa-color-text-quiet);
  }
  /* something to know before going on */
  .notice {
    display: flex;
    gap: 0.75rem;
    border-color: transparent;
    color: var(--wa-color-warning-on-normal);
    background: var(--wa-color-warning-fill-quiet);
  }
  pre {
    margin: 0.5rem 0 0;
    padding: 0.75rem;
    max-height: 20rem;
    overflow: auto;
    border-radius: 8px;
    background: var(--otsd-ground);
    font-family: var(--wa-font-family-code);
    font-size: 0.8125rem;
    line-height: 1.5;
    white-space: pre-wrap;
  }
  .facts {
    display: grid;
    grid-template-columns: max-content 1fr;
    gap: 0.375rem 1.25rem;
  }
  .facts dt {
    color: var(--wa-color-text-quiet);
  }
  .buttons {
    display: flex;
    flex-wrap: wrap;
    gap: 0.5rem;
  }
  .facts + .buttons {
    margin-block-start: 1rem;
  }
  .more {
    display: grid;
    justify-content: center;
    padding: 1rem;
  }

  /* nothing there yet, or nothing found */
  .empty {
    display: grid;
    justify-items: center;
    gap: 0.5rem;
    padding: 3rem 1rem;
    text-align: center;
    color: var(--wa-color-text-quiet);
    text-wrap: balance;
  }
  .empty otsd-icon {
    font-size: 3rem;
    color: var(--otsd-accent);
  }
  .empty h2 {
    color: var(--wa-color-text-normal);
  }

  /* for screen readers alone: a form control always has a label, and axe wants it unclipped */
  .label-out-of-sight::part(form-control-label) {
    position: absolute;
    margin: 0;
    font-size: 0;
  }
  .out-of-sight {
    position: absolute;
    width: 1px;
    height: 1px;
    overflow: hidden;
    clip-path: inset(50%);
    white-space: nowrap;
  }
`;
