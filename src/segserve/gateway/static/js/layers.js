// Segments as pictures to lay over the picture: areas, outlines, a spotlight on one item, and chips with labels.

import { cssColor } from "./elements.js";
import { inkOn } from "./colors.js";

const LARGEST = 2_500_000; // pixels of a layer on the screen

/** The stride with which segments are painted for the screen. */
export function screenStride({ width, height }) {
  return Math.max(1, Math.ceil(Math.sqrt((width * height) / LARGEST)));
}

/** Two canvases of the same size: areas (opaque; draw them with the opacity wanted) and outlines. */
export function paintLayers(segments, stride) {
  const { numbers, width, height } = segments.numbers(stride);
  const colors = [0, ...segments.items.map(({ color }) => word(color, 255))];
  const areas = pixels(width, height, (words) => {
    for (let at = 0; at < numbers.length; at++) words[at] = colors[numbers[at]];
  });
  const outlines = pixels(width, height, (words) => {
    outline(numbers, width, height, thickness(width, height), (at, number) => (words[at] = colors[number]));
  });
  return { areas, outlines, numbers, width, height };
}

/** A canvas that darkens all but one item and draws its outline. */
export function paintSpotlight(segments, item, stride) {
  const { numbers, width, height } = segments.numbers(stride, [item]);
  const shadow = word([0, 0, 0], 120);
  const line = word(item.color, 255);
  return pixels(width, height, (words) => {
    for (let at = 0; at < numbers.length; at++) if (!numbers[at]) words[at] = shadow;
    outline(numbers, width, height, thickness(width, height), (at) => (words[at] = line));
  });
}

/** Draw chips with the shown items' labels; scale: canvas pixels for one of the picture; size: of the letters. */
export function drawChips(context, segments, scale, size) {
  const { width, height } = context.canvas;
  const taken = [];
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const { label, score, box, color } of segments.shown) {
    const text = score === null ? label : `${label} ${score.toFixed(2)}`;
    const chip = { width: context.measureText(text).width + size, height: size * 1.6 };
    const spot = place(
      chip,
      box.map((value) => value * scale),
      taken,
      width,
      height,
    );
    taken.push(spot);
    context.fillStyle = cssColor(color);
    context.beginPath();
    context.roundRect(spot.x, spot.y, chip.width, chip.height, size / 3);
    context.fill();
    context.fillStyle = cssColor(inkOn(color));
    context.fillText(text, spot.x + size / 2, spot.y + chip.height / 2);
  }
}

/** A free spot for a chip at its box's top left corner, or below what lies there. */
function place(chip, [x0, y0, , y1], taken, width, height) {
  const x = Math.max(0, Math.min(x0, width - chip.width));
  const overlaps = (y) =>
    taken.some(
      (other) =>
        x < other.x + other.width &&
        other.x < x + chip.width &&
        y < other.y + other.height &&
        other.y < y + chip.height,
    );
  const first = Math.max(0, Math.min(y0, height - chip.height));
  for (let y = first; y + chip.height <= Math.min(height, Math.max(y1, y0 + 5 * chip.height)); y += chip.height / 2) {
    if (!overlaps(y)) return { x, y, ...chip };
  }
  return { x, y: first, ...chip };
}

function thickness(width, height) {
  return Math.max(1, Math.round(Math.max(width, height) / 500));
}

/** Call mark(position, number) for the pixels of each area that lie within reach of its edge. */
function outline(numbers, width, height, reach, mark) {
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      const number = numbers[at];
      if (!number) continue;
      const differs =
        (x >= reach && numbers[at - reach] !== number) ||
        (x + reach < width && numbers[at + reach] !== number) ||
        (y >= reach && numbers[at - reach * width] !== number) ||
        (y + reach < height && numbers[at + reach * width] !== number);
      if (differs) mark(at, number);
    }
  }
}

/** A pixel's four bytes as one number, the first one lowest, as all machines with browsers have it. */
function word([red, green, blue], alpha) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** A canvas whose pixels fill(words) writes. */
function pixels(width, height, fill) {
  const image = new ImageData(width, height);
  fill(new Uint32Array(image.data.buffer));
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
