// The field for the API key, shown from the server's 401 until a key has proved right.

import { problemOf } from "./api_key.js";
import { byId } from "./elements.js";

const KEPT = byId("key-message").textContent;

export class KeyForm {
  #waiting = []; // {resolve, reject} of those that need a key

  /** use(key): Promise that resolves once the server takes the key, and rejects with its Failure where it does not. */
  constructor(use) {
    this.use = use;
    this.form = byId("key-form");
    this.field = byId("key");
    this.button = byId("save-key");
    this.field.addEventListener("input", () => this.#say(problemOf(this.#key)));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.button.disabled) this.#try();
    });
  }

  get #key() {
    return this.field.value.trim();
  }

  /** Resolves once a key is there; rejects when signal aborts. message: what the server said of the last one. */
  wanted(message, signal) {
    const first = this.form.hidden;
    this.form.hidden = false;
    if (/not valid/.test(message)) this.#say("That key is not valid here. Try another one.");
    if (first) this.field.select();
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }

  async #try() {
    const problem = this.#key ? problemOf(this.#key) : "Type the key, or paste it.";
    if (problem) {
      this.#say(problem);
      return;
    }
    this.button.disabled = true;
    this.#say("", "Trying the key…");
    try {
      await this.use(this.#key);
    } catch (failure) {
      this.#say(failure.status === 401 ? "That key is not valid here. Try another one." : failure.message);
      return;
    } finally {
      this.button.disabled = false;
    }
    this.#say("");
    this.form.hidden = true;
    for (const { resolve } of this.#waiting.splice(0)) resolve();
  }

  /** problem: empty for none. */
  #say(problem, otherwise = KEPT) {
    const message = byId("key-message");
    if (message.textContent !== (problem || otherwise)) message.textContent = problem || otherwise;
    message.dataset.state = problem ? "error" : "idle";
    this.field.setAttribute("aria-invalid", problem !== "");
  }
}
