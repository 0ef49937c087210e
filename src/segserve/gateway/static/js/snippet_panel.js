// The last request as code, to be copied.

import { byId } from "./elements.js";
import { curl, python } from "./snippets.js";

export class SnippetPanel {
  constructor(endpoint) {
    this.endpoint = endpoint;
    for (const name of ["curl", "python"]) {
      const button = byId(`copy-${name}`);
      button.addEventListener("click", () => this.#copy(byId(`snippet-${name}`), button));
    }
  }

  /** request: of js/request.js. */
  show(request) {
    const hasKey = this.endpoint.key !== "";
    byId("snippets").hidden = false;
    byId("snippet-curl").textContent = curl(request, this.endpoint.base, hasKey);
    byId("snippet-python").textContent = python(request, this.endpoint.base, hasKey);
  }

  /** Pages without https may not write to the clipboard: there the text is selected. */
  async #copy(text, button) {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }
}
