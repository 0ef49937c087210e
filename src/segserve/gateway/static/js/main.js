// The page put together: a picture, a way to ask, an answer.

import { Asker } from "./asker.js";
import { Clicks } from "./clicks.js";
import { cocoJson, cutoutPng, overlayPng, save } from "./downloads.js";
import { byId, fillSelect } from "./elements.js";
import { Endpoint } from "./endpoint.js";
import { Gestures } from "./gestures.js";
import { KeyForm } from "./key_form.js";
import { ModelWatch } from "./model_watch.js";
import { ModelsPanel } from "./models_panel.js";
import { ModeTabs } from "./modes.js";
import { Notice } from "./notice.js";
import { Options } from "./options.js";
import { Picker } from "./picker.js";
import { ClickRequest, SegmentRequest, TilingRequest } from "./request.js";
import { ResultList } from "./results.js";
import { SnippetPanel } from "./snippet_panel.js";
import { Stage } from "./stage.js";
import { TextField } from "./text_field.js";
import { TilingFields } from "./tiling_fields.js";

const TOUCH = matchMedia("(pointer: coarse)");

const KEYS = {
  click:
    "With the keyboard: arrows move the crosshair (with Shift by one pixel), Enter adds, Shift+Enter removes, " +
    "N begins another object, Ctrl+Z undoes, Escape starts over.",
  box:
    "With the keyboard: arrows move the crosshair (with Shift by one pixel), Enter sets one corner and then the " +
    "other, Ctrl+Z undoes, Escape starts over.",
};

class Page {
  answer = null; // {segments} or {replaced}, with the picture they belong to
  clicks = new Clicks();
  opacities = { segments: 45, replaced: 100 };

  constructor() {
    const base = document.querySelector("meta[name=segserve-endpoint]").content;
    this.endpoint = new Endpoint(base);
    this.notice = new Notice();
    this.keyForm = new KeyForm(async (key) => {
      await this.endpoint.models({ key });
      this.endpoint.key = key;
    });
    this.snippets = new SnippetPanel(this.endpoint);
    this.stage = new Stage(byId("stage"), byId("drop"));
    this.results = new ResultList({ highlight: (item) => this.#highlight(item), visibility: () => this.#visibility() });
    this.options = new Options(byId("options"), byId("option-rows"));
    this.tabs = new ModeTabs(byId("modes"), (mode) => this.#modeChosen(mode));
    this.asker = new Asker(this.endpoint, this.notice, this.keyForm);
    this.text = new TextField(() => this.ask());
    this.tiling = new TilingFields(() => this.asker.keyed(() => this.endpoint.categories()), this.notice);
    this.gestures = new Gestures(this.stage, this.#gestureHandlers());
    this.stage.showClicks(this.clicks);
    this.panel = new ModelsPanel({
      opened: () => this.watch.look(),
      scale: async (...numbers) => {
        const model = await this.endpoint.scale(...numbers);
        this.watch.look();
        return model;
      },
    });
    this.watch = new ModelWatch(this.endpoint, {
      models: (models) => this.#modelsChanged(models),
      key: (message) => this.keyForm.wanted(message).then(() => this.watch.look()),
      trouble: (failure) => this.#sayTrouble(failure),
      often: () => this.panel.open,
    });
    this.picker = new Picker({
      picture: (picture) => this.#pictureChosen(picture),
      failure: (error) => this.notice.fail(error, "The picture could not be loaded."),
      loading: (text) => {
        this.notice.clearError();
        this.notice.say(text, "busy");
      },
      fetch: (url, signal) => this.asker.keyed(() => this.endpoint.picture(url, signal), signal),
    });
    this.#connect();
    this.watch.start();
  }

  get picture() {
    return this.stage.picture;
  }

  get mode() {
    return this.tabs.chosen;
  }

  get model() {
    const models = this.tabs.modelsOf(this.mode);
    return models.find(({ name }) => name === byId("model").value) ?? models[0] ?? null;
  }

  #connect() {
    byId("run").addEventListener("click", () => this.ask());
    byId("model").addEventListener("change", () => this.#showOptions());
    byId("cancel").addEventListener("click", () => {
      this.asker.cancel();
      this.picker.cancel();
      this.notice.say("Cancelled.", "idle");
    });
    byId("undo").addEventListener("click", () => this.#undo());
    byId("reset").addEventListener("click", () => this.#reset());
    byId("next-object").addEventListener("click", () => this.#nextObject());
    byId("take-away").addEventListener("click", ({ target }) => {
      this.gestures.takesAway = !this.gestures.takesAway;
      target.setAttribute("aria-pressed", this.gestures.takesAway);
    });
    byId("opacity").addEventListener("input", () => this.#setOpacity(Number(byId("opacity").value)));
    byId("show-labels").addEventListener("change", (event) => {
      this.stage.labels = event.target.checked;
      this.stage.invalidate();
    });
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest("input, select, textarea, dialog");
      if (!typing && this.mode?.clicks && (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
        event.preventDefault();
        this.#undo();
      }
    });
    this.#connectDownloads();
  }

  #connectDownloads() {
    const file = (id, ending, made) =>
      byId(id).addEventListener("click", async () => {
        try {
          save(await made(), `${this.picture.stem}-${ending}`);
        } catch (error) {
          this.notice.fail(error, "The file could not be made.");
        }
      });
    const view = () => ({ ...this.answer, opacity: this.stage.opacity, labels: this.stage.labels });
    file("download-overlay", "overlay.png", () => overlayPng(this.picture, view()));
    file("download-cutout", "cutout.png", () => cutoutPng(this.picture, this.answer.segments));
    file("download-coco", "coco.json", async () => cocoJson(this.picture, this.answer.segments));
  }

  #gestureHandlers() {
    return {
      point: (x, y, label) => this.#clicked(() => this.clicks.addPoint(x, y, label)),
      box: (box) => this.#clicked(() => this.clicks.addBox(box, this.mode.clicks === "box")),
      hover: (pixel) => {
        const item = pixel && this.stage.itemAt(pixel);
        if (item !== this.hovered) this.#highlight(item);
      },
      undo: () => this.#undo(),
      reset: () => this.#reset(),
      nextObject: () => this.#nextObject(),
      crosshair: (pixel, corner) => this.#sayCrosshair(pixel, corner),
    };
  }

  #modelsChanged(models) {
    const ready = models.filter((model) => model.ready).length;
    const pill = byId("served");
    pill.dataset.state = models.length && ready === models.length ? "ready" : "loading";
    pill.textContent =
      models.length === 0
        ? "No models yet"
        : ready === models.length
          ? `${ready} ${ready === 1 ? "model" : "models"} ready`
          : `${ready} of ${models.length} models ready`;
    this.panel.update(models);
    this.tabs.update(models);
    this.#showModels();
    if (!models.length) byId("mode-hint").textContent = "The service has no models yet. This page asks again.";
  }

  /** The models cannot be listed; null: they can. A screen reader says the same words once. */
  #sayTrouble(failure) {
    byId("trouble").hidden = !failure;
    const text = failure ? `${failure.message} This page asks again by itself.` : "";
    if (byId("trouble").textContent !== text) byId("trouble").textContent = text;
    if (!failure) return;
    byId("served").dataset.state = "error";
    byId("served").textContent = "No list of models";
  }

  #showModels() {
    const models = this.tabs.modelsOf(this.mode);
    const before = byId("model").value;
    fillSelect(
      byId("model"),
      models.map(({ name, ready }) => [name, ready ? name : `${name} (loading)`]),
    );
    byId("model-field").hidden = models.length < 2 || this.mode?.id === "tile";
    if (before !== byId("model").value) this.#showOptions();
  }

  /** Tiling has its parameters in the catalog. */
  #showOptions() {
    this.options.show(this.mode?.id === "tile" ? null : this.model);
  }

  #modeChosen(mode) {
    byId("mode-hint").textContent = (TOUCH.matches && mode?.touchHint) || (mode?.hint ?? "");
    byId("mode-panel").setAttribute("aria-labelledby", mode ? `mode-${mode.id}` : "modes");
    for (const element of document.querySelectorAll("[data-for]")) element.hidden = element.dataset.for !== mode?.id;
    byId("run").textContent = mode?.run ?? "Find";
    this.gestures.set(mode?.clicks ?? null);
    this.stage.canvas.dataset.clicks = mode?.clicks ?? "";
    this.stage.canvas.setAttribute("role", mode?.clicks ? "application" : "img");
    this.stage.showClicks(mode?.clicks ? this.clicks : null);
    byId("click-tools").hidden = !mode?.clicks || !this.picture;
    byId("take-away").hidden = mode?.clicks !== "click";
    byId("next-object").hidden = mode?.clicks !== "click";
    byId("keys").textContent = mode?.clicks ? KEYS[mode.clicks] : "";
    byId("keys").classList.toggle("visually-hidden", !mode?.clicks || !this.picture);
    this.#showModels();
    this.#showOptions();
    this.#showClickState();
    if (mode?.id === "tile") this.tiling.load();
  }

  #pictureChosen(picture) {
    this.asker.cancel();
    this.clicks.reset();
    this.#clearAnswer();
    this.notice.clearError();
    byId("drop").dataset.empty = "false";
    byId("welcome").hidden = true;
    this.stage.show(picture);
    this.stage.canvas.setAttribute(
      "aria-label",
      `Picture ${picture.name}, ${picture.width} by ${picture.height} pixels`,
    );
    byId("picture-name").textContent = `${picture.name} · ${picture.width} × ${picture.height}`;
    for (const button of byId("scenes").children) {
      button.setAttribute("aria-pressed", button.dataset.scene === picture.origin.scene?.name);
    }
    if (this.mode) this.#modeChosen(this.mode);
    this.text.showScene(picture.origin.scene);
    this.notice.say(this.mode?.clicks ? "Click on an object." : "Ready to ask.", "idle");
  }

  #clicked(change) {
    try {
      change();
    } catch (error) {
      this.notice.refuse(error);
      return;
    }
    this.#clicksChanged();
  }

  #undo() {
    if (!this.clicks.canUndo) return;
    this.clicks.undo();
    this.#clicksChanged();
  }

  #reset() {
    this.clicks.reset();
    this.#clicksChanged();
  }

  #nextObject() {
    try {
      this.clicks.nextObject();
    } catch (error) {
      this.notice.refuse(error);
      return;
    }
    this.notice.clearError();
    this.#showClickState();
    this.notice.say("The next click is about another object.", "idle");
  }

  #clicksChanged() {
    this.#showClickState();
    if (this.clicks.empty) {
      this.asker.cancel();
      this.#clearAnswer();
      this.notice.clearError();
      this.notice.say("No points. Click on an object.", "idle");
    } else {
      this.ask();
    }
  }

  #showClickState() {
    byId("points").textContent = this.clicks.describe();
    byId("undo").disabled = !this.clicks.canUndo;
    byId("reset").disabled = byId("next-object").disabled = this.clicks.empty;
    this.stage.invalidate();
  }

  #sayCrosshair([x, y], corner) {
    const item = this.stage.itemAt([x, y]);
    const place = `${Math.round(x)}, ${Math.round(y)}`;
    const box = corner && `Box from ${corner.map(Math.round).join(", ")} to ${place}`;
    this.notice.say(box ?? (item ? `${place}: ${item.label}` : place), "idle");
  }

  /** The request that the page stands for now. Throws an Error for people where something is missing. */
  request() {
    if (!this.mode) throw new Error("No model is ready yet.");
    if (!this.picture) throw new Error("There is no picture yet: choose one first, or a demo room.");
    const { id, clicks } = this.mode;
    if (id === "tile") {
      if (!this.tiling.category) throw new Error("The surfaces are not listed yet. Try again in a moment.");
      return new TilingRequest(this.picture, this.tiling.category, this.tiling.room);
    }
    const text = this.text.value;
    if (id === "text" && !text) throw new Error("Say what to find first, for example: sofa. red chair.");
    if (clicks && this.clicks.empty) throw new Error("Click on an object first, or drag a box around it.");
    const { picture, model, options } = this;
    if (clicks) {
      this.clicks.use(model.name);
      return new ClickRequest(picture, model, this.clicks.given, options.values);
    }
    return new SegmentRequest(picture, model, id === "text" ? { text } : {}, options.values);
  }

  /** Ask, show the answer; a newer request takes the place of one that is still running. */
  async ask() {
    this.notice.clearError();
    if (this.mode?.id === "tile") await this.tiling.load();
    let request;
    try {
      request = this.request();
    } catch (error) {
      this.notice.fail(error, "Something is missing.");
      return;
    }
    this.snippets.show(request);
    const { state } = this.clicks;
    await this.asker.ask(
      request,
      (answer) => {
        if (request instanceof ClickRequest) this.#keep(answer.segments, state, request);
        this.#show(answer);
      },
      () => this.#clearAnswer(),
    );
  }

  /** Keep the answer to a request about clicks with their state; what was shown of the same masks stays so. */
  #keep(segments, state, { options }) {
    const before = state.answer ?? this.answer?.segments;
    if (before) segments.showAs(before);
    state.answer = { items: segments.items, options };
  }

  #show(answer) {
    this.answer = answer;
    this.hovered = null;
    const { segments = null, replaced = null } = answer;
    if (segments) this.stage.showSegments(segments);
    else this.stage.showReplaced(replaced);
    this.results.show(segments);
    byId("view-tools").hidden = byId("downloads").hidden = segments !== null && segments.items.length === 0;
    byId("labels-field").hidden = segments?.kind !== "instances";
    byId("download-cutout").hidden = byId("download-coco").hidden = segments === null;
    const opacity = this.opacities[segments ? "segments" : "replaced"];
    byId("opacity").value = opacity;
    this.#setOpacity(opacity);
    this.#visibility();
  }

  #clearAnswer() {
    this.answer = null;
    this.hovered = null;
    this.stage.clear();
    this.results.show(null);
    byId("view-tools").hidden = byId("downloads").hidden = true;
  }

  #setOpacity(percent) {
    this.opacities[this.answer?.replaced ? "replaced" : "segments"] = percent;
    byId("opacity-value").textContent = `${percent} %`;
    this.stage.opacity = percent / 100;
    this.stage.invalidate();
  }

  #highlight(item) {
    this.hovered = item;
    this.stage.highlight(item);
    this.results.highlight(item);
  }

  #visibility() {
    this.stage.repaint();
    const nothing = this.answer?.segments?.shown.length === 0;
    byId("download-cutout").disabled = byId("download-coco").disabled = nothing;
  }
}

new Page();
