/** Tokens in plain words. */

import { fromNow } from "../../ui/time";
import type { Action, Token, TokenState } from "../../types";
import { lengthInWords } from "./when";

type Uses = Pick<Token, "max_uses" | "uses_left">;

/** How often it can still be used: "1 of 3 left". */
export function usesLeft({ max_uses, uses_left }: Uses): string {
  if (max_uses === null || uses_left === null) return "without limit";
  if (max_uses === 1 && uses_left === 1) return "1 use left";
  return `${uses_left} of ${max_uses} left`;
}

/** How often it can be used: "3 times". */
export function uses(max: number | null): string {
  if (max === null) return "without limit";
  return max === 1 ? "once" : `${max} times`;
}

/** What a link of an action is good for when nothing else was said: "once, for 1 week". */
export function defaultsOf({ defaults }: Action): string {
  const { max_uses = 1, expires_in = null } = defaults;
  return `${uses(max_uses)}, ${expires_in ? `for ${lengthInWords(expires_in)}` : "no end"}`;
}

/** When it begins or ends, from now; nothing where that does not matter any more. */
export function span({ state, valid_from, expires_at }: Token, now: number): string {
  if (state === "revoked" || state === "used_up") return "";
  if (state === "scheduled" && valid_from) return `starts ${fromNow(valid_from, now)}`;
  if (!expires_at) return "no end";
  return `${state === "expired" ? "expired" : "expires"} ${fromNow(expires_at, now)}`;
}

/** When it was used last; nobody knows when that was in One Time Service. */
export function lastUse(token: Token, now: number): string {
  const { last_used_at, created_by, max_uses, uses_left } = token;
  // the browser's clock may be a little behind that of the daemon
  if (last_used_at) return `used ${fromNow(last_used_at, Math.max(now, Date.parse(last_used_at)))}`;
  if (created_by !== "import") return "not used yet";
  return uses_left === max_uses ? "not used here yet" : "used before the import";
}

/** What the API says of a field, as a sentence. */
export function sentence(fault: string): string {
  return fault.charAt(0).toUpperCase() + fault.slice(1);
}

/** Who made it: "by the command line". */
export function maker(created_by: string): string {
  if (created_by === "import") return "in One Time Service";
  const [kind, name] = created_by.split(/:(.*)/s);
  if (name === undefined)
    return `by ${{ cli: "the command line", mqtt: "MQTT" }[created_by] ?? created_by}`;
  return `by ${kind === "key" ? `the API key ${name}` : name}`;
}

/** What people call it: what it was made for, else what it does. */
export function nameOf({ comment, action }: Token, titles: ReadonlyMap<string, string>): string {
  return comment || (titles.get(action) ?? action);
}

/** The state that time alone has brought since the API told of it. */
export function stateAt({ state, valid_from, expires_at }: Token, now: number): TokenState {
  if (state === "revoked" || state === "expired") return state;
  if (expires_at && Date.parse(expires_at) <= now) return "expired";
  if (state === "scheduled" && valid_from && Date.parse(valid_from) <= now) return "active";
  return state;
}
