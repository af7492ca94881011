/** A list of the API that follows the stream of changes. */

import type { ReactiveController, ReactiveControllerHost } from "lit";
import type { Window } from "../api";
import type { Change, Page } from "../types";
import { Following, type Kind } from "./live";

export interface Source<Item> {
  kind: Kind;
  fetch: (window: Window) => Promise<Page<Item>>;
  id: (item: Item) => string | number;
  /** What the API sorts by, newest first: larger is newer. */
  order: (item: Item) => string | number;
  /** Whether an item that changed belongs to the list as it is filtered now. */
  matches?: (item: Item) => boolean;
}

const PAGE = 50;

/** The first pages of a list: `load` begins anew, `more` adds a page, changes come by themselves. */
export class LiveList<Item> implements ReactiveController {
  items: Item[] = [];
  /** Whether the first page has not come yet. */
  isLoading = true;
  error: Error | null = null;

  private next: Page<Item>["next"] = null;
  private request = new AbortController();
  /** What was heard while a page is on its way: the page may be older. */
  private heard: Change<Item>[] | null = null;

  constructor(
    private readonly host: ReactiveControllerHost,
    private readonly source: Source<Item>,
  ) {
    host.addController(this);
    new Following<Item>(
      host,
      source.kind,
      (change) => this.apply(change),
      () => void this.load(Math.max(PAGE, this.items.length)),
    );
  }

  hostConnected(): void {
    void this.load();
  }

  hostDisconnected(): void {
    this.request.abort();
  }

  get hasMore(): boolean {
    return this.next !== null;
  }

  /** Load the first page; what was shown stays until it has come. */
  async load(limit = PAGE): Promise<void> {
    await this.fetch({ limit: Math.min(limit, 500) }, (page) => page.items);
  }

  /** Load the next page. */
  async more(): Promise<void> {
    if (this.next === null) return;
    await this.fetch({ limit: PAGE, cursor: this.next }, (page) => {
      const known = new Set(this.items.map(this.source.id));
      return [...this.items, ...page.items.filter((item) => !known.has(this.source.id(item)))];
    });
  }

  /** Take a change without waiting for the stream to tell it. */
  apply(change: Change<Item>): void {
    this.heard?.push(change);
    this.take(change);
    this.host.requestUpdate();
  }

  private take({ id, item }: Change<Item>): void {
    const { items, source } = this;
    const known = items.findIndex((each) => String(source.id(each)) === String(id));
    if (item === null || !(source.matches?.(item) ?? true)) {
      this.items = items.filter((_, place) => place !== known);
    } else if (known >= 0) {
      this.items = items.with(known, item);
    } else {
      const older = items.findIndex((each) => source.order(each) <= source.order(item));
      // what is older than all of them belongs to a page that is not loaded yet
      if (older >= 0 || !this.hasMore) {
        this.items = items.toSpliced(older >= 0 ? older : items.length, 0, item);
      }
    }
  }

  private async fetch(window: Window, taken: (page: Page<Item>) => Item[]): Promise<void> {
    this.request.abort();
    const request = (this.request = new AbortController());
    this.heard = [];
    try {
      const page = await this.source.fetch({ ...window, signal: request.signal });
      if (request.signal.aborted) return;
      this.items = taken(page);
      this.next = page.next;
      for (const change of this.heard ?? []) this.take(change);
      this.error = null;
    } catch (error) {
      if (request.signal.aborted) return;
      this.error = error as Error;
    }
    this.heard = null;
    this.isLoading = false;
    this.host.requestUpdate();
  }
}
