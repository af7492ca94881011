/** Every action there is, kept up to date, and what the connected Home Assistant has. */

import type { ReactiveController, ReactiveControllerHost } from "lit";
import { api } from "../../api";
import { Following } from "../../store/live";
import type { Action, HomeAction, HomeEntity, Page } from "../../types";

/** The actions, newest first; `items` is null until they have come. */
export class KnownActions implements ReactiveController {
  items: Action[] | null = null;
  error: Error | null = null;

  private loading = 0;

  constructor(private readonly host: ReactiveControllerHost) {
    host.addController(this);
    const load = () => void this.load();
    // an event tells an action without its YAML
    new Following<Action>(host, "action", load, load);
  }

  hostConnected(): void {
    void this.load();
  }

  async load(): Promise<void> {
    const turn = ++this.loading;
    try {
      const items: Action[] = [];
      let cursor: Page<Action>["next"] | undefined;
      do {
        const page = await api.actions({ limit: 500, cursor });
        items.push(...page.items);
        cursor = page.next;
      } while (cursor !== null);
      if (turn !== this.loading) return;
      this.items = items;
      this.error = null;
    } catch (error) {
      if (turn !== this.loading) return;
      this.error = error as Error;
    }
    this.host.requestUpdate();
  }

  titleOf(name: string): string {
    return this.items?.find((each) => each.name === name)?.title ?? name;
  }
}

/** What completion offers. */
export interface Vocabulary {
  actions: HomeAction[];
  entities: HomeEntity[];
}

const FRESH = 30_000;
let asked: { at: number; answer: Promise<Vocabulary> } | null = null;

/** Return what Home Assistant has, asked at most every half minute; nothing while it is away. */
export function vocabulary(): Promise<Vocabulary> {
  if (!asked || Date.now() - asked.at > FRESH) {
    const answer = Promise.all([api.homeActions(), api.homeEntities()]).then(
      ([actions, entities]) => ({ actions: actions.items, entities: entities.items }),
      () => {
        asked = null;
        return { actions: [], entities: [] };
      },
    );
    asked = { at: Date.now(), answer };
  }
  return asked.answer;
}

/** The entities that there are, by their ids. */
export type Entities = ReadonlyMap<string, HomeEntity>;

export async function knownEntities(): Promise<Entities> {
  const { entities } = await vocabulary();
  return new Map(entities.map((each) => [each.entity_id, each]));
}

/** What a YAML text does, in a line: "lock.unlock → Front door". */
export function summary(yaml: string, entities: Entities): string {
  const words = new Set(yaml.match(/[a-z0-9_]+\.[a-z0-9_]+/g));
  const touched = [...words].flatMap((word) => entities.get(word) ?? []);
  const names = touched.map(({ name, entity_id }) => name ?? entity_id);
  return [callsIn(yaml).join(", "), names.join(", ")].filter(Boolean).join(" → ");
}

/** The names of Home Assistant's actions that a YAML text calls. */
function callsIn(yaml: string): string[] {
  const found = yaml.matchAll(
    /(?:^|[\s{,-])["']?(?:action|service)["']?:\s+["']?([a-z0-9_]+\.[a-z0-9_]+)/g,
  );
  return [...new Set([...found].map(([, name]) => name!))];
}
