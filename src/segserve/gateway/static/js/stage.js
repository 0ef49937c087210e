// The canvas: the picture, what was found on it, the clicks, and the keyboard's crosshair.

import { drawChips, paintLayers, paintSpotlight, screenStride } from "./layers.js";

const GREEN = "#16a34a";
const RED = "#dc2626";

export class Stage {
  opacity = 0.45;
  labels = true;
  crosshair = null; // [x, y] while the keyboard is used
  draft = null; // a box being drawn
  #picture = null;
  #segments = null;
  #layers = null;
  #spotlight = null;
  #replaced = null; // a whole picture laid over it (tiling)
  #clicks = null;
  #scheduled = false;

  constructor(canvas, box) {
    this.canvas = canvas;
    this.box = box;
    this.context = canvas.getContext("2d");
    new ResizeObserver(() => this.#fit()).observe(box);
    addEventListener("resize", () => this.#fit());
  }

  get picture() {
    return this.#picture;
  }

  show(picture) {
    this.#picture = picture;
    this.crosshair = this.draft = null;
    Object.assign(this.canvas.dataset, { pictureWidth: picture.width, pictureHeight: picture.height });
    this.canvas.hidden = false;
    this.clear();
    this.#fit();
  }

  /** Take away what was found. */
  clear() {
    this.#segments = this.#layers = this.#spotlight = this.#replaced = null;
    this.invalidate();
  }

  showSegments(segments) {
    this.clear();
    this.#segments = segments;
    this.repaint();
  }

  /** Lay a whole picture over the picture. */
  showReplaced(bitmap) {
    this.clear();
    this.#replaced = bitmap;
  }

  showClicks(clicks) {
    this.#clicks = clicks;
    this.invalidate();
  }

  /** Paint the segments anew, after other ones of them are shown. */
  repaint() {
    if (this.#segments) this.#layers = paintLayers(this.#segments, screenStride(this.#segments));
    this.#spotlight = null;
    this.invalidate();
  }

  /** Darken all but one item; null: none. */
  highlight(item) {
    const segments = this.#segments;
    this.#spotlight = segments && item ? paintSpotlight(segments, item, screenStride(segments)) : null;
    this.invalidate();
  }

  /** The shown item at a pixel of the picture, or null. */
  itemAt([x, y]) {
    if (!this.#layers || !this.#picture) return null;
    const { numbers, width, height } = this.#layers;
    const column = Math.floor((x / this.#picture.width) * width);
    const row = Math.floor((y / this.#picture.height) * height);
    const number = column >= 0 && column < width && row >= 0 && row < height ? numbers[row * width + column] : 0;
    return number ? this.#segments.items[number - 1] : null;
  }

  /** The pixel of the picture, not rounded, under a pointer event; always within the picture. */
  pixelAt({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return this.within([
      ((clientX - left) / width) * this.#picture.width,
      ((clientY - top) / height) * this.#picture.height,
    ]);
  }

  within([x, y]) {
    const { width, height } = this.#picture;
    return [Math.min(Math.max(x, 0), width - 0.01), Math.min(Math.max(y, 0), height - 0.01)];
  }

  invalidate() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      if (this.#picture) this.#draw();
    });
  }

  /** As large as the box and the window allow, in the picture's proportions. */
  #fit() {
    if (!this.#picture) return;
    const { width, height } = this.#picture;
    const tallest = Math.max(240, innerHeight * (innerWidth < 800 ? 0.6 : 0.72));
    const shown = Math.min(this.box.clientWidth, (tallest * width) / height, Math.max(width, 960));
    this.canvas.style.width = `${Math.round(shown)}px`;
    this.canvas.style.height = `${Math.round((shown * height) / width)}px`;
    this.canvas.width = Math.round(shown * devicePixelRatio);
    this.canvas.height = Math.round(((shown * height) / width) * devicePixelRatio);
    this.invalidate();
  }

  #draw() {
    const { context, canvas } = this;
    const whole = [0, 0, canvas.width, canvas.height];
    context.imageSmoothingQuality = "high";
    context.clearRect(...whole);
    context.drawImage(this.#picture.bitmap, ...whole);
    if (this.#replaced) this.#lay(this.#replaced, this.opacity);
    if (this.#spotlight) {
      this.#lay(this.#spotlight, 1);
    } else if (this.#layers) {
      this.#lay(this.#layers.areas, this.opacity);
      this.#lay(this.#layers.outlines, Math.min(1, this.opacity * 3));
    }
    const scale = canvas.width / this.#picture.width;
    if (this.#segments && this.labels && this.#segments.kind === "instances" && !this.#spotlight) {
      drawChips(context, this.#segments, scale, 12 * devicePixelRatio);
    }
    context.save();
    context.scale(devicePixelRatio, devicePixelRatio);
    this.#drawClicks(scale / devicePixelRatio);
    context.restore();
  }

  #lay(picture, opacity) {
    this.context.globalAlpha = opacity;
    this.context.drawImage(picture, 0, 0, this.canvas.width, this.canvas.height);
    this.context.globalAlpha = 1;
  }

  #drawClicks(scale) {
    const objects = this.#clicks?.objects ?? [];
    for (const { points, box } of objects) {
      if (box) this.#drawBox(box.map((value) => value * scale));
      // The next click is about the last object: the points of the others step back.
      this.context.globalAlpha = points === objects.at(-1).points ? 1 : 0.5;
      for (const [x, y, label] of points) this.#drawPoint(x * scale, y * scale, label);
      this.context.globalAlpha = 1;
    }
    if (this.draft) this.#drawBox(this.draft.map((value) => value * scale));
    if (this.crosshair) this.#drawCrosshair(this.crosshair.map((value) => value * scale));
  }

  #drawPoint(x, y, label) {
    const { context } = this;
    context.beginPath();
    context.arc(x, y, 8, 0, 2 * Math.PI);
    context.fillStyle = label ? GREEN : RED;
    context.fill();
    this.#stroke("#fff", 2);
    context.beginPath();
    context.moveTo(x - 4, y);
    context.lineTo(x + 4, y);
    if (label) {
      context.moveTo(x, y - 4);
      context.lineTo(x, y + 4);
    }
    this.#stroke("#fff", 2);
  }

  #drawBox([x0, y0, x1, y1]) {
    this.context.beginPath();
    this.context.rect(x0, y0, x1 - x0, y1 - y0);
    this.#stroke("#000", 2);
    this.#stroke("#fff", 2, [6, 4]);
  }

  #drawCrosshair([x, y]) {
    const { context } = this;
    context.beginPath();
    for (const [dx, dy] of [
      [1, 0],
      [-1, 0],
      [0, 1],
      [0, -1],
    ]) {
      context.moveTo(x + 4 * dx, y + 4 * dy);
      context.lineTo(x + 18 * dx, y + 18 * dy);
    }
    this.#stroke("#000", 4);
    this.#stroke("#fff", 2);
  }

  #stroke(color, width, dash = []) {
    this.context.strokeStyle = color;
    this.context.lineWidth = width;
    this.context.setLineDash(dash);
    this.context.stroke();
  }
}
