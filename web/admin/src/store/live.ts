/** What the daemon is and does right now: its session, its status and the stream of changes. */

import type { ReactiveController, ReactiveControllerHost } from "lit";
import { api, Problem, ROOT } from "../api";
import type { Change, Session, Status } from "../types";

export const KINDS = ["token", "action", "submission", "connection"] as const;
export type Kind = (typeof KINDS)[number];

const LONGEST_DELAY = 4000;
const STATUS_AT_MOST_EVERY = 1000;
// a browser makes six connections to a host, so pages that nobody looks at hold none for long
const LONG_HIDDEN = 10_000;

/**
 * Fires an event named by its kind for each change (`detail` is the `Change`), `"now"` when the
 * session, the status or the `trouble` changed, and `"again"` when changes may have been missed.
 */
class Live extends EventTarget {
  session: Session | null = null;
  status: Status | null = null;
  /** Why the status is not known, since when what is shown may be old. */
  trouble: Error | null = null;

  private source: EventSource | null = null;
  private delay = 500;
  private retry = 0;
  private anew = 0;
  private asking: Promise<void> | null = null;
  private hiddenAt = 0;
  private hiding = 0;

  /** Begin to follow the daemon, for as long as the page lives. */
  start(): void {
    this.listen();
    void this.refresh();
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.hiding);
      if (document.hidden) {
        this.hiddenAt = Date.now();
        this.hiding = window.setTimeout(() => this.pause(), LONG_HIDDEN);
      } else if (!this.source || Date.now() - this.hiddenAt > LONG_HIDDEN) {
        this.listen(); // a phone that slept may hold a connection that is dead
      }
    });
    addEventListener("online", () => this.listen());
  }

  /** Ask for the status, and for the session where it is missing or may be another by now. */
  async refresh(isAnother = false): Promise<void> {
    clearTimeout(this.anew);
    try {
      if (isAnother || !this.session) this.session = await api.session();
      this.set({ status: await api.status(), trouble: null });
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return; // the login comes
      this.set({ trouble: error as Error });
      // the stream may be there all the same, and tells nothing of it
      clearTimeout(this.anew);
      if (this.source) this.anew = window.setTimeout(() => void this.refresh(), LONGEST_DELAY);
    }
  }

  /** Wait until it is known who looks. */
  async known(): Promise<void> {
    while (!this.session) {
      await new Promise((done) => this.addEventListener("now", done, { once: true }));
    }
  }

  private pause(): void {
    clearTimeout(this.retry);
    clearTimeout(this.anew);
    this.source?.close();
    this.source = null;
  }

  private listen(): void {
    clearTimeout(this.retry);
    this.source?.close();
    const source = (this.source = new EventSource(`${ROOT}/events`));
    source.onopen = () => {
      this.delay = 500;
      this.dispatchEvent(new Event("again")); // also at first: what was asked before may be old
      void this.refresh(true); // otsd may have been restarted with other settings
    };
    source.onerror = () => {
      // the browser would wait as long as it likes, and after a refusal for ever
      source.close();
      this.retry = window.setTimeout(() => this.listen(), this.delay);
      this.delay = Math.min(this.delay * 2, LONGEST_DELAY);
      void this.refresh();
    };
    for (const kind of KINDS) {
      source.addEventListener(kind, (event: MessageEvent<string>) => {
        this.dispatchEvent(new CustomEvent(kind, { detail: JSON.parse(event.data) }));
        this.refreshSoon();
      });
    }
  }

  private refreshSoon(): void {
    this.asking ??= new Promise((done) => setTimeout(done, STATUS_AT_MOST_EVERY)).then(() => {
      this.asking = null;
      return this.refresh();
    });
  }

  private set(what: Partial<Pick<Live, "status" | "trouble">>): void {
    Object.assign(this, what);
    this.dispatchEvent(new Event("now"));
  }
}

export const live = new Live();

/** Renders its host again when the session, the status or the daemon's presence changed. */
export class Watching implements ReactiveController {
  constructor(private readonly host: ReactiveControllerHost) {
    host.addController(this);
  }

  hostConnected(): void {
    live.addEventListener("now", this.update);
  }

  hostDisconnected(): void {
    live.removeEventListener("now", this.update);
  }

  private readonly update = (): void => this.host.requestUpdate();
}

/** Calls back for each change of a kind, and for `"again"`, while its host is in the page. */
export class Following<Item> implements ReactiveController {
  constructor(
    host: ReactiveControllerHost,
    private readonly kind: Kind,
    private readonly changed: (change: Change<Item>) => void,
    private readonly missed: () => void,
  ) {
    host.addController(this);
  }

  hostConnected(): void {
    live.addEventListener(this.kind, this.hear);
    live.addEventListener("again", this.missed);
  }

  hostDisconnected(): void {
    live.removeEventListener(this.kind, this.hear);
    live.removeEventListener("again", this.missed);
  }

  private readonly hear = (event: Event): void => {
    this.changed((event as CustomEvent<Change<Item>>).detail);
  };
}
