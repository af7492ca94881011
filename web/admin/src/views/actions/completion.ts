/** What can stand at a place of an action's YAML: actions, entities, and the fields of an action. */

import {
  insertCompletionText,
  startCompletion,
  type Completion,
  type CompletionContext,
  type CompletionResult,
} from "@codemirror/autocomplete";
import type { Text } from "@codemirror/state";
import type { EditorView } from "@codemirror/view";
import type { Vocabulary } from "./known";

const MOST = 100;
// what may be in front of a key: spaces, and the dash of a step
const KEY = /^(\s*(?:-\s+)*)["']?(\w+)["']?:(?:\s+(.*?))?\s*$/;
const ACTION = /(?:^|[\s{,-])(?:action|service):\s+["']?([^\s"'{}[\],#]*)$/;
const ENTITY = /\bentity_id:\s+(?:\[(?:[^\],]*,)*\s*)?["']?([^"'{}[\],#:]*)$/;
const ITEM = /^(\s*)-\s+["']?([^"'{}[\],#:]*)$/;
const NEW_KEY = /^(\s*(?:-\s+)*)(\w*)$/;

const STEP = [
  { label: "action", detail: "what Home Assistant does" },
  { label: "target", detail: "what it does it to" },
  { label: "data", detail: "how" },
];
const TARGET = [
  { label: "entity_id", detail: "one or more entities" },
  { label: "area_id", detail: "everything in an area" },
  { label: "device_id", detail: "a device" },
  { label: "floor_id", detail: "everything on a floor" },
  { label: "label_id", detail: "everything with a label" },
];

interface Key {
  name: string;
  value: string;
  column: number;
  line: number;
  startsStep: boolean;
}

export function completion(vocabulary: () => Promise<Vocabulary>) {
  return async (context: CompletionContext): Promise<CompletionResult | null> => {
    const { doc } = context.state;
    const line = doc.lineAt(context.pos);
    const before = line.text.slice(0, context.pos - line.from);
    const offer = (typed: string, options: Completion[]): CompletionResult => ({
      from: context.pos - typed.length,
      options,
      filter: false,
    });

    const action = ACTION.exec(before);
    if (action) return offer(action[1]!, actions(await vocabulary(), action[1]!));

    const entity = ENTITY.exec(before)?.[1] ?? entityItem(doc, line.number, before);
    if (entity !== null) {
      const domain = actionAround(doc, line.number)?.split(".")[0];
      return offer(entity, entities(await vocabulary(), entity, domain));
    }

    const key = NEW_KEY.exec(before);
    if (!key || (!key[2] && !context.explicit)) return null;
    const parent = parentOf(doc, line.number, key[1]!.length);
    if (parent?.name === "target") return offer(key[2]!, keys(TARGET, key[2]!));
    if (parent?.name === "data") {
      const name = actionAround(doc, parent.line);
      const fields = (await vocabulary()).actions.find((each) => each.name === name)?.fields ?? [];
      const known = fields
        .toSorted((a, b) => Number(b.required) - Number(a.required))
        .map(({ name, description, required, example }) => ({
          label: name,
          ...(required ? { detail: "needed" } : {}),
          info: [description, example == null ? "" : `Example: ${inText(example)}`]
            .filter(Boolean)
            .join("\n"),
        }));
      return offer(key[2]!, keys(known, key[2]!));
    }
    if (parent && !["sequence", "then", "else", "parallel"].includes(parent.name)) return null;
    return offer(key[2]!, keys(STEP, key[2]!));
  };
}

function inText(example: unknown): string {
  return typeof example === "string" ? example : JSON.stringify(example);
}

function actions({ actions }: Vocabulary, typed: string): Completion[] {
  const found = actions.filter(({ name, title }) => has(typed, name, title));
  return ranked(found, typed, ({ name }) => name).map(({ name, title, description }) => ({
    label: name,
    type: "function",
    ...(title ? { detail: title } : {}),
    ...(description ? { info: description } : {}),
  }));
}

function entities({ entities }: Vocabulary, typed: string, domain?: string): Completion[] {
  const found = entities.filter(({ entity_id, name }) => has(typed, entity_id, name));
  const rank = ranked(found, typed, ({ entity_id }) => entity_id);
  const isOfDomain = ({ entity_id }: { entity_id: string }) => entity_id.startsWith(`${domain}.`);
  return [...rank.filter(isOfDomain), ...rank.filter((each) => !isOfDomain(each))]
    .slice(0, MOST)
    .map(({ entity_id, name, state }) => ({
      label: entity_id,
      type: "variable",
      detail: [name, state].filter(Boolean).join(" · "),
    }));
}

function keys(known: Completion[], typed: string): Completion[] {
  return known
    .filter(({ label }) => has(typed, label))
    .map((each) => ({ ...each, type: "property", apply: insertKey }));
}

function insertKey(view: EditorView, { label }: Completion, from: number, to: number): void {
  const isMap = label === "target" || label === "data";
  const column = view.state.doc.lineAt(from).text.slice(0, from - view.state.doc.lineAt(from).from);
  const text = isMap ? `${label}:\n${" ".repeat(column.length + 2)}` : `${label}: `;
  view.dispatch(insertCompletionText(view.state, text, from, to));
  startCompletion(view);
}

/** Whether what was typed is in the id or in the name. */
function has(typed: string, ...texts: (string | null)[]): boolean {
  const wanted = typed.trim().toLowerCase();
  return texts.some((text) => text?.toLowerCase().includes(wanted));
}

/** What begins as was typed comes first. */
function ranked<Item>(items: Item[], typed: string, id: (item: Item) => string): Item[] {
  const wanted = typed.trim().toLowerCase();
  const isFirst = (item: Item) => id(item).startsWith(wanted) || id(item).includes(`.${wanted}`);
  return [...items.filter(isFirst), ...items.filter((item) => !isFirst(item))].slice(0, 4 * MOST);
}

function entityItem(doc: Text, number: number, before: string): string | null {
  const item = ITEM.exec(before);
  if (!item) return null;
  for (let up = number - 1; up > 0; up--) {
    const { text } = doc.line(up);
    const other = ITEM.exec(text);
    if (!text.trim() || (other && other[1] === item[1])) continue;
    const key = keyOf(doc, up);
    return key?.name === "entity_id" && key.column <= item[1]!.length ? item[2]! : null;
  }
  return null;
}

function keyOf(doc: Text, number: number): Key | null {
  const found = KEY.exec(doc.line(number).text);
  if (!found) return null;
  const [, front, name, value] = found;
  return {
    name: name!,
    value: value ?? "",
    column: front!.length,
    line: number,
    startsStep: front!.includes("-"),
  };
}

/** The key that a key at this column is below, if it is below one. */
function parentOf(doc: Text, number: number, column: number): Key | null {
  for (let up = number - 1; up > 0; up--) {
    const key = keyOf(doc, up);
    if (key && key.column < column && !key.value) return key;
    if (key && key.column < column && key.startsStep) column = key.column;
  }
  return null;
}

/** The name of the action in whose step a line is. */
function actionAround(doc: Text, number: number): string | null {
  const isAction = ({ name }: Key) => name === "action" || name === "service";
  const flow = /\b(?:action|service):\s+["']?([\w.]+)/.exec(doc.line(number).text);
  if (flow) return flow[1]!;
  let column = keyOf(doc, number)?.column ?? Infinity;
  for (let up = number; up > 0; up--) {
    const key = keyOf(doc, up);
    if (!key || key.column > column) continue;
    if (isAction(key)) return unquoted(key.value);
    column = key.column;
    if (key.startsStep) break;
  }
  for (let down = number + 1; down <= doc.lines; down++) {
    const key = keyOf(doc, down);
    if (!key) continue;
    if (key.startsStep || key.column < column) break;
    if (key.column === column && isAction(key)) return unquoted(key.value);
  }
  return null;
}

function unquoted(value: string): string {
  return value.replace(/^["']|["']$|\s+#.*$/g, "");
}
