// The models' dialog: state, workers and queue of each, and scaling with the admin key.

import { byId, make } from "./elements.js";

export class ModelsPanel {
  #rows = new Map(); // by name: {row, cells}

  /** on: {opened(), scale(name, fewest, most, adminKey): Promise} */
  constructor(on) {
    this.on = on;
    this.dialog = byId("models-panel");
    this.message = byId("models-message");
    byId("open-models").addEventListener("click", () => {
      this.dialog.showModal();
      on.opened();
    });
    byId("close-models").addEventListener("click", () => this.dialog.close());
    byId("admin-form").addEventListener("submit", (event) => event.preventDefault());
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
  }

  get open() {
    return this.dialog.open;
  }

  /** Rows are kept, so that what is being typed into them stays. */
  update(models) {
    for (const [name, { row }] of this.#rows) {
      if (!models.some((model) => model.name === name)) {
        row.remove();
        this.#rows.delete(name);
      }
    }
    for (const model of models) {
      if (!this.#rows.has(model.name)) this.#add(model);
      const { cells } = this.#rows.get(model.name);
      cells.state.textContent = model.ready ? "ready" : model.workers ? "loading" : "no worker";
      cells.state.dataset.state = model.ready ? "ready" : "loading";
      cells.workers.textContent = `${model.ready_workers} of ${model.workers}`;
      cells.queue.textContent = model.queued ?? "–";
      cells.batch.textContent = model.batch_size ?? "–";
    }
  }

  #add(model) {
    const { name } = model;
    const number = (field, value) =>
      make("input", {
        type: "number",
        name: field,
        min: 0,
        max: 64,
        value,
        aria: { label: `${name}: ${field} workers` },
      });
    const fewest = number("min", model.workers);
    const most = number("max", Math.max(1, model.workers));
    // Fewest is never more than most: the one that is being typed takes the other along.
    fewest.addEventListener("input", () => {
      if (fewest.valueAsNumber > most.valueAsNumber) most.value = fewest.value;
    });
    most.addEventListener("input", () => {
      if (most.valueAsNumber < fewest.valueAsNumber) fewest.value = most.value;
    });
    const button = make("button", {
      type: "button",
      className: "scale",
      textContent: "Scale",
      aria: { label: `Scale ${name}` },
    });
    button.addEventListener("click", () => this.#scale(name, fewest, most, button));
    const cells = {
      state: make("span", { className: "state" }),
      workers: make("td", { className: "workers" }),
      queue: make("td", { className: "queue" }),
      batch: make("td", { className: "batch" }),
    };
    for (const [field, title] of [
      ["workers", "Workers"],
      ["queue", "Queue"],
      ["batch", "Batch"],
    ]) {
      cells[field].dataset.title = title;
    }
    const described = [model.version && `version ${model.version}`, model.device, model.engine]
      .filter(Boolean)
      .join(", ");
    const row = make(
      "tr",
      { dataset: { model: name } },
      make("th", { scope: "row" }, name, make("small", { textContent: described, title: model.title })),
      make("td", { dataset: { title: "State" } }, cells.state),
      cells.workers,
      cells.queue,
      cells.batch,
      make("td", { className: "scaling", dataset: { title: "Scale to" } }, fewest, " to ", most, button),
    );
    this.#rows.set(name, { row, cells });
    byId("models-rows").append(row);
  }

  async #scale(name, fewest, most, button) {
    button.disabled = true;
    this.message.dataset.state = "busy";
    this.message.textContent =
      fewest.valueAsNumber === 0
        ? `Scaling ${name}: its workers end with the requests that they have…`
        : `Scaling ${name}: a new worker loads the model first…`;
    try {
      const { workers } = await this.on.scale(name, fewest.value, most.value, byId("admin-key").value.trim());
      this.message.dataset.state = "done";
      this.message.textContent = workers
        ? `${name} has ${workers} ${workers === 1 ? "worker" : "workers"} now.`
        : `${name} has no worker now, and answers nobody until it is scaled to 1 or more.`;
    } catch (failure) {
      this.message.dataset.state = "error";
      this.message.textContent = failure.message;
    } finally {
      button.disabled = false;
    }
  }
}
