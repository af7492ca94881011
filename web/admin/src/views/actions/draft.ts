/** An action as it is being written: kept in the tab until it is saved or given up. */

import { live } from "../../store/live";
import type { Action } from "../../types";

export interface Form {
  title: string;
  name: string;
  yaml: string;
  uses: number | null;
  length: string | null;
}

export interface Draft {
  form: Form;
  /** When the action was changed last that the draft began from. */
  since: string | null;
}

export const EMPTY: Form = { title: "", name: "", yaml: "", uses: 1, length: "7d" };

export function formOf(action: Action): Form {
  const { title, name, yaml, defaults } = action;
  return {
    title,
    name,
    yaml,
    uses: defaults.max_uses === undefined ? 1 : defaults.max_uses,
    length: defaults.expires_in ?? null,
  };
}

// another administrator who logs in in the same tab sees his own
const key = (name: string | null) => `otsd.draft.${live.session?.user.id ?? ""}.${name ?? ""}`;

export function readDraft(name: string | null): Draft | null {
  try {
    return JSON.parse(sessionStorage.getItem(key(name)) ?? "null") as Draft | null;
  } catch {
    return null;
  }
}

export function keepDraft(name: string | null, draft: Draft | null): void {
  try {
    if (draft) sessionStorage.setItem(key(name), JSON.stringify(draft));
    else sessionStorage.removeItem(key(name));
  } catch {
    // a browser that keeps nothing: then leaving loses it
  }
}

let beginning: Form | null = null;

/** Let the next new action begin like this. */
export function beginWith(form: Form): void {
  beginning = form;
}

export function takeBeginning(): Form | null {
  const taken = beginning;
  beginning = null;
  return taken;
}
