/** The components of Web Awesome that the page uses, with icons that nothing fetches. */

import {
  registerIconLibrary,
  unregisterIconLibrary,
} from "@awesome.me/webawesome/dist/components/icon/library.js";
import "@awesome.me/webawesome/dist/components/button/button.js";
import "@awesome.me/webawesome/dist/components/dialog/dialog.js";
import "@awesome.me/webawesome/dist/components/dropdown/dropdown.js";
import "@awesome.me/webawesome/dist/components/dropdown-item/dropdown-item.js";
import "@awesome.me/webawesome/dist/components/input/input.js";
import "@awesome.me/webawesome/dist/components/option/option.js";
import "@awesome.me/webawesome/dist/components/select/select.js";
import "@awesome.me/webawesome/dist/components/spinner/spinner.js";
import "@awesome.me/webawesome/dist/components/switch/switch.js";
import "@awesome.me/webawesome/dist/components/tag/tag.js";
import "@awesome.me/webawesome/dist/components/tooltip/tooltip.js";
import {
  mdiCheck,
  mdiChevronDown,
  mdiChevronLeft,
  mdiChevronRight,
  mdiClose,
  mdiCloseCircleOutline,
  mdiEyeOffOutline,
  mdiEyeOutline,
  mdiHelpCircleOutline,
  mdiMinus,
  mdiPlus,
} from "@mdi/js";

const PATHS: Record<string, string> = {
  check: mdiCheck,
  "chevron-down": mdiChevronDown,
  "chevron-left": mdiChevronLeft,
  "chevron-right": mdiChevronRight,
  "circle-xmark": mdiCloseCircleOutline,
  eye: mdiEyeOutline,
  "eye-slash": mdiEyeOffOutline,
  minus: mdiMinus,
  plus: mdiPlus,
  xmark: mdiClose,
};

const SVG = "http://www.w3.org/2000/svg";

// the default library asks a host elsewhere, and the system's own fetches data: addresses
unregisterIconLibrary("default");
registerIconLibrary("system", {
  spriteSheet: true, // so that wa-icon makes an empty <svg> and fetches nothing
  resolver: (name) => `#${name}`,
  mutator: (svg, host) => {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", PATHS[host?.name ?? ""] ?? mdiHelpCircleOutline);
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("fill", "currentColor");
    svg.querySelector("use")?.remove();
    svg.querySelector("path")?.remove();
    svg.append(path);
  },
});
