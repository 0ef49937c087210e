// A request as it goes to the API, and as the snippets show it.

import { promptOf } from "./clicks.js";

// An answer with low_res has up to three masks for each object, of 175 kB each for the published models.
const MOST_CORRECTED = 16;

/** A native request: one picture, a model, a prompt, parameters. */
export class SegmentRequest {
  path = "v1/segment";

  /** model: as /v1/models describes it. */
  constructor(picture, model, prompt, parameters) {
    this.picture = picture;
    this.model = model.name;
    this.returns = model.returns;
    this.known = model.classes;
    this.prompt = prompt;
    this.parameters = parameters;
  }

  /** The JSON part. */
  get body() {
    return {
      model: this.model,
      ...(Object.keys(this.prompt).length ? { prompt: this.prompt } : {}),
      ...(Object.keys(this.parameters).length ? { parameters: this.parameters } : {}),
    };
  }

  async content() {
    const form = new FormData();
    form.append("request", JSON.stringify(this.body));
    form.append("image", this.picture.blob, "picture");
    return { body: form };
  }
}

/** A native request about what was clicked on; it asks for masks that the next click corrects, where the model has them. */
export class ClickRequest extends SegmentRequest {
  /** objects: of js/clicks.js; options: the parameters that people chose. */
  constructor(picture, model, objects, options) {
    const corrected = model.parameters.includes("low_res") && objects.length <= MOST_CORRECTED;
    super(picture, model, promptOf(objects), corrected ? { ...options, low_res: true } : options);
    this.described = model;
    this.objects = objects;
    this.options = options;
  }

  /** Whether it sends masks of earlier answers. */
  get corrects() {
    return this.objects.some(({ earlier }) => earlier);
  }

  /** The same question without the masks, which are thousands of letters, neither sent nor asked for. */
  get withoutMasks() {
    const objects = this.objects.map((object) => ({ ...object, earlier: null }));
    return new SegmentRequest(this.picture, this.described, promptOf(objects), this.options);
  }
}

/** A product tiling request. */
export class TilingRequest {
  path = "invocations";

  constructor(picture, category, room) {
    this.picture = picture;
    this.category = category;
    this.room = room;
  }

  /** The JSON body around a picture's base64 text. */
  body(base64) {
    return {
      categoryname: this.category,
      ...(this.room ? { roomName: this.room } : {}),
      images: [{ _id: "picture", base64 }],
    };
  }

  async content() {
    const body = JSON.stringify(this.body(await base64Of(this.picture.blob)));
    return { headers: { "Content-Type": "application/json" }, body };
  }
}

function base64Of(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.slice(reader.result.indexOf(",") + 1)));
    reader.addEventListener("error", () => reject(new Error("The picture can no longer be read. Choose it again.")));
    reader.readAsDataURL(blob);
  });
}
