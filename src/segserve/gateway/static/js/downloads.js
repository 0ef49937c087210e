// Files made from the answer, at the picture's own size: overlay, cut-out, COCO.

import { cocoDocument } from "./coco.js";
import { drawChips, paintLayers } from "./layers.js";
import { make } from "./elements.js";

/** The picture with the shown segments (or another whole picture) over it, as PNG. */
export async function overlayPng(picture, { segments, replaced, opacity, labels }) {
  const { canvas, context } = copy(picture);
  if (replaced) lay(context, replaced, opacity);
  if (segments) {
    const { areas, outlines } = paintLayers(segments, 1);
    lay(context, areas, opacity);
    lay(context, outlines, Math.min(1, opacity * 3));
    const size = Math.max(12, Math.round(picture.width / 55));
    if (labels && segments.kind === "instances") drawChips(context, segments, 1, size);
  }
  return canvas.convertToBlob({ type: "image/png" });
}

/** The picture where segments are shown, and nothing (alpha 0) elsewhere, as PNG. */
export async function cutoutPng(picture, segments) {
  const { canvas, context } = copy(picture);
  const image = context.getImageData(0, 0, picture.width, picture.height);
  const { numbers } = segments.numbers(1);
  const words = new Uint32Array(image.data.buffer);
  for (let at = 0; at < numbers.length; at++) if (!numbers[at]) words[at] = 0;
  context.putImageData(image, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

export function cocoJson(picture, segments) {
  return new Blob([JSON.stringify(cocoDocument(picture, segments), null, 1)], { type: "application/json" });
}

/** Let the browser save a Blob under a name. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = make("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  // Not at once: the browser reads it after the click.
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function copy({ bitmap, width, height }) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return { canvas, context };
}

function lay(context, picture, opacity) {
  context.globalAlpha = opacity;
  context.drawImage(picture, 0, 0, context.canvas.width, context.canvas.height);
  context.globalAlpha = 1;
}
