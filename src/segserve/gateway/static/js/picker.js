// Where pictures come from: a file, the clipboard, something dropped, an address, a demo room.

import { byId, make } from "./elements.js";
import { nameOf, Picture } from "./picture.js";
import { SCENES } from "./scenes.js";

/** The first address of a list, one a line, with comments behind #; empty where the first entry is something else. */
function firstUrl(list) {
  const lines = list.split(/\r?\n/).map((line) => line.trim());
  const first = lines.find((line) => line && !line.startsWith("#")) ?? "";
  return onlyUrl(first);
}

/** A text that is an address and nothing else, else empty. */
function onlyUrl(text) {
  const trimmed = text.trim();
  return /^https?:\/\/\S+$/.test(trimmed) ? trimmed : "";
}

export class Picker {
  #current = null; // the AbortController of what is being loaded

  /** on: {picture(picture), failure(error), loading(text), fetch(url, signal): Promise<Blob>} */
  constructor(on) {
    this.on = on;
    const file = byId("file");
    byId("choose").addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      this.#file(file.files);
      file.value = ""; // The same file may be chosen again.
    });
    byId("url-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#url(byId("url").value.trim());
    });
    byId("scenes").append(...SCENES.map((scene) => this.#sceneButton(scene)));
    document.addEventListener("paste", (event) => this.#transfer(event, event.clipboardData));
    this.#acceptDrops();
  }

  /** Give up what is being loaded, without a word. */
  cancel() {
    this.#current?.abort();
  }

  #sceneButton(scene) {
    const { name, title } = scene;
    const button = make(
      "button",
      { type: "button", dataset: { scene: name }, title },
      make("img", { src: `demo-scenes/${name}.jpg`, alt: title, width: 112, height: 84, loading: "lazy" }),
    );
    button.addEventListener("click", () =>
      this.#load(`${name}.jpg`, async (signal) => {
        const url = new URL(`demo-scenes/${name}.jpg`, document.baseURI).href;
        const response = await fetch(url, { signal });
        if (!response.ok) throw new Error(`The demo room cannot be had: the server answered ${response.status}.`);
        return Picture.fromBlob(await response.blob(), `${name}.jpg`, { kind: "scene", url, scene });
      }),
    );
    return button;
  }

  #acceptDrops() {
    const zone = byId("drop");
    let depth = 0;
    const mark = (change) => {
      depth = Math.max(0, depth + change);
      zone.classList.toggle("over", depth > 0);
    };
    document.addEventListener("dragenter", () => mark(1));
    document.addEventListener("dragleave", () => mark(-1));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      depth = 0;
      mark(0);
      event.preventDefault();
      this.#transfer(event, event.dataTransfer);
    });
  }

  /** What was pasted or dropped: a file first, else an address. */
  #transfer(event, data) {
    if (data.files.length) {
      event.preventDefault();
      this.#file(data.files);
      return;
    }
    const typing = event.type === "paste" && event.target.closest?.("input, textarea");
    const url = firstUrl(data.getData("text/uri-list")) || onlyUrl(data.getData("text/plain"));
    if (!typing && url) {
      byId("url").value = url;
      this.#url(url);
    }
  }

  #file(files) {
    const [file] = files;
    if (file) this.#load(file.name, () => Picture.fromBlob(file, file.name || "pasted.png"));
  }

  #url(url) {
    if (!URL.canParse(url)) {
      this.on.failure(new Error("This is no address of a picture: expected https://…"));
      return;
    }
    const name = nameOf(url);
    this.#load(name, async (signal) => Picture.fromBlob(await this.on.fetch(url, signal), name, { kind: "url", url }));
  }

  /** Only the picture that was chosen last counts. */
  async #load(name, load) {
    this.cancel();
    const { signal } = (this.#current = new AbortController());
    this.on.loading(`Loading ${name}…`);
    try {
      const picture = await load(signal);
      if (!signal.aborted) this.on.picture(picture);
    } catch (error) {
      if (!signal.aborted) this.on.failure(error);
    }
  }
}
