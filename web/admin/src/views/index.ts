/** The views, in the order of the navigation. Each gets what the route names as `selected`. */

import {
  mdiFlash,
  mdiFlashOutline,
  mdiHistory,
  mdiImport,
  mdiLanConnect,
  mdiTicketConfirmation,
  mdiTicketConfirmationOutline,
} from "@mdi/js";
import { html, type TemplateResult } from "lit";
import type { ViewName } from "../router";
import { live } from "../store/live";
import { toastError } from "../ui/toast";
import "./actions";
import "./activity";
import "./connections";
import { isBeginning } from "./first-steps";
import "./tokens";

interface View {
  title: string;
  icon: string;
  iconWhenShown: string;
  render: (selected: string | null) => TemplateResult;
}

let importing: Promise<unknown> | null = null;

/** Few ever need it, and once. */
function loadImport(): void {
  importing ??= import("./import").catch(() => {
    importing = null;
    if (!live.trouble) toastError("This view did not load. Reload the page.");
  });
}

export const views: Record<ViewName, View> = {
  tokens: {
    title: "Links",
    icon: mdiTicketConfirmationOutline,
    iconWhenShown: mdiTicketConfirmation,
    render: (selected) =>
      selected === null && isBeginning()
        ? html`<otsd-welcome></otsd-welcome>`
        : html`<otsd-tokens .selected=${selected}></otsd-tokens>`,
  },
  actions: {
    title: "Actions",
    icon: mdiFlashOutline,
    iconWhenShown: mdiFlash,
    render: (selected) => html`<otsd-actions .selected=${selected}></otsd-actions>`,
  },
  activity: {
    title: "Activity",
    icon: mdiHistory,
    iconWhenShown: mdiHistory,
    render: () => html`<otsd-activity></otsd-activity>`,
  },
  connections: {
    title: "Connections",
    icon: mdiLanConnect,
    iconWhenShown: mdiLanConnect,
    render: () => html`<otsd-connections></otsd-connections>`,
  },
  import: {
    title: "Import",
    icon: mdiImport,
    iconWhenShown: mdiImport,
    render: () => {
      loadImport();
      return html`<otsd-import></otsd-import>`;
    },
  },
};
