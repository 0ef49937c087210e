// RLE masks to run lengths: small ones at once, large ones in a Worker.

import { runsChecked } from "./rle.js";

const LARGE = 100_000; // characters of counts; below, starting a Worker takes longer than decoding

const WORKER = new URL("./rle_worker.js", import.meta.url).href;
/** Where the browser has Trusted Types, the page's only policy; it knows no other address. */
const policy = self.trustedTypes?.createPolicy("segserve-worker", { createScriptURL: () => WORKER });

let worker = null;
let lastId = 0;
const waiting = new Map();

/** Run lengths (Uint32Array) of each mask {size, counts}. Rejects with a RangeError for one that is none. */
export async function decodeAll(masks) {
  const characters = masks.reduce((sum, { counts }) => sum + counts.length, 0);
  if (characters < LARGE) return masks.map(({ size: [height, width], counts }) => runsChecked(counts, height, width));
  worker ??= start();
  const id = ++lastId;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, masks });
  });
}

function start() {
  const started = new Worker(address(), { type: "module" });
  started.addEventListener("message", ({ data: { id, runs, problem } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (problem) reject(new RangeError(problem));
    else resolve(runs);
  });
  started.addEventListener("error", () => {
    for (const { reject } of waiting.values()) reject(new Error("The masks could not be decoded: the worker failed."));
    waiting.clear();
    worker = null;
  });
  return started;
}

function address() {
  return policy ? policy.createScriptURL("") : WORKER;
}
