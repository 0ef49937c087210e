// What the page says: one line of state, progress, and the last failure.

import { byId } from "./elements.js";

export class Notice {
  constructor() {
    this.status = byId("status");
    this.error = byId("error");
    byId("dismiss").addEventListener("click", () => this.clearError());
  }

  /** state: idle, busy, waiting (asked again later) or done. */
  say(text, state = "done") {
    this.status.textContent = text;
    this.status.dataset.state = state;
    const busy = state === "busy" || state === "waiting";
    byId("progress").hidden = !busy;
    byId("cancel").hidden = !busy;
  }

  /** A failure (js/endpoint.js) or another Error, in words. */
  fail(failure, said = "That did not work.") {
    this.say(said, "error");
    byId("error-message").textContent = failure.message;
    const details = [failure.code, failure.requestId && `request ${failure.requestId}`].filter(Boolean).join(" · ");
    byId("error-details").textContent = details;
    this.error.hidden = false;
  }

  /** What cannot be done, in words, beside a state that stays what it is. */
  refuse({ message }) {
    byId("error-message").textContent = message;
    byId("error-details").textContent = "";
    this.error.hidden = false;
  }

  clearError() {
    this.error.hidden = true;
    byId("error-message").textContent = "";
  }
}
