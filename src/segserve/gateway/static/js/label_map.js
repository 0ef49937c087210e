// Label maps: a gray PNG whose values are classes, to run lengths for each class that it shows.

import { widen } from "./rle.js";

/** The classes, row by row, of a base64 PNG of up to 256 classes. */
export async function readLabelMap(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const blob = new Blob([bytes], { type: "image/png" });
  // Values must arrive as they are: no color management.
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const classes = new Uint8Array(width * height);
  for (let at = 0; at < classes.length; at++) classes[at] = data[at * 4];
  return { width, height, classes };
}

/** Run lengths of each class that occurs: a Map from the class to {runs, area, box}. */
export function runsByClass(classes, height, width) {
  const found = new Map();
  let start = 0;
  const close = (label, end) => {
    const seen = found.get(label) ?? { runs: [], end: 0, area: 0, box: [width, height, 0, 0] };
    found.set(label, seen);
    seen.runs.push(start - seen.end, end - start);
    seen.area += end - start;
    seen.end = end;
    widen(seen.box, start, end, height);
    start = end;
  };
  let current = classes[0];
  for (let x = 0, position = 0; x < width; x++) {
    for (let at = x; at < classes.length; at += width, position++) {
      if (classes[at] !== current) {
        close(current, position);
        current = classes[at];
      }
    }
  }
  close(current, height * width);
  for (const seen of found.values()) {
    if (seen.end < height * width) seen.runs.push(height * width - seen.end);
    seen.runs = Uint32Array.from(seen.runs);
  }
  return found;
}
