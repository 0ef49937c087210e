// The list of what was found: check boxes, colors, labels and scores; hovering goes both ways.

import { byId, cssColor, make } from "./elements.js";

export class ResultList {
  #segments = null;

  /** on: {highlight(item or null), visibility()} */
  constructor(on) {
    this.on = on;
    this.list = byId("results");
    this.all = byId("all");
    this.all.addEventListener("change", () => {
      for (const item of this.#segments.items) item.visible = this.all.checked;
      this.#check();
      on.visibility();
    });
    this.list.addEventListener("pointerleave", () => on.highlight(null));
  }

  /** Segments, or null for none. */
  show(segments) {
    this.#segments = segments;
    byId("list").hidden = !segments?.items.length;
    // Readings of one object stay together.
    const items = [...(segments?.items ?? [])].sort((a, b) => (a.object ?? 0) - (b.object ?? 0));
    this.list.replaceChildren(...items.map((item) => this.#entry(item)));
    if (segments) this.#check();
  }

  /** Mark one item as highlighted, and bring it into view; null: none. */
  highlight(item) {
    for (const entry of this.list.children) {
      const marked = item !== null && Number(entry.dataset.index) === item.index;
      entry.classList.toggle("highlighted", marked);
      if (marked) this.#reveal(entry);
    }
  }

  #entry(item) {
    const box = make("input", { type: "checkbox", checked: item.visible });
    box.addEventListener("change", () => {
      if (box.checked) this.#hideOtherReadings(item);
      item.visible = box.checked;
      this.#check();
      this.on.visibility();
    });
    const swatch = make("span", { className: "swatch", aria: { hidden: "true" } });
    swatch.style.backgroundColor = cssColor(item.color);
    const score = item.score === null ? "" : item.score.toFixed(2);
    const entry = make(
      "li",
      { dataset: { index: item.index } },
      make(
        "label",
        {},
        box,
        swatch,
        make("span", { className: "label", textContent: item.label }),
        make("span", { className: "note", textContent: item.note }),
        make("span", { className: "score", textContent: score, title: score && "score" }),
      ),
    );
    entry.addEventListener("pointerenter", () => this.on.highlight(item));
    box.addEventListener("focus", () => box.matches(":focus-visible") && this.on.highlight(item));
    box.addEventListener("blur", () => this.on.highlight(null));
    return entry;
  }

  /** Readings of one click are alternatives: who shows one wants it instead of the others. */
  #hideOtherReadings({ object }) {
    for (const other of this.#segments.items) {
      if (object !== null && other.object === object) other.visible = false;
    }
  }

  #check() {
    const { items, shown } = this.#segments;
    this.all.checked = shown.length === items.length;
    this.all.indeterminate = shown.length > 0 && shown.length < items.length;
    byId("all-text").textContent = `All (${shown.length} of ${items.length} shown)`;
    for (const entry of this.list.children) entry.querySelector("input").checked = items[entry.dataset.index].visible;
  }

  /** Scrolls within the list only, so that the page does not jump. */
  #reveal(entry) {
    const { list } = this;
    const bottom = entry.offsetTop + entry.offsetHeight;
    if (entry.offsetTop < list.scrollTop) list.scrollTop = entry.offsetTop;
    else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  }
}
