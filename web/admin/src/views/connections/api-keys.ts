import { mdiKeyOutline, mdiPlus } from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import { api } from "../../api";
import type { ApiKey } from "../../types";
import { confirm } from "../../ui/confirm";
import "../../ui/icon";
import { styles } from "../../ui/styles";
import "../../ui/time";
import { toast, toastError } from "../../ui/toast";
import { KnownActions } from "../actions/known";
import { NewKey } from "./new-key";

/** The keys of programs: who has one, and what for. */
@customElement("otsd-api-keys")
export class ApiKeys extends LitElement {
  static override styles = [
    styles,
    css`
      .head {
        margin-block: 1.75rem 0.25rem;
      }
      .head h2 {
        flex: 1;
      }
      p.quiet {
        margin-block-end: 0.75rem;
      }
      .row .grow {
        display: grid;
        gap: 0.125rem;
      }
    `,
  ];

  @state() private keys: ApiKey[] | null = null;
  @state() private error: Error | null = null;

  private readonly actions = new KnownActions(this);

  override connectedCallback(): void {
    super.connectedCallback();
    void this.load();
  }

  private async load(): Promise<void> {
    try {
      this.keys = (await api.apiKeys()).items;
      this.error = null;
    } catch (error) {
      this.error = error as Error;
    }
  }

  private async create(): Promise<void> {
    const sheet = new NewKey();
    sheet.actions = this.actions.items ?? [];
    await sheet.show();
    if (sheet.made) await this.load();
  }

  private async revoke({ id, name }: ApiKey): Promise<void> {
    const isMeant = await confirm({
      title: `Revoke “${name}”?`,
      text: "The program that has this key is locked out at once, for good.",
      yes: "Revoke",
      danger: true,
    });
    if (!isMeant) return;
    try {
      await api.deleteApiKey(id);
      toast(`“${name}” is revoked.`);
    } catch (error) {
      toastError(error);
    }
    await this.load();
  }

  protected override render() {
    const { keys, error } = this;
    return html`
      <div class="head">
        <h2 id="keys">API keys</h2>
        <wa-button appearance="outlined" size="s" @click=${this.create}>
          <otsd-icon slot="start" .path=${mdiPlus}></otsd-icon>New key
        </wa-button>
      </div>
      <p class="quiet">For programs of yours that make links or read what happened.</p>
      ${error ? html`<p class="bad" role="alert">${error.message}</p>` : nothing}
      ${
        keys?.length
          ? html`<ul class="card rows" aria-labelledby="keys">
              ${repeat(
                keys,
                (key) => key.id,
                (key) => this.renderKey(key),
              )}
            </ul>`
          : keys
            ? html`<p class="card quiet">There is none, and nothing needs one.</p>`
            : nothing
      }
    `;
  }

  private renderKey(key: ApiKey) {
    const isOver = key.expires_at !== null && Date.parse(key.expires_at) <= Date.now();
    return html`<li class="row">
      <otsd-icon .path=${mdiKeyOutline}></otsd-icon>
      <span class="grow">
        <span class="strong">${key.name}</span>
        <span class="quiet">${this.mayDo(key)}</span>
        <span class="quiet ${isOver ? "bad" : ""}">
          ${
            key.last_used_at
              ? html`used <otsd-time .at=${key.last_used_at}></otsd-time>`
              : "not used yet"
          }
          ·
          ${
            key.expires_at
              ? html`${isOver ? "expired" : "expires"}
                  <otsd-time .at=${key.expires_at}></otsd-time>`
              : "no end"
          }
        </span>
      </span>
      <wa-button appearance="outlined" size="s" @click=${() => this.revoke(key)}
        >Revoke<span class="out-of-sight">${key.name}</span></wa-button
      >
    </li>`;
  }

  private mayDo({ scope, actions }: ApiKey): string {
    if (scope === "admin") return "may do everything";
    if (scope === "read") return "may read";
    const titles = (actions ?? []).map((name) => this.actions.titleOf(name));
    return `may make links: ${titles.join(", ")}`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-api-keys": ApiKeys;
  }
}
