import {
  mdiAlertOutline,
  mdiArrowLeft,
  mdiCheckCircle,
  mdiFileUploadOutline,
  mdiImport,
} from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, query, state } from "lit/decorators.js";
import { api, Problem } from "../api";
import { href } from "../router";
import { live, Watching } from "../store/live";
import type { FoundImport, Import, ImportOutcome } from "../types";
import "../ui/icon";
import { styles } from "../ui/styles";
import "../ui/time";
import "./import/entries";
import { findImport } from "./import/found";
import { amount } from "./import/words";
import { isLocal, restart, settingOfLinks, warnIfLocal } from "./tokens/reach";
import "./tokens/weak";

const LARGEST = 64 * 1024 * 1024;

/** Where a preview comes from: the file that is there, or one of the owner's. */
type Source = FoundImport | File;

/** Actions and links of the One Time Service add-on: to be looked at, then taken over. */
@customElement("otsd-import")
export class ImportView extends LitElement {
  static override styles = [
    styles,
    css`
      .done {
        display: flex;
        gap: 0.75rem;
        border-color: transparent;
      }
      .done > otsd-icon {
        color: var(--wa-color-success-on-quiet);
      }
      .done h2:focus {
        outline: none;
      }
      .done ul {
        display: grid;
        gap: 0.5rem;
        margin-block-start: 0.5rem;
        padding-inline-start: 1.25rem;
        list-style: disc;
      }
      .done .buttons {
        margin-block-start: 1rem;
      }
      .source {
        display: grid;
        gap: 0.5rem;
      }
      p + .buttons {
        margin-block-start: 0.75rem;
      }
      .waiting {
        display: grid;
        place-items: center;
        min-height: 8rem;
        font-size: 2rem;
      }
      .bar {
        position: sticky;
        inset-block-end: calc(4rem + env(safe-area-inset-bottom));
        z-index: 1;
        display: flex;
        justify-content: flex-end;
        gap: 0.5rem;
        margin-block-start: 1rem;
        padding: 0.625rem 0.75rem;
        box-shadow: 0 2px 12px #0002;
      }
      .bar > :first-child {
        flex: none;
      }
      @media (min-width: 870px) {
        .bar {
          inset-block-end: 1rem;
        }
      }
    `,
  ];

  @state() private source: Source | null = null;
  @state() private report: Import | null = null;
  @state() private isLoading = true;
  @state() private isTaking = false;
  @state() private error = "";
  /** Whether the file was another one when it should be taken. */
  @state() private hasChanged = false;

  @query("input") private chooser!: HTMLInputElement;
  @query(".done h2") private result!: HTMLElement | null;

  constructor() {
    super();
    new Watching(this);
  }

  override connectedCallback(): void {
    super.connectedCallback();
    // what gets the focus is not behind the bar
    document.documentElement.style.scrollPaddingBlockEnd = "9.5rem";
    void this.look();
  }

  override disconnectedCallback(): void {
    document.documentElement.style.scrollPaddingBlockEnd = "";
    super.disconnectedCallback();
  }

  /** See whether a file is there. */
  private look(): Promise<void> {
    return this.preview(async () => {
      const found = await findImport();
      return found && [found, found];
    });
  }

  /** See what is in a file that the owner chose. */
  private async choose(): Promise<void> {
    const file = this.chooser.files?.[0];
    this.chooser.value = ""; // so that the same one can be chosen again
    if (!file) return;
    await this.preview(async () => {
      if (file.size > LARGEST) throw new Error("The file is larger than 64 MB: it is another one.");
      // what is looked at is what is taken, whatever becomes of the file meanwhile
      const kept = new File([await file.arrayBuffer()], file.name, { type: "application/json" });
      return [kept, await api.takeImport(kept, true)];
    });
  }

  private async preview(get: () => Promise<[Source, Import] | null>): Promise<void> {
    this.isLoading = true;
    this.error = "";
    this.hasChanged = false;
    this.report = this.source = null;
    try {
      [this.source, this.report] = (await get()) ?? [null, null];
    } catch (error) {
      this.error = (error as Error).message;
    }
    this.isLoading = false;
  }

  private async take(): Promise<void> {
    const { source } = this;
    if (!source || this.isTaking) return;
    this.isTaking = true;
    this.error = "";
    this.hasChanged = false;
    try {
      this.report = await (source instanceof File
        ? api.takeImport(source, false)
        : api.takeFoundImport(source.digest));
      void live.refresh();
      await this.updateComplete;
      scrollTo(0, 0);
      this.result?.focus({ preventScroll: true });
    } catch (error) {
      if (error instanceof Problem && ["import_changed", "no_import"].includes(error.code)) {
        await this.look();
        this.hasChanged = true;
        scrollTo(0, 0);
      } else {
        this.error = `${(error as Error).message} You can try again: nothing is taken twice.`;
      }
    }
    this.isTaking = false;
  }

  protected override render() {
    const { report, isLoading, error, hasChanged } = this;
    return html`
      <div class="head">
        <a class="back" href=${href("tokens")} aria-label="All links"
          ><otsd-icon .path=${mdiArrowLeft}></otsd-icon
        ></a>
        <h1>Import from One Time Service</h1>
      </div>
      <input
        type="file"
        accept=".json,application/json"
        aria-label="The file of One Time Service"
        hidden
        @change=${this.choose}
      />
      <div class="cards">
        <div role="alert" ?hidden=${!hasChanged && !error}>
          ${error ? html`<p class="card bad">${error}</p>` : nothing}
          ${
            hasChanged
              ? html`<p class="card notice">
                  <otsd-icon .path=${mdiAlertOutline}></otsd-icon>
                  <span
                    >The file has changed since you looked, and nothing was taken.
                    ${report ? "This is what it holds now." : "It cannot be read any more."}</span
                  >
                </p>`
              : nothing
          }
        </div>
        ${
          isLoading
            ? html`<div class="waiting" role="status">
                <wa-spinner></wa-spinner><span class="out-of-sight">Reading the file</span>
              </div>`
            : report && !report.dry_run
              ? this.renderResult(report)
              : this.renderSource()
        }
      </div>
      ${
        report
          ? html`<otsd-import-entries .report=${report}></otsd-import-entries>
              ${report.dry_run ? this.renderBar(report) : nothing}`
          : nothing
      }
    `;
  }

  /** Where the file is, or how to choose one. */
  private renderSource() {
    const { source, report } = this;
    const choose = html`<div class="buttons">
      <wa-button appearance="outlined" @click=${() => this.chooser.click()}>
        <otsd-icon slot="start" .path=${mdiFileUploadOutline}></otsd-icon>
        ${report ? "Choose another file" : "Choose the file"}
      </wa-button>
    </div>`;
    if (!source || !report) {
      return html`<section class="card">
        <p>
          Choose the file in which the add-on keeps its actions and links: <code>db.json</code>, in
          Home Assistant's folder <code>share/one-time-service</code>. You see what is in it before
          anything is taken over.
        </p>
        ${choose}
      </section>`;
    }
    const hasLinks = report.tokens.some(isFresh);
    const isNew = hasLinks || report.actions.some(isFresh);
    const name = source instanceof File ? source.name : source.path;
    return html`
      ${
        isNew && !(source instanceof File)
          ? html`<p class="card notice">
              <otsd-icon .path=${mdiAlertOutline}></otsd-icon>
              <span
                >Other add-ons can write where this file is. Look at what is in it before you say
                yes: a link that you do not know is somebody else's key.</span
              >
            </p>`
          : nothing
      }
      ${hasLinks && live.session ? warnIfLocal(live.session.base_url) : nothing}
      <section class="card source">
        <p>
          <code>${name}</code>${
            source instanceof File
              ? nothing
              : html`, changed <otsd-time .at=${source.modified_at}></otsd-time>`
          }
        </p>
        <p class="quiet">${this.whatItHolds(report)}</p>
        ${
          isNew
            ? html`<p>
                Stop One Time Service first, if it still runs: a link that is used there after this
                could be used here once more.
              </p>`
            : nothing
        }
        ${hasLinks ? html`<p>${this.renderReach()}</p>` : nothing} ${choose}
      </section>
    `;
  }

  private whatItHolds(report: Import): string {
    const fresh = amount(report, "taken", "changed");
    const known = amount(report, "known");
    if (!fresh && known) return "It was taken over already.";
    if (!fresh) return "Nothing in it can be taken over.";
    return `${fresh} to be taken over${known ? `; ${known} already here` : ""}.`;
  }

  /** Under which condition the old links work. */
  private renderReach() {
    const base = live.session?.base_url;
    if (!base) return nothing;
    if (isLocal(base)) {
      return html`First set ${settingOfLinks()} to what the old links begin with, and ${restart()}:
      until then they do not lead here.`;
    }
    return html`The old links go on working if they begin with <code>${base}</code>, as new ones do.
      If they begin otherwise, change ${settingOfLinks()} to what they begin with, and ${restart()}.`;
  }

  private renderBar(report: Import) {
    const fresh = amount(report, "taken", "changed");
    if (!fresh) return nothing;
    return html`<div class="card bar">
      <wa-button appearance="plain" href=${href("tokens")}>Not now</wa-button>
      <wa-button variant="brand" ?loading=${this.isTaking} @click=${this.take}>
        <otsd-icon slot="start" .path=${mdiImport}></otsd-icon>
        Take over ${fresh}
      </wa-button>
    </div>`;
  }

  private renderResult(report: Import) {
    const weak = report.tokens.some(isFresh);
    return html`<section class="card done">
      <otsd-icon .path=${mdiCheckCircle}></otsd-icon>
      <div>
        <h2 tabindex="-1">${amount(report, "taken", "changed")} taken over</h2>
        <ul>
          <li>
            Do not start One Time Service again: it would count the uses of the same links a second
            time.
          </li>
          ${
            weak
              ? html`<li>${this.renderReach()}</li>
                  <li>
                    Their codes come from a generator that can be guessed. They are marked
                    <otsd-weak></otsd-weak>: open one and tap <em>Replace link</em>.
                  </li>`
              : nothing
          }
        </ul>
        <div class="buttons">
          <wa-button variant="brand" href=${href("tokens")}>See the links</wa-button>
        </div>
      </div>
    </section>`;
  }
}

function isFresh({ outcome }: { outcome: ImportOutcome }): boolean {
  return outcome === "taken" || outcome === "changed";
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-import": ImportView;
  }
}
