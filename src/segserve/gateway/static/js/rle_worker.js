// Decodes RLE masks beside the page, so that it stays quick while large answers arrive.

import { runsChecked } from "./rle.js";

self.addEventListener("message", ({ data: { id, masks } }) => {
  try {
    const runs = masks.map(({ size: [height, width], counts }) => runsChecked(counts, height, width));
    self.postMessage(
      { id, runs },
      runs.map((each) => each.buffer),
    );
  } catch (error) {
    self.postMessage({ id, problem: error.message });
  }
});
