/** The editor for YAML; heavy, so it is loaded when an action is opened. */

import {
  acceptCompletion,
  autocompletion,
  closeBrackets,
  closeBracketsKeymap,
  completionKeymap,
  completionStatus,
} from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { yaml } from "@codemirror/lang-yaml";
import {
  HighlightStyle,
  bracketMatching,
  indentOnInput,
  indentUnit,
  syntaxHighlighting,
} from "@codemirror/language";
import { lintGutter, lintKeymap, setDiagnostics } from "@codemirror/lint";
import { EditorState, Prec } from "@codemirror/state";
import {
  EditorView,
  drawSelection,
  highlightActiveLine,
  keymap,
  lineNumbers,
  placeholder,
} from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { css, html, LitElement, type PropertyValues } from "lit";
import { customElement, property, query } from "lit/decorators.js";
import { completion } from "./completion";
import { vocabulary } from "./known";

const LEAVING = 10_000;

const EXAMPLE = `action: lock.unlock
target:
  entity_id: lock.front_door`;

const colors = HighlightStyle.define([
  {
    tag: [tags.definition(tags.propertyName), tags.propertyName],
    color: "var(--wa-color-brand-on-quiet)",
  },
  { tag: [tags.string, tags.content], color: "var(--wa-color-text-normal)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--wa-color-success-on-quiet)" },
  { tag: [tags.comment, tags.meta], color: "var(--wa-color-text-quiet)", fontStyle: "italic" },
  { tag: [tags.punctuation, tags.separator], color: "var(--wa-color-text-quiet)" },
]);

const look = EditorView.theme({
  "&": {
    color: "var(--wa-color-text-normal)",
    backgroundColor: "var(--otsd-card)",
    borderRadius: "inherit",
    maxHeight: "min(60vh, 32rem)",
  },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": {
    fontFamily: "var(--wa-font-family-code)",
    fontSize: "0.9375rem",
    lineHeight: "1.55",
    minHeight: "9rem",
    borderRadius: "inherit",
  },
  ".cm-content": { caretColor: "var(--wa-color-text-normal)", padding: "0.625rem 0" },
  ".cm-cursor": { borderLeftColor: "var(--wa-color-text-normal)", borderLeftWidth: "2px" },
  ".cm-line": { padding: "0 0.75rem 0 0.375rem" },
  ".cm-activeLine": { backgroundColor: "color-mix(in srgb, var(--otsd-accent) 7%, transparent)" },
  ".cm-gutters": {
    color: "var(--wa-color-text-quiet)",
    backgroundColor: "transparent",
    border: "0",
  },
  ".cm-placeholder": { color: "var(--wa-color-text-quiet)", whiteSpace: "pre" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground":
    {
      background: "color-mix(in srgb, var(--otsd-accent) 28%, transparent)",
    },
  "&.cm-focused .cm-matchingBracket": {
    backgroundColor: "color-mix(in srgb, var(--otsd-accent) 25%, transparent)",
  },
  ".cm-tooltip": {
    color: "var(--wa-color-text-normal)",
    backgroundColor: "var(--wa-color-surface-raised)",
    border: "1px solid var(--wa-color-surface-border)",
    borderRadius: "8px",
    boxShadow: "0 4px 16px #0004",
    overflow: "hidden",
    maxWidth: "min(36rem, calc(100vw - 2rem))",
  },
  ".cm-tooltip.cm-tooltip-autocomplete > ul": {
    fontFamily: "var(--wa-font-family-body)",
    fontSize: "0.9375rem",
    maxHeight: "15rem",
    minWidth: "min(18rem, calc(100vw - 4rem))",
    maxWidth: "min(34rem, calc(100vw - 4rem))",
  },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li": {
    padding: "0.375rem 0.75rem",
    lineHeight: "1.35",
    overflow: "hidden",
    textOverflow: "ellipsis",
  },
  ".cm-tooltip-autocomplete ul li[aria-selected]": {
    color: "var(--wa-color-brand-on-normal)",
    background: "var(--wa-color-brand-fill-normal)",
  },
  ".cm-completionDetail": {
    fontStyle: "normal",
    color: "var(--wa-color-text-quiet)",
    marginLeft: "0.75rem",
  },
  "li[aria-selected] .cm-completionDetail": { color: "inherit" },
  ".cm-completionMatchedText": { textDecoration: "none", fontWeight: "500" },
  ".cm-tooltip.cm-completionInfo": {
    padding: "0.5rem 0.75rem",
    whiteSpace: "pre-wrap",
    fontSize: "0.875rem",
    lineHeight: "1.4",
  },
  ".cm-diagnostic": {
    padding: "0.5rem 0.75rem",
    fontSize: "0.875rem",
    fontFamily: "var(--wa-font-family-body)",
    borderLeftColor: "var(--wa-color-danger-fill-loud)",
    overflowWrap: "anywhere",
  },
  "@media (max-width: 600px)": {
    // there is no room beside the list
    ".cm-tooltip.cm-completionInfo": { display: "none" },
    ".cm-lineNumbers": { display: "none !important" },
    // an entity of a list of steps fits into its line
    ".cm-line": { padding: "0 0.25rem" },
    ".cm-gutter-lint": { width: "1em" },
    ".cm-gutter-lint .cm-gutterElement": { padding: "0" },
  },
  "@media (pointer: coarse)": {
    // under 16 px a phone zooms in
    ".cm-scroller": { fontSize: "1rem" },
  },
});

/** An editor for the YAML of an action; `otsd-yaml` tells each change as its `detail`. */
@customElement("otsd-yaml-editor")
export class YamlEditor extends LitElement {
  static override styles = css`
    :host {
      display: block;
    }
    #place {
      border: 1px solid var(--wa-form-control-border-color, var(--wa-color-surface-border));
      border-radius: 8px;
    }
    #place:focus-within {
      outline: var(--wa-focus-ring);
      outline-offset: 1px;
    }
    #keys {
      display: none;
      margin: 0.375rem 0 0;
      color: var(--wa-color-text-quiet);
      font-size: 0.8125rem;
    }
    @media (pointer: fine) {
      #keys {
        display: block;
      }
    }
  `;

  @property() value = "";
  /** What is wrong with it. */
  @property() fault = "";
  @query("#place") private place!: HTMLElement;

  private view: EditorView | null = null;

  override focus(): void {
    this.view?.focus();
  }

  protected override firstUpdated(): void {
    this.view = new EditorView({
      parent: this.place,
      root: this.renderRoot as ShadowRoot,
      state: EditorState.create({ doc: this.value, extensions: this.extensions() }),
    });
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.view?.destroy();
    this.view = null;
  }

  protected override updated(changed: PropertyValues<this>): void {
    const { view } = this;
    if (!view) return;
    const text = view.state.doc.toString();
    if (changed.has("value") && this.value !== text) {
      view.dispatch({ changes: { from: 0, to: text.length, insert: this.value } });
    }
    if (changed.has("fault")) this.mark(view);
  }

  private mark(view: EditorView): void {
    const { fault } = this;
    if (!fault) return view.dispatch(setDiagnostics(view.state, []));
    const { from, to } = view.state.doc.line(lineOf(fault, view.state.doc.toString()));
    const found = { from, to, severity: "error" as const, message: fault };
    view.dispatch(setDiagnostics(view.state, [found]));
  }

  private extensions() {
    return [
      // Tab indents, so Escape has to come before one that leaves, also while a list is open
      Prec.highest(
        keymap.of([
          {
            key: "Escape",
            run: (view) => {
              view.setTabFocusMode(LEAVING);
              return completionStatus(view.state) === null;
            },
          },
        ]),
      ),
      lineNumbers(),
      lintGutter(),
      history(),
      drawSelection(),
      indentOnInput(),
      indentUnit.of("  "),
      bracketMatching(),
      closeBrackets(),
      autocompletion({ override: [completion(vocabulary)], icons: false, maxRenderedOptions: 50 }),
      highlightActiveLine(),
      EditorView.lineWrapping,
      yaml(),
      syntaxHighlighting(colors),
      look,
      placeholder(EXAMPLE),
      keymap.of([
        ...closeBracketsKeymap,
        ...completionKeymap,
        { key: "Tab", run: acceptCompletion },
        ...defaultKeymap,
        ...historyKeymap,
        ...lintKeymap,
        indentWithTab,
      ]),
      EditorView.contentAttributes.of({
        "aria-label": "What Home Assistant does, in YAML",
        "aria-describedby": "keys",
      }),
      EditorView.updateListener.of((update) => {
        if (!update.docChanged) return;
        const value = update.state.doc.toString();
        if (value === this.value) return;
        this.value = value;
        this.dispatchEvent(new CustomEvent("otsd-yaml", { detail: value }));
      }),
    ];
  }

  protected override render() {
    return html`<div id="place"></div>
      <p id="keys">
        Ctrl + Space suggests what fits. To leave with the keyboard: Escape, then Tab.
      </p>`;
  }
}

/** The line that an error is about: it says so, or names a key. */
function lineOf(fault: string, text: string): number {
  const lines = text.split("\n");
  const said = /\bline (\d+)/.exec(fault);
  if (said) return Math.min(Math.max(Number(said[1]), 1), lines.length);
  const names = [...fault.matchAll(/\['(\w+)'\]/g)].map(([, name]) => name!).reverse();
  for (const name of [...names, ...(/'([\w.]+)'/.exec(fault)?.slice(1) ?? [])]) {
    const found = lines.findIndex((line) => line.includes(name));
    if (found >= 0) return found + 1;
  }
  return 1;
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-yaml-editor": YamlEditor;
  }
}
