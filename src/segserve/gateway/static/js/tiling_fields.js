// Surface and room of product tiling, from the server's catalog.

import { byId, fillSelect } from "./elements.js";

export class TilingFields {
  #categories = [];
  #loading = null; // the Promise of a list on its way

  /** list(): Promise of the categories. */
  constructor(list, notice) {
    this.list = list;
    this.notice = notice;
    byId("category").addEventListener("change", () => this.#showRooms());
  }

  get category() {
    return byId("category").value;
  }

  get room() {
    return byId("room").value;
  }

  /** List the categories, once; failures are told. */
  async load() {
    if (this.#categories.length) return;
    this.#loading ??= this.#load().finally(() => (this.#loading = null));
    await this.#loading;
  }

  async #load() {
    try {
      this.#categories = await this.list();
    } catch (failure) {
      this.notice.fail(failure, "The surfaces could not be listed.");
      return;
    }
    fillSelect(
      byId("category"),
      this.#categories.map(({ name }) => [name, name]),
    );
    this.#showRooms();
  }

  #showRooms() {
    const rooms = this.#categories.find(({ name }) => name === this.category)?.rooms ?? [];
    fillSelect(byId("room"), [["", "any room"], ...rooms.map((room) => [room, room])]);
    byId("room").disabled = rooms.length === 0;
  }
}
