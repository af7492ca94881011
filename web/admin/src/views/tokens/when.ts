/** Times as they are chosen: on the clock of the house, which may not be that of the browser. */

import { live } from "../../store/live";

const UNITS = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000 };
const WORDS = { d: "day", h: "hour", m: "minute", s: "second" };
type Unit = keyof typeof UNITS;

function parts(length: string): [number, Unit][] {
  return [...length.matchAll(/(\d+)([dhms])/g)].map((match) => [
    Number(match[1]),
    match[2] as Unit,
  ]);
}

/** How many milliseconds "1h30m" lasts. */
export function lasting(length: string): number {
  return parts(length).reduce((sum, [count, unit]) => sum + count * UNITS[unit], 0);
}

/** Say a length as people do: "1 hour 30 minutes", "1 week". */
export function lengthInWords(length: string): string {
  const weeks = lasting(length) / (7 * UNITS.d);
  if (weeks === 1) return "1 week";
  return parts(length)
    .map(([count, unit]) => `${count} ${WORDS[unit]}${count === 1 ? "" : "s"}`)
    .join(" ");
}

/** What a clock on the wall shows, as a field for date and time has it: "2026-12-01T18:00". */
export function wall(at: string | number): string {
  const zone = live.session?.time_zone;
  const shown = new Intl.DateTimeFormat("en-CA", {
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
    ...(zone ? { timeZone: zone } : {}),
  }).formatToParts(new Date(at));
  const of = (type: string) => shown.find((part) => part.type === type)?.value ?? "";
  return `${of("year").padStart(4, "0")}-${of("month")}-${of("day")}T${of("hour")}:${of("minute")}`;
}

/** A time on the wall as the API takes it, which knows the house's zone where we do. */
export function fromWall(time: string): string {
  return live.session?.time_zone ? time : new Date(time).toISOString();
}

/** The end of today, on the wall. */
export function midnight(): string {
  const today = new Date(`${wall(Date.now()).slice(0, 10)}T00:00Z`);
  return `${new Date(today.getTime() + UNITS.d).toISOString().slice(0, 10)}T00:00`;
}

/** A full hour that is soon, on the wall: where choosing a time begins. */
export function soon(): string {
  return `${wall(Date.now() + 2 * UNITS.h).slice(0, 13)}:00`;
}
