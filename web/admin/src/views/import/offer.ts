import { mdiAlertCircleOutline, mdiCheckCircle, mdiImport } from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { Problem } from "../../api";
import { href } from "../../router";
import type { FoundImport } from "../../types";
import "../../ui/icon";
import { styles } from "../../ui/styles";
import { findImport } from "./found";
import { amount } from "./words";

/** What One Time Service left behind, if it did: a way to take it over. */
@customElement("otsd-import-offer")
export class ImportOffer extends LitElement {
  static override styles = [
    styles,
    css`
      .card {
        display: grid;
        grid-template-columns: auto 1fr;
        gap: 0.25rem 1rem;
        margin-block-start: 0.75rem;
      }
      .card > otsd-icon {
        color: var(--otsd-accent);
      }
      .card > div {
        grid-column: 2;
      }
      .buttons {
        margin-block-start: 0.5rem;
      }
      .done > otsd-icon {
        color: var(--wa-color-success-on-quiet);
      }
      .done {
        background: none;
        box-shadow: none;
      }
      .wrong > otsd-icon {
        color: var(--wa-color-danger-on-quiet);
      }
    `,
  ];

  @state() private found: FoundImport | null = null;
  @state() private damage = "";

  override connectedCallback(): void {
    super.connectedCallback();
    void this.look();
  }

  private async look(): Promise<void> {
    try {
      this.found = await findImport();
    } catch (error) {
      // whatever else is wrong is told elsewhere, and the import can be seen later
      if (error instanceof Problem && error.code === "invalid_import") this.damage = error.message;
    }
  }

  protected override render() {
    const { found, damage } = this;
    if (damage) {
      return html`<section class="card wrong">
        <otsd-icon .path=${mdiAlertCircleOutline}></otsd-icon>
        <h2>The file of One Time Service cannot be read</h2>
        <div><p class="quiet">${damage}</p></div>
      </section>`;
    }
    if (!found) return nothing;
    const fresh = amount(found, "taken", "changed");
    const known = amount(found, "known");
    if (!fresh && known) {
      return html`<section class="card done">
        <otsd-icon .path=${mdiCheckCircle}></otsd-icon>
        <h2>The file of One Time Service was taken over</h2>
        <div>
          <p class="quiet"><a href=${href("import")}>See what was taken</a></p>
        </div>
      </section>`;
    }
    return html`<section class="card">
      <otsd-icon .path=${mdiImport}></otsd-icon>
      <h2>Bring your links from One Time Service</h2>
      <div>
        <p class="quiet">
          ${
            fresh
              ? `Its file is here, with ${fresh}. Links go on working at the same address.`
              : "Its file is here, but nothing in it can be taken over."
          }
        </p>
        <div class="buttons">
          <wa-button appearance="outlined" href=${href("import")}>See what is in it</wa-button>
        </div>
      </div>
    </section>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-import-offer": ImportOffer;
  }
}
