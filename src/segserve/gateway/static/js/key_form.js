// The field for the API key, shown when the server answers 401.

import { byId } from "./elements.js";

export class KeyForm {
  #waiting = []; // {resolve, reject} of those that need a key

  /** use(key) is called with each key that is typed in. */
  constructor(use) {
    this.form = byId("key-form");
    this.field = byId("key");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      use(this.field.value.trim());
      this.form.hidden = true;
      for (const { resolve } of this.#waiting.splice(0)) resolve();
    });
  }

  /** Resolves once a key is there; rejects when signal aborts. message: what the server said of the last one. */
  wanted(message, signal) {
    const first = this.form.hidden;
    this.form.hidden = false;
    if (/not valid/.test(message)) byId("key-message").textContent = "That key is not valid here. Try another one.";
    if (first) this.field.select();
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }
}
