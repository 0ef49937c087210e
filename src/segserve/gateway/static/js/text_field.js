// The text prompt, with phrases to put into it.

import { byId, make } from "./elements.js";
import { PHRASES } from "./scenes.js";

export class TextField {
  #phrases = PHRASES;
  #own = false; // whether people have written what is there

  /** ask() is called on Enter. */
  constructor(ask) {
    this.field = byId("text");
    this.field.addEventListener("input", () => {
      this.#own = this.value !== "";
      this.#suggest();
    });
    byId("text-form").addEventListener("submit", (event) => {
      event.preventDefault();
      ask();
    });
    this.#suggest();
  }

  get value() {
    return this.field.value.trim();
  }

  /** Suggest what there is in a demo room; undefined: another picture. What people have written stays. */
  showScene(scene) {
    this.#phrases = scene?.phrases ?? PHRASES;
    if (scene && !this.#own) this.#write(this.#phrases.slice(0, 3));
    this.#suggest();
  }

  /** Buttons that add a phrase to the text, or take it out. */
  #suggest() {
    const given = this.value.split(".").map((part) => part.trim().toLowerCase());
    const focused = document.activeElement?.dataset.phrase;
    const buttons = this.#phrases.map((phrase) => this.#button(phrase, given.filter(Boolean)));
    byId("suggestions").replaceChildren(...buttons);
    buttons.find(({ dataset }) => dataset.phrase === focused)?.focus();
  }

  #button(phrase, given) {
    const pressed = given.includes(phrase);
    const button = make("button", { type: "button", textContent: phrase, dataset: { phrase }, aria: { pressed } });
    button.addEventListener("click", () => {
      this.#write(pressed ? given.filter((each) => each !== phrase) : [...given, phrase]);
      this.#own = true;
      this.#suggest();
    });
    return button;
  }

  #write(phrases) {
    this.field.value = phrases.map((phrase) => `${phrase}.`).join(" ");
  }
}
