import { mdiCloudOffOutline, mdiHomeAlertOutline, mdiKeyVariant, mdiLogout } from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, query } from "lit/decorators.js";
import { logOut } from "./api";
import { href, Routing, VIEWS, type Route } from "./router";
import { live, Watching } from "./store/live";
import "./ui/icon";
import { styles } from "./ui/styles";
import "./ui/time";
import "./ui/toast";
import { views } from "./views";

/** The frame of every view: navigation, who is logged in, and whether everybody is there. */
@customElement("otsd-app")
export class AppShell extends LitElement {
  static override styles = [
    styles,
    css`
      :host {
        display: grid;
        grid-template: "bar" auto "main" 1fr "nav" auto / 1fr;
        min-height: 100dvh;
      }
      .skip {
        position: fixed;
        inset: 0.5rem auto auto 0.5rem;
        z-index: 3;
        padding: 0.75rem 1rem;
        border: 0;
        border-radius: 8px;
        font: inherit;
        background: var(--otsd-card);
        color: var(--wa-color-text-link);
        transform: translateY(-200%);
      }
      .skip:focus {
        transform: none;
      }
      header,
      nav {
        position: sticky;
        z-index: 2;
        background: var(--otsd-bar);
      }
      header {
        grid-area: bar;
        inset-block-start: 0;
        display: flex;
        align-items: center;
        gap: 0.75rem;
        min-width: 0;
        min-height: 3.5rem;
        padding: env(safe-area-inset-top) 0.5rem 0 1rem;
        border-block-end: 1px solid var(--otsd-line);
      }
      .brand {
        flex: 1;
        display: flex;
        align-items: center;
        gap: 0.75rem;
        min-width: 0;
        font-size: 1.125rem;
        font-weight: 500;
      }
      .brand span {
        overflow: hidden;
        text-overflow: ellipsis;
        white-space: nowrap;
      }
      .brand otsd-icon {
        padding: 0.3rem;
        border-radius: 9px;
        font-size: 1.25rem;
        color: #fff;
        background: #03a9f4;
      }
      .account {
        display: flex;
        align-items: center;
        gap: 0.5rem;
      }
      .who {
        display: none;
      }
      form {
        display: contents;
      }
      .account button {
        display: grid;
        place-items: center;
        width: 2.75rem;
        height: 2.75rem;
        border: 0;
        border-radius: 50%;
        background: none;
        color: var(--wa-color-text-quiet);
        cursor: pointer;
      }
      .account button:hover {
        background: color-mix(in srgb, currentColor 10%, transparent);
      }

      nav {
        grid-area: nav;
        inset-block-end: 0;
        border-block-start: 1px solid var(--otsd-line);
        padding-block-end: env(safe-area-inset-bottom);
      }
      nav ul {
        display: grid;
        grid-auto-flow: column;
        grid-auto-columns: 1fr;
      }
      nav a {
        display: grid;
        justify-items: center;
        gap: 0.125rem;
        padding: 0.375rem 0 0.5rem;
        font-size: 0.75rem;
        font-weight: 500;
        color: var(--wa-color-text-quiet);
        text-decoration: none;
        -webkit-tap-highlight-color: transparent;
      }
      nav a otsd-icon {
        padding: 0.2rem 1.1rem;
        border-radius: var(--wa-border-radius-pill);
        transition: background var(--wa-transition-normal);
      }
      nav a[aria-current] {
        color: var(--wa-color-text-normal);
      }
      nav a[aria-current] otsd-icon {
        color: var(--wa-color-brand-on-quiet);
        background: var(--wa-color-brand-fill-normal);
      }
      nav a:focus-visible {
        outline-offset: -3px;
        border-radius: 12px;
      }

      main {
        grid-area: main;
        min-width: 0;
        padding: 1rem;
      }
      main:focus-visible {
        outline: none;
      }
      main > * {
        max-width: 60rem;
        margin-inline: auto;
      }
      .banner {
        display: flex;
        align-items: center;
        gap: 0.75rem;
        margin-block-end: 1rem;
        padding: 0.75rem 1rem;
        border-radius: var(--wa-panel-border-radius);
        color: var(--wa-color-warning-on-normal);
        background: var(--wa-color-warning-fill-quiet);
      }
      .banner.danger {
        color: var(--wa-color-danger-on-normal);
        background: var(--wa-color-danger-fill-quiet);
      }
      .banner a {
        color: inherit;
      }

      @media (min-width: 870px) {
        :host {
          grid-template: "bar main" auto "nav main" 1fr "foot main" auto / 16rem 1fr;
        }
        header {
          display: contents;
        }
        .brand {
          grid-area: bar;
          position: sticky;
          inset-block-start: 0;
          padding: 1.125rem 1rem 0.875rem 1.25rem;
          margin-inline-end: 1px;
          background: var(--otsd-bar);
        }
        nav {
          inset-block: 4.25rem auto;
          border: 0;
          padding: 0 0.75rem;
          background: none;
          align-self: start;
        }
        nav ul {
          grid-auto-flow: row;
          gap: 0.25rem;
        }
        nav a {
          display: flex;
          align-items: center;
          gap: 1rem;
          padding: 0.625rem 0.875rem;
          border-radius: var(--wa-border-radius-pill);
          font-size: 0.9375rem;
        }
        nav a otsd-icon {
          padding: 0;
        }
        nav a:hover {
          background: color-mix(in srgb, currentColor 6%, transparent);
        }
        nav a[aria-current] {
          color: var(--wa-color-brand-on-quiet);
          background: var(--wa-color-brand-fill-quiet);
        }
        nav a[aria-current] otsd-icon {
          background: none;
        }
        nav a:focus-visible {
          border-radius: var(--wa-border-radius-pill);
        }
        /* the side is one surface, however long the view is */
        :host::before {
          content: "";
          grid-area: 1 / 1 / 4 / 2;
          background: var(--otsd-bar);
          border-inline-end: 1px solid var(--otsd-line);
        }
        .account {
          grid-area: foot;
          position: sticky;
          inset-block-end: 0;
          padding: 0.75rem 0.75rem 0.75rem 1.25rem;
          min-height: 4.25rem;
        }
        .who {
          display: block;
          flex: 1;
          min-width: 0;
          line-height: 1.35;
        }
        main {
          padding: 1.5rem 2rem 2.5rem;
        }
      }
    `,
  ];

  @query("main") private main!: HTMLElement;
  private readonly routing = new Routing(this, (before) => void this.arrive(before));

  constructor() {
    super();
    new Watching(this);
  }

  /** After another view was chosen, begin at its top, for eyes and for screen readers. */
  private async arrive(before: Route): Promise<void> {
    if (before.view === this.routing.now.view) return;
    await this.updateComplete;
    this.main.focus({ preventScroll: true });
    scrollTo(0, 0);
  }

  /** Go to the content; a link to it would be a route. */
  private skip(): void {
    this.main.focus();
  }

  protected override updated(): void {
    const title = live.session?.title ?? "One Time Service";
    document.title = `${views[this.routing.now.view].title} · ${title}`;
  }

  protected override render() {
    const { view, id } = this.routing.now;
    const { session } = live;
    return html`
      <header>
        <button class="skip" @click=${this.skip}>Skip to the content</button>
        <div class="brand">
          <otsd-icon .path=${mdiKeyVariant}></otsd-icon>
          <span>${session?.title ?? "One Time Service"}</span>
        </div>
        <div class="account">
          <div class="who">
            <div class="strong">${session?.user.name ?? nothing}</div>
            <div class="quiet">${live.status ? html`otsd ${live.status.version}` : nothing}</div>
          </div>
          ${
            session?.can_log_out
              ? html`<form method="post" action="logout" @submit=${logOut}>
                  <button title="Log out" aria-label="Log out">
                    <otsd-icon .path=${mdiLogout}></otsd-icon>
                  </button>
                </form>`
              : nothing
          }
        </div>
      </header>
      <nav aria-label="Views">
        <ul>
          ${VIEWS.map((name) => {
            const { title, icon, iconWhenShown } = views[name];
            const isShown = name === view;
            return html`<li>
              <a href=${href(name)} aria-current=${isShown ? "page" : nothing}>
                <otsd-icon .path=${isShown ? iconWhenShown : icon}></otsd-icon>${title}
              </a>
            </li>`;
          })}
        </ul>
      </nav>
      <main id="main" tabindex="-1">
        <div role="status">${this.renderBanner()}</div>
        ${views[view].render(id)}
      </main>
      <otsd-toaster></otsd-toaster>
    `;
  }

  private renderBanner() {
    if (live.trouble) {
      return html`<p class="banner danger">
        <otsd-icon .path=${mdiCloudOffOutline}></otsd-icon>
        <span>${live.trouble.message} What you see may be old; it is tried again by itself.</span>
      </p>`;
    }
    const home = live.status?.home_assistant;
    if (!home || home.state === "connected" || this.routing.now.view === "connections") {
      return nothing;
    }
    const what = {
      connecting: "Home Assistant is away",
      refused: "Home Assistant refuses the connection",
      off: "Home Assistant is not connected",
    }[home.state];
    return html`<p class="banner">
      <otsd-icon .path=${mdiHomeAlertOutline}></otsd-icon>
      <span
        >${what}: until it is there, links do nothing.
        <a href=${href("connections")}>See what to do</a></span
      >
    </p>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-app": AppShell;
  }
}
