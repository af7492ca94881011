/** What the links of submissions are called. */

import type { ReactiveController, ReactiveControllerHost } from "lit";
import { api, Problem } from "../../api";
import { Following } from "../../store/live";
import type { Token } from "../../types";

const AT_A_TIME = 4;

/** The comments of tokens by id, asked for when they are needed. */
export class LinkNames implements ReactiveController {
  private readonly comments = new Map<string, string>();
  private readonly wanted = new Set<string>();
  private asking = 0;

  constructor(
    private readonly host: ReactiveControllerHost,
    gone: (id: string) => void,
  ) {
    host.addController(this);
    new Following<Token>(
      host,
      "token",
      ({ id, item }) => {
        if (!item) gone(String(id));
        else if (this.comments.has(item.id)) this.know(item.id, item.comment ?? "");
      },
      () => this.comments.clear(),
    );
  }

  hostConnected(): void {}

  /** Return what a link is called, for now by its id alone. */
  of(id: string): string {
    const comment = this.comments.get(id);
    if (comment === undefined && !this.wanted.has(id)) {
      this.wanted.add(id);
      queueMicrotask(() => this.ask());
    }
    return comment || `Link ${id}`;
  }

  private ask(): void {
    while (this.asking < AT_A_TIME) {
      const [id] = this.wanted;
      if (id === undefined) return;
      this.wanted.delete(id);
      this.asking++;
      this.comments.set(id, "");
      api
        .token(id)
        .then(
          ({ comment }) => this.know(id, comment ?? ""),
          (error) => {
            if (!(error instanceof Problem)) this.comments.delete(id);
          },
        )
        .finally(() => {
          this.asking--;
          this.ask();
        });
    }
  }

  private know(id: string, comment: string): void {
    this.comments.set(id, comment);
    this.host.requestUpdate();
  }
}
