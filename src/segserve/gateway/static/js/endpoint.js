// The API that the page asks, and how its failures read.

import { problemOf } from "./api_key.js";

const LISTING_MS = 30_000; // for the list of models, which the server answers at once
const PATIENCE_MS = 180_000; // how long a service that is loading or busy is asked again

export class Failure extends Error {
  constructor(message, { status = 0, code = "", requestId = "", retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.requestId = requestId;
    this.retryAfter = retryAfter; // seconds
  }

  get passing() {
    return this.status === 503 || this.status === 429;
  }
}

export class Endpoint {
  key = "";

  /** base: an address, or empty for the page's own. */
  constructor(base) {
    this.base = base ? `${base.replace(/\/+$/, "")}/` : new URL(".", document.baseURI).href;
  }

  url(path) {
    return new URL(path, this.base).href;
  }

  /** The models, as /v1/models lists them; key: to be tried instead of the one there is. */
  async models({ key } = {}) {
    const answer = await this.#json("v1/models", { key, signal: AbortSignal.timeout(LISTING_MS) });
    if (!Array.isArray(answer?.models)) throw this.#foreign("v1/models", "answered without a list of models.");
    return answer.models;
  }

  async categories() {
    const answer = await this.#json("v1/categories");
    if (!Array.isArray(answer?.categories)) throw this.#foreign("v1/categories", "answered without categories.");
    return answer.categories;
  }

  /** The bytes of a picture that the server fetches. */
  async picture(url, signal) {
    const response = await this.#send("v1/picture", { ...json({ url }), signal });
    return response.blob();
  }

  /** Ask with a Request of js/request.js. */
  async answer(request, signal) {
    return this.#json(request.path, { method: "POST", ...(await request.content()), signal });
  }

  /** Set a model's number of workers, with the admin key. */
  scale(name, fewest, most, adminKey) {
    const query = new URLSearchParams({ min_workers: fewest, max_workers: most });
    return this.#json(`v1/models/${encodeURIComponent(name)}?${query}`, { method: "PUT", key: adminKey || this.key });
  }

  async #json(path, options) {
    const response = await this.#send(path, options);
    try {
      return await response.json();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (error.name === "TimeoutError") throw this.#late(path);
      throw this.#foreign(path, "answered what is not JSON, or its answer broke off.");
    }
  }

  async #send(path, { method = "GET", headers = {}, body, key = this.key, signal } = {}) {
    const problem = problemOf(key);
    if (problem) throw new Failure(problem, { code: "invalid_key" });
    let response;
    try {
      response = await fetch(this.url(path), {
        method,
        body,
        signal,
        headers: key ? { ...headers, "X-API-Key": key } : headers,
        cache: "no-store",
        credentials: "omit",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (error.name === "TimeoutError") throw this.#late(path);
      throw this.#unreachable();
    }
    if (!response.ok) throw await failureIn(response);
    return response;
  }

  #unreachable() {
    const { origin } = new URL(this.base);
    // A browser tells a page nothing of why it may not read an answer.
    const message =
      origin === location.origin
        ? "The server cannot be reached. Is it running, and is this device online?"
        : `The server at ${origin} cannot be reached. Is it running, is this device online, and does it allow this ` +
          `page (there, SEGSERVE_CORS_ORIGINS=${location.origin})?`;
    return new Failure(message, { code: "unreachable" });
  }

  #late(path) {
    const seconds = LISTING_MS / 1000;
    return new Failure(`${this.url(path)} does not answer within ${seconds} s. The server may be starting, or busy.`, {
      code: "timeout",
    });
  }

  /** What was answered is none of the API's answers. */
  #foreign(path, said) {
    return new Failure(`${this.url(path)} ${said} Is that the address of segserve's API?`, { code: "foreign_answer" });
  }
}

function json(value) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
}

async function failureIn(response) {
  const { status } = response;
  const told = await response.json().catch(() => ({}));
  const error = told?.error ?? {};
  const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  // A proxy in front of the API may refuse what is too large for it, in words of its own or none.
  const proxy = status === 413 ? "The request is too large for this server. Take a smaller picture." : null;
  return new Failure(String(error.message ?? proxy ?? unexplained(status, response.statusText)), {
    status,
    code: String(error.code ?? status),
    requestId: String(error.request_id ?? response.headers.get("X-Request-Id") ?? ""),
    retryAfter: Number.isNaN(seconds) ? null : seconds,
  });
}

/** Of an answer without words: it is a proxy's, or that of another service. */
function unexplained(status, text) {
  const wayOut =
    status >= 500 ? "It may be starting, or down: its log says more." : "Is its address that of segserve's API?";
  return `The server answered ${`${status} ${text}`.trim()}. ${wayOut}`;
}

/** Ask, and ask again while the service is loading or busy; onWait(failure, seconds) each second until then. */
export async function patiently(ask, signal, onWait) {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await ask();
    } catch (failure) {
      if (!failure.passing || performance.now() > end) throw failure;
      for (let seconds = Math.max(1, failure.retryAfter ?? 3); seconds > 0; seconds--) {
        onWait(failure, seconds);
        await pause(1000, signal);
      }
    }
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}
