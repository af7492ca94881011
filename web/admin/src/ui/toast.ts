import { mdiAlertCircleOutline, mdiCheckCircleOutline, mdiClose } from "@mdi/js";
import { css, html, LitElement, nothing } from "lit";
import { customElement, query, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import "./icon";

export interface Toast {
  text: string;
  isError?: boolean;
  /** Takes back what the toast tells of. */
  undo?: () => Promise<unknown>;
}

const SHOWN = 5000;
const SHOWN_WITH_UNDO = 8000;
const MOST = 3;

let toaster: Toaster | null = null;

/** Tell for a moment what was done. */
export function toast(text: string, undo?: Toast["undo"]): void {
  toaster?.show(undo ? { text, undo } : { text });
}

/** Tell what went wrong; use it where no field of a form can. */
export function toastError(error: unknown): void {
  toaster?.show({ text: error instanceof Error ? error.message : String(error), isError: true });
}

/** Where toasts appear; the shell has one. */
@customElement("otsd-toaster")
export class Toaster extends LitElement {
  static override styles = css`
    #place {
      position: fixed;
      inset: auto 0 calc(4.75rem + env(safe-area-inset-bottom)) 0;
      width: min(30rem, 100% - 1.5rem);
      margin-inline: auto;
      padding: 0;
      border: 0;
      background: none;
      overflow: visible;
      display: none;
      gap: 0.5rem;
    }
    #place:popover-open {
      display: grid;
    }
    @media (min-width: 870px) {
      #place {
        inset-block-end: 1.5rem;
      }
    }
    .toast {
      display: flex;
      align-items: center;
      gap: 0.75rem;
      padding: 0.5rem 0.5rem 0.5rem 1rem;
      border-radius: 12px;
      background: #2b2b2b;
      color: #fff;
      box-shadow: 0 4px 16px #0006;
      font-size: 0.9375rem;
      line-height: 1.4;
      animation: come 0.15s ease-out;
    }
    @media (prefers-reduced-motion: reduce) {
      .toast {
        animation: none;
      }
    }
    @keyframes come {
      from {
        transform: translateY(0.75rem);
        opacity: 0;
      }
    }
    otsd-icon {
      color: #7ddc98;
    }
    .error otsd-icon {
      color: #ff9e94;
    }
    .text {
      flex: 1;
    }
    button {
      font: inherit;
      font-weight: 500;
      color: #62cbfb;
      background: none;
      border: 0;
      border-radius: 8px;
      min-height: 2.75rem;
      min-width: 2.75rem;
      padding: 0 0.75rem;
      cursor: pointer;
    }
    button:hover {
      background: #fff2;
    }
    button:focus-visible {
      outline: 3px solid #62cbfb;
    }
    .close {
      padding: 0;
      display: grid;
      place-items: center;
    }
    .close otsd-icon {
      color: #ddd;
      font-size: 1.25rem;
    }
  `;

  @state() private toasts: Toast[] = [];
  @query("#place") private place!: HTMLElement;
  private readonly timers = new Map<Toast, number>();
  private isHeld = false;

  override connectedCallback(): void {
    super.connectedCallback();
    toaster = this;
  }

  show(toast: Toast): void {
    for (const old of this.toasts.slice(0, -MOST + 1)) this.dismiss(old);
    this.toasts = [...this.toasts, toast];
    this.place.hidePopover();
    this.place.showPopover(); // anew, so that it lies above a dialog
    this.wait(toast);
  }

  private wait(toast: Toast): void {
    clearTimeout(this.timers.get(toast));
    const shown = toast.undo || toast.isError ? SHOWN_WITH_UNDO : SHOWN;
    this.timers.set(
      toast,
      window.setTimeout(() => (this.isHeld ? this.wait(toast) : this.dismiss(toast)), shown),
    );
  }

  private dismiss(toast: Toast): void {
    clearTimeout(this.timers.get(toast));
    this.timers.delete(toast);
    this.toasts = this.toasts.filter((each) => each !== toast);
    if (!this.toasts.length) this.isHeld = false;
  }

  protected override updated(): void {
    if (!this.toasts.length && this.place.matches(":popover-open")) this.place.hidePopover();
  }

  private readonly hold = (): void => {
    this.isHeld = true;
  };

  private readonly release = (): void => {
    this.isHeld = false;
  };

  private async undo(toast: Toast): Promise<void> {
    this.dismiss(toast);
    try {
      await toast.undo?.();
    } catch (error) {
      toastError(error);
    }
  }

  protected override render() {
    return html`<div
      id="place"
      popover="manual"
      role="status"
      aria-live="polite"
      @pointerenter=${this.hold}
      @pointerleave=${this.release}
      @focusin=${this.hold}
      @focusout=${this.release}
    >
      ${repeat(
        this.toasts,
        (toast) => toast,
        (toast) =>
          html`<div class="toast ${toast.isError ? "error" : ""}">
            <otsd-icon
              .path=${toast.isError ? mdiAlertCircleOutline : mdiCheckCircleOutline}
            ></otsd-icon>
            <span class="text">${toast.text}</span>
            ${toast.undo ? html`<button @click=${() => this.undo(toast)}>Undo</button>` : nothing}
            <button class="close" aria-label="Close" @click=${() => this.dismiss(toast)}>
              <otsd-icon .path=${mdiClose}></otsd-icon>
            </button>
          </div>`,
      )}
    </div>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "otsd-toaster": Toaster;
  }
}
