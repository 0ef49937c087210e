// Sends requests: one at a time, patiently while a model is loading, and again once a key is there.

import { Failure, patiently } from "./endpoint.js";
import { ClickRequest } from "./request.js";
import { Segments } from "./segments.js";

const UNREADABLE = "The answer cannot be read.";

export class Asker {
  #current = null; // the AbortController of the request that counts

  constructor(endpoint, notice, keyForm) {
    this.endpoint = endpoint;
    this.notice = notice;
    this.keyForm = keyForm;
  }

  /** Give up the request that is running, without a word. */
  cancel() {
    this.#current?.abort();
    this.#current = null;
  }

  /** Ask with a Request (js/request.js); then show({segments} or {replaced}), or clear() where there is no answer. */
  async ask(request, show, clear) {
    this.cancel();
    const current = (this.#current = new AbortController());
    const { signal } = current;
    const subject = request.model ?? "the server";
    this.notice.say(`Asking ${subject}…`, "busy");
    const started = performance.now();
    const wait = ({ message }, seconds) => {
      this.notice.say(`${message.replace(/ Try again.*$/, "")} Asking again in ${seconds} s…`, "waiting");
    };
    try {
      const answer = await this.keyed(
        () =>
          patiently(
            () => {
              this.notice.say(`Asking ${subject}…`, "busy");
              return this.endpoint.answer(request, signal);
            },
            signal,
            wait,
          ),
        signal,
      );
      const read = await readAnswer(answer, request);
      if (signal.aborted) return;
      show(read);
      this.notice.say(summary(read, (performance.now() - started) / 1000, request), "done");
    } catch (failure) {
      if (signal.aborted) return;
      clear();
      this.notice.fail(failure);
    } finally {
      if (this.#current === current) this.#current = null;
    }
  }

  /** Do what ask does; where a key is wanted, ask people for it and do it again. */
  async keyed(ask, signal) {
    for (;;) {
      try {
        return await ask();
      } catch (failure) {
        if (failure.status !== 401) throw failure;
        this.notice.say("The service asks for an API key.", "idle");
        await this.keyForm.wanted(failure.message, signal);
      }
    }
  }
}

async function readAnswer(answer, request) {
  try {
    return await (answer?.processed_images ? readTiling(answer, request) : readResult(answer, request));
  } catch (error) {
    if (error instanceof Failure) throw error;
    // RangeError: the masks' own reader has words for it.
    const reason = error instanceof RangeError ? ` (${error.message})` : "";
    throw new Failure(`${UNREADABLE}${reason} Is the server of this page's version?`, { code: "unreadable_answer" });
  }
}

async function readTiling({ processed_images: [image], errors }, { picture }) {
  const [error] = errors ?? [];
  if (!image) throw new Failure(error?.message ?? "The picture could not be tiled.", { code: error?.code });
  const bytes = Uint8Array.from(atob(image), (character) => character.charCodeAt(0));
  const replaced = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  checkSize(replaced, picture);
  return { replaced };
}

async function readResult(answer, request) {
  const [result] = answer?.results ?? [];
  if (!result) throw new Failure(`${UNREADABLE} It holds no result for the picture.`, { code: "unreadable_answer" });
  if (result.error) throw new Failure(result.error.message, { code: result.error.code });
  checkSize(result, request.picture);
  const segments = await Segments.fromResult(result, request.known);
  checkSize(segments, request.picture);
  return { segments, model: answer.timings_ms?.model };
}

/** What is about another picture than people see must not be laid over it. */
function checkSize({ width, height }, picture) {
  if (width === picture.width && height === picture.height) return;
  throw new Failure(
    `The answer is about a picture of ${width} × ${height} pixels, and this page shows one of ${picture.width} × ` +
      `${picture.height}: the server turns or reads the file otherwise. Save it anew, upright, as PNG or JPEG.`,
    { code: "other_size" },
  );
}

function summary({ segments, replaced, model }, seconds, request) {
  const time = `in ${seconds.toFixed(seconds < 10 ? 2 : 0)} s${model ? ` (model ${(model / 1000).toFixed(2)} s)` : ""}`;
  if (replaced) return `Laid ${time}.`;
  const { kind, items } = segments;
  const clicked = request instanceof ClickRequest;
  const wayOut = clicked ? "Another click or a box may help." : "Other words or a lower threshold may help.";
  if (!items.length) return `Nothing found ${time}. ${wayOut}`;
  if (clicked) {
    const objects = new Set(items.map(({ object }) => object)).size;
    const readings = items.length > objects ? `, ${items.length} readings,` : "";
    return `${objects} ${objects === 1 ? "object" : "objects"}${readings} ${time}`;
  }
  const noun = kind === "classes" ? ["class", "classes"] : ["instance", "instances"];
  return `${items.length} ${noun[items.length === 1 ? 0 : 1]} ${time}`;
}
