// A model's parameters as controls. What nobody has touched is not sent, so that the server's default holds.

import { make } from "./elements.js";

const SWITCH = [
  ["", "as the server does"],
  ["true", "on"],
  ["false", "off"],
];

const KNOWN = {
  box_threshold: { title: "Score of a find, at least", from: 0.05, to: 0.95 },
  text_threshold: { title: "Score of a word, at least", from: 0.05, to: 0.95 },
  // Models answer down to low scores, for those who draw curves; people want what is likely.
  score_threshold: { title: "Score, at least", from: 0.05, to: 0.95, initial: 0.5 },
  nms_iou: { title: "Overlap of duplicates, over", from: 0.1, to: 1 },
  refine: { title: "Smooth the masks", choices: [...SWITCH, ["polygon", "one outline each"]] },
  engine: { title: "Engine" },
  multimask: { title: "All readings of a click", choices: SWITCH },
};

export class Options {
  #given = { score_threshold: KNOWN.score_threshold.initial };

  #names = []; // of the controls that are shown

  constructor(details, rows) {
    this.details = details;
    this.rows = rows;
  }

  /** Show a model's controls; null: none. */
  show(model) {
    const names = Object.keys(KNOWN).filter(
      (name) => model?.parameters.includes(name) && (name !== "engine" || (model.engines?.length ?? 0) > 1),
    );
    this.details.hidden = names.length === 0;
    this.#names = names;
    this.rows.replaceChildren(
      ...names.map((name) => {
        const known = KNOWN[name];
        if (known.from !== undefined) return this.#range(name, known);
        return this.#select(
          name,
          known.title,
          known.choices ?? [
            ["", `${model.engine}, as the server does`],
            ...model.engines.map((engine) => [engine, engine]),
          ],
        );
      }),
    );
  }

  /** The parameters that were set. */
  get values() {
    return Object.fromEntries(Object.entries(this.#given).filter(([name]) => this.#names.includes(name)));
  }

  #range(name, { title, from, to }) {
    const input = make("input", {
      type: "range",
      name,
      min: from,
      max: to,
      step: 0.05,
      value: this.#given[name] ?? 0.5,
    });
    const output = make("output", { textContent: this.#given[name]?.toFixed(2) ?? "default" });
    const aria = { label: `${title}: default` };
    const reset = make("button", { type: "button", className: "quiet", textContent: "Default", aria });
    reset.hidden = !(name in this.#given);
    input.addEventListener("input", () => {
      this.#given[name] = Number(input.value);
      output.textContent = this.#given[name].toFixed(2);
      reset.hidden = false;
    });
    reset.addEventListener("click", () => {
      delete this.#given[name];
      output.textContent = "default";
      reset.hidden = true;
      input.focus();
    });
    return make("div", { className: "option" }, make("label", {}, title, input), output, reset);
  }

  #select(name, title, choices) {
    const select = make(
      "select",
      { name },
      ...choices.map(([value, text]) => make("option", { value, textContent: text })),
    );
    if (name in this.#given) select.value = String(this.#given[name]);
    select.addEventListener("change", () => {
      const switches = { true: true, false: false };
      if (select.value === "") delete this.#given[name];
      else this.#given[name] = switches[select.value] ?? select.value;
    });
    return make("div", { className: "option" }, make("label", {}, title, select));
  }
}
