import type WaButton from "@awesome.me/webawesome/dist/components/button/button.js";
import { mdiCheck, mdiContentCopy } from "@mdi/js";
import { css, html, LitElement } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import "./icon";
import { toast } from "./toast";

/**
 * Put a text on the clipboard, also where the browser has none to offer: over plain HTTP. `near` is
 * inside the dialog that is open, if one is: nothing outside of it can be marked.
 */
export async function copy(text: string, near: ParentNode = document.body): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    const focused = document.activeElement as HTMLElement | null;
    field.value = text;
    field.readOnly = true;
    field.style.cssText = "position: fixed; inset: 0 auto auto 0; opacity: 0";
    near.append(field);
    field.select();
    const isCopied = document.execCommand("copy");
    field.remove();
    focused?.focus();
    return isCopied;
  }
}

/** A button that copies `text`. */
@customElement("otsd-copy")
export class CopyButton extends LitElement {
  static override styles = css`
    :host {
      display: inline-block;
    }
    wa-button {
      --wa-form-control-border-radius: var(--wa-border-radius-pill);
    }
    otsd-icon {
      font-size: 1.25rem;
    }
  `;

  @property() text = "";
  @property() label = "Copy";
  /** Whether it is what one comes for. */
  @property({ type: Boolean }) primary = false;
  @state() private isDone = false;

  override focus(): void {
    const button = this.renderRoot.querySelector<WaButton>("wa-button");
    void button?.updateComplete.then(() => button.focus());
  }

  private async copy(): Promise<void> {
    if (!(await copy(this.text, this.renderRoot))) {
      toast("The browser does not allow copying: mark the text and copy it by hand.");
      return;
    }
    this.isDone = true;
    setTimeout(() => (this.isDone = false), 2000);
  }

  protected override render() {
    return html`<wa-button
        variant=${this.primary ? "brand" : "neutral"}
        appearance=${this.primary ? "accent" : "outlined"}
        @click=${this.copy}
      >
        <otsd-icon slot="start" .path=${this.isDone ? mdiCheck : mdiContentCopy}></otsd-icon>
        ${this.isDone ? "Copied" : this.label}
      </wa-button>
      <span role="status" style="position: absolute; clip-path: inset(50%)"
        >${this.isDone ? "Copied" : ""}</span
      >`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-copy": CopyButton;
  }
}
