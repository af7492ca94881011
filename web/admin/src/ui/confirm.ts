import type WaDialog from "@awesome.me/webawesome/dist/components/dialog/dialog.js";
import { html, nothing, render } from "lit";

export interface Question {
  title: string;
  text?: string;
  /** What the button says that does it: a verb. */
  yes: string;
  /** Whether it cannot be undone. */
  danger?: boolean;
}

/** Ask before something is done; false is also the answer of Escape. */
export function confirm({ title, text, yes, danger = false }: Question): Promise<boolean> {
  return new Promise((answered) => {
    const place = document.createElement("div");
    let answer = false;
    const close = () => {
      const dialog = place.querySelector<WaDialog>("wa-dialog");
      if (dialog) dialog.open = false;
    };
    const gone = (event: Event) => {
      if (event.target !== place.firstElementChild) return;
      place.remove();
      answered(answer);
    };
    document.body.append(place);
    render(
      html`<wa-dialog
        label=${title}
        open
        style="--width: 26rem; --wa-form-control-border-radius: var(--wa-border-radius-pill)"
        @wa-after-hide=${gone}
        >${text ?? nothing}
        <wa-button slot="footer" appearance="plain" ?autofocus=${danger} @click=${close}
          >Cancel</wa-button
        >
        <wa-button
          slot="footer"
          ?autofocus=${!danger}
          variant=${danger ? "danger" : "brand"}
          @click=${() => {
            answer = true;
            close();
          }}
          >${yes}</wa-button
        >
      </wa-dialog>`,
      place,
    );
  });
}
