/** Actions to begin with, made from what the house has. */

import {
  mdiGarageVariant,
  mdiLightbulbOutline,
  mdiLockOpenVariantOutline,
  mdiToggleSwitchOutline,
} from "@mdi/js";
import type { HomeEntity } from "../../types";
import { nameFrom } from "./name";
import { EMPTY, type Form } from "./draft";

export interface Example {
  icon: string;
  form: Form;
}

const KINDS = [
  { domain: "lock", action: "lock.unlock", verb: "Unlock", icon: mdiLockOpenVariantOutline },
  { domain: "cover", action: "cover.open_cover", verb: "Open", icon: mdiGarageVariant },
  { domain: "light", action: "light.turn_on", verb: "Switch on", icon: mdiLightbulbOutline },
  { domain: "switch", action: "switch.turn_on", verb: "Switch on", icon: mdiToggleSwitchOutline },
];
const MOST = 3;
const FRONT = /front|main|entr|door|gate|haus|tür|tor/i;

/** Return up to three, each for an entity that is there. */
export function examples(entities: HomeEntity[]): Example[] {
  return KINDS.flatMap(({ domain, action, verb, icon }) => {
    const known = entities.filter(
      ({ entity_id, state }) => entity_id.startsWith(`${domain}.`) && state !== "unavailable",
    );
    const one = known.find((each) => FRONT.test(`${each.name} ${each.entity_id}`)) ?? known[0];
    if (!one) return [];
    const title = `${verb} ${one.name ?? one.entity_id}`.slice(0, 200);
    const yaml = `action: ${action}\ntarget:\n  entity_id: ${one.entity_id}\n`;
    return [{ icon, form: { ...EMPTY, title, name: nameFrom(title), yaml } }];
  }).slice(0, MOST);
}
