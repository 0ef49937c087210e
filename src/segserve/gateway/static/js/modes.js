// The ways to ask: which model each needs, and the tabs that choose one.

import { make } from "./elements.js";

export const MODES = [
  {
    id: "text",
    title: "Text",
    kind: "grounded_sam",
    run: "Find",
    hint: "Name what to find; full stops separate phrases.",
  },
  {
    id: "click",
    title: "Click",
    kind: "sam2",
    run: "Ask again",
    clicks: "click",
    hint:
      "Click on an object; further clicks correct its outline. Right click or Alt-click takes a part away; dragging " +
      "draws a box around it.",
    touchHint:
      "Tap on an object; further taps correct its outline. With Take away, a tap takes a part away; dragging draws a " +
      "box around it.",
  },
  {
    id: "box",
    title: "Box",
    kind: "sam2",
    run: "Ask again",
    clicks: "box",
    hint: "Drag a box around an object; each box is about an object of its own.",
  },
  {
    id: "instances",
    title: "Instances",
    kind: "mask_rcnn",
    run: "Find instances",
    hint: "Outlines every object of the classes that the model knows.",
  },
  {
    id: "semantic",
    title: "Semantic",
    kind: "semantic",
    run: "Label every pixel",
    hint: "Gives every pixel one of the classes that the model knows.",
  },
  {
    id: "tile",
    title: "Tile",
    kind: "grounded_sam",
    run: "Lay it",
    hint: "Finds a surface of the catalog and lays its product over it.",
  },
];

export class ModeTabs {
  chosen = null;
  #models = [];

  /** onChoose(mode) is called when another mode is chosen, by people or because the last one went. */
  constructor(list, onChoose) {
    this.list = list;
    this.onChoose = onChoose;
    list.addEventListener("keydown", (event) => this.#key(event));
  }

  /** models: as /v1/models answers. */
  update(models) {
    this.#models = models;
    const modes = MODES.filter((mode) => this.modelsOf(mode).length);
    const focused = this.list.contains(document.activeElement);
    this.list.replaceChildren(...modes.map((mode) => this.#tab(mode)));
    if (modes.includes(this.chosen)) {
      if (focused) this.list.querySelector("[aria-selected=true]").focus();
    } else {
      this.choose(modes.find((mode) => this.isReady(mode)) ?? modes[0] ?? null);
    }
  }

  modelsOf(mode) {
    return mode ? this.#models.filter(({ kind }) => kind === mode.kind) : [];
  }

  isReady(mode) {
    return this.modelsOf(mode).some(({ ready }) => ready);
  }

  choose(mode) {
    this.chosen = mode;
    for (const tab of this.list.children) {
      const selected = tab.dataset.mode === mode?.id;
      tab.setAttribute("aria-selected", selected);
      tab.tabIndex = selected ? 0 : -1;
    }
    this.onChoose(mode);
  }

  #tab(mode) {
    const ready = this.isReady(mode);
    const selected = mode === this.chosen;
    const tab = make(
      "button",
      {
        type: "button",
        id: `mode-${mode.id}`,
        role: "tab",
        tabIndex: selected ? 0 : -1,
        dataset: { mode: mode.id, state: ready ? "ready" : "loading" },
        aria: { selected, controls: "mode-panel" },
        title: ready ? mode.hint : `${mode.kind} is still loading`,
      },
      mode.title,
      ...(ready ? [] : [make("span", { className: "visually-hidden", textContent: " (still loading)" })]),
    );
    tab.addEventListener("click", () => this.choose(mode));
    return tab;
  }

  #key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const tabs = [...this.list.children];
    const at = tabs.indexOf(document.activeElement);
    const next = event.key === "Home" ? 0 : event.key === "End" ? tabs.length - 1 : step && at + step + tabs.length;
    if (next === undefined || at < 0) return;
    event.preventDefault();
    const tab = tabs[next % tabs.length];
    tab.focus();
    this.choose(MODES.find(({ id }) => id === tab.dataset.mode));
  }
}
