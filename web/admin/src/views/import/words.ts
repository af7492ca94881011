/** Imports in plain words. */

import type { Import, ImportOutcome } from "../../types";

export function several(count: number, one: string, more = `${one}s`): string {
  return `${count.toLocaleString("en")} ${count === 1 ? one : more}`;
}

/** How many actions and links have one of these outcomes: "3 actions and 12 links". */
export function amount({ actions, tokens }: Import, ...outcomes: ImportOutcome[]): string {
  const of = (entries: { outcome: ImportOutcome }[]) =>
    entries.filter(({ outcome }) => outcomes.includes(outcome)).length;
  return [[of(actions), "action"] as const, [of(tokens), "link"] as const]
    .filter(([count]) => count)
    .map(([count, what]) => several(count, what))
    .join(" and ");
}
