/** What became of a submission, as people say it. */

import type { Submission } from "../../types";

export function outcomeInWords({ state, reason, spent }: Submission): string {
  switch (state) {
    case "running":
      return "Home Assistant is at it";
    case "executed":
      return "Done";
    case "unconfirmed":
      return `Home Assistant did not confirm it${spent ? "" : "; the use was given back"}`;
    case "failed":
      if (reason === "action_incomplete") {
        return `It failed part-way${spent ? "" : "; the use was given back"}`;
      }
      return spent ? "It failed" : "It failed: nothing happened, and the use came back";
  }
}

/** Whether its use can be given back. */
export function isRefundable({ state, spent }: Submission): boolean {
  return spent && (state === "failed" || state === "unconfirmed");
}

const BROWSERS: [RegExp, string][] = [
  [/\bEdgA?\//, "Edge"],
  [/\bOPR\//, "Opera"],
  [/\bSamsungBrowser\//, "Samsung Internet"],
  [/\b(Firefox|FxiOS)\//, "Firefox"],
  [/\b(Chrome|CriOS)\//, "Chrome"],
  [/\bVersion\/.*Safari\//, "Safari"],
];
const SYSTEMS: [RegExp, string][] = [
  [/iPhone/, "an iPhone"],
  [/iPad/, "an iPad"],
  [/Android/, "Android"],
  [/Windows/, "Windows"],
  [/Mac OS X|Macintosh/, "a Mac"],
  [/CrOS/, "ChromeOS"],
  [/Linux/, "Linux"],
];

/** "Firefox on Android", or nothing where that cannot be told. */
export function browserInWords(agent: string): string | null {
  const find = (known: [RegExp, string][]) => known.find(([pattern]) => pattern.test(agent))?.[1];
  const browser = find(BROWSERS);
  const system = find(SYSTEMS);
  return browser && system ? `${browser} on ${system}` : (browser ?? null);
}

/** How long it took: "0.4 s", "2 min". */
export function durationInWords(begin: string, end: string): string {
  const seconds = Math.max(0, (Date.parse(end) - Date.parse(begin)) / 1000);
  if (seconds >= 90) return `${Math.round(seconds / 60)} min`;
  if (seconds < 0.1) return "less than 0.1 s";
  return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}
