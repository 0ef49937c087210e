// The API that the page asks, and how its failures read.

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

  models(signal) {
    return this.#json("v1/models", { signal }).then(({ models }) => models);
  }

  categories() {
    return this.#json("v1/categories").then(({ categories }) => categories);
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
      throw new Failure("The answer broke off, or is not JSON.", { status: response.status });
    }
  }

  async #send(path, { method = "GET", headers = {}, body, key = this.key, signal } = {}) {
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
      throw new Failure("The server cannot be reached. Is it running, and is this device online?", {
        code: "unreachable",
      });
    }
    if (!response.ok) throw await failureIn(response);
    return response;
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
  return new Failure(String(error.message ?? proxy ?? `The server answered ${status} ${response.statusText}.`), {
    status,
    code: String(error.code ?? status),
    requestId: String(error.request_id ?? response.headers.get("X-Request-Id") ?? ""),
    retryAfter: Number.isNaN(seconds) ? null : seconds,
  });
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
