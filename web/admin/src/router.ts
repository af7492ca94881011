/** Hash routes, which work below any path: `#/tokens`, `#/tokens/ID`. */

import type { ReactiveController, ReactiveControllerHost } from "lit";

/** The views of the navigation. */
export const VIEWS = ["tokens", "actions", "activity", "connections"] as const;
const ALL_VIEWS = [...VIEWS, "import"] as const;
export type ViewName = (typeof ALL_VIEWS)[number];

export interface Route {
  view: ViewName;
  id: string | null;
}

/** The address of a view, or of one thing in it. */
export function href(view: ViewName, id?: string | null): string {
  return id == null ? `#/${view}` : `#/${view}/${encodeURIComponent(id)}`;
}

/** Show a view; `replace` leaves no step to go back to. */
export function go(view: ViewName, id?: string | null, { replace = false } = {}): void {
  if (replace) location.replace(href(view, id));
  else location.assign(href(view, id));
}

export function route(): Route {
  const [, name, id] = location.hash.split("/");
  const view = ALL_VIEWS.find((each) => each === name) ?? "tokens";
  try {
    return { view, id: id ? decodeURIComponent(id) : null };
  } catch {
    return { view, id: null };
  }
}

/** Renders its host again whenever the route changes. */
export class Routing implements ReactiveController {
  now = route();

  constructor(
    private readonly host: ReactiveControllerHost,
    private readonly changed: (before: Route) => void = () => {},
  ) {
    host.addController(this);
  }

  hostConnected(): void {
    addEventListener("hashchange", this.follow);
  }

  hostDisconnected(): void {
    removeEventListener("hashchange", this.follow);
  }

  private readonly follow = (): void => {
    const before = this.now;
    this.now = route();
    this.host.requestUpdate();
    this.changed(before);
  };
}
