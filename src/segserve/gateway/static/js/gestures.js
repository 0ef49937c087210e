// Pointer and keyboard on the stage: clicks, boxes and hovering, whatever the device.

const DRAG = 5; // CSS pixels that a pointer moves before it draws a box
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Gestures {
  /** "click": points, and boxes by dragging; "box": boxes only; null: hovering only. */
  mode = null;
  takesAway = false; // whether a plain click does what a right click does, for fingers
  #start = null; // {pixel, x, y, id} of a pressed pointer
  #corner = null; // the first corner of a box made with the keyboard

  /** on: {point(x, y, label), box(box), hover(pixel or null), undo(), reset(), nextObject(), crosshair(pixel, corner)} */
  constructor(stage, on) {
    this.stage = stage;
    this.on = on;
    const { canvas } = stage;
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#release(event));
    canvas.addEventListener("pointercancel", () => this.#forget());
    canvas.addEventListener("pointerleave", () => on.hover(null));
    canvas.addEventListener("contextmenu", (event) => {
      if (this.mode) event.preventDefault();
    });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#setCrosshair(null));
  }

  set(mode) {
    this.mode = mode;
    this.#forget();
    this.#corner = null;
    this.#setCrosshair(null);
  }

  #press(event) {
    if (!this.mode || !this.stage.picture || (event.button !== 0 && event.button !== 2)) return;
    this.#setCrosshair(null);
    this.stage.canvas.setPointerCapture(event.pointerId);
    this.#start = { pixel: this.stage.pixelAt(event), x: event.clientX, y: event.clientY, id: event.pointerId };
  }

  #move(event) {
    if (!this.stage.picture) return;
    const start = this.#start;
    if (!start || start.id !== event.pointerId) {
      this.on.hover(this.stage.pixelAt(event));
      return;
    }
    if (
      event.buttons === 1 &&
      (this.stage.draft || Math.hypot(event.clientX - start.x, event.clientY - start.y) > DRAG)
    ) {
      this.stage.draft = [...start.pixel, ...this.stage.pixelAt(event)];
      this.stage.invalidate();
    }
  }

  #release(event) {
    const { draft } = this.stage;
    const start = this.#start;
    this.#forget();
    if (!start) return;
    if (draft) this.on.box(draft);
    else if (this.mode === "click") this.on.point(...start.pixel, this.#label(event.button === 2 || event.altKey));
  }

  /** 1 on the object, 0 beside it. */
  #label(away) {
    return away || this.takesAway ? 0 : 1;
  }

  #forget() {
    this.#start = null;
    this.stage.draft = null;
    this.stage.invalidate();
  }

  #key(event) {
    if (!this.mode || !this.stage.picture) return;
    const plain = !event.ctrlKey && !event.metaKey;
    if (plain && event.key in ARROWS) this.#moveCrosshair(ARROWS[event.key], event.shiftKey);
    else if (plain && (event.key === "Enter" || event.key === " ")) this.#enter(event);
    else if (!plain && event.key.toLowerCase() === "z") this.on.undo();
    else if (event.key === "Escape") this.#escape();
    else if (plain && event.key.toLowerCase() === "n") this.on.nextObject();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** By a fiftieth of the picture's longer side, or with Shift by one pixel. */
  #moveCrosshair([dx, dy], fine) {
    const { width, height } = this.stage.picture;
    const [x, y] = this.stage.crosshair ?? [width / 2, height / 2];
    const step = fine ? 1 : Math.max(1, Math.round(Math.max(width, height) / 50));
    this.#setCrosshair(this.stage.crosshair ? this.stage.within([x + dx * step, y + dy * step]) : [x, y]);
    if (this.#corner) this.stage.draft = [...this.#corner, ...this.stage.crosshair];
    this.on.crosshair(this.stage.crosshair, this.#corner);
  }

  #enter({ shiftKey, altKey }) {
    const { crosshair } = this.stage;
    if (!crosshair) {
      this.#moveCrosshair([0, 0], true);
    } else if (this.mode === "click") {
      this.on.point(...crosshair, this.#label(shiftKey || altKey));
    } else if (!this.#corner) {
      this.#corner = crosshair;
      this.on.crosshair(crosshair, this.#corner);
    } else {
      const box = [...this.#corner, ...crosshair];
      this.#corner = null;
      this.#forget();
      this.on.box(box);
    }
  }

  #escape() {
    if (!this.#corner) this.on.reset();
    this.#corner = null;
    this.#forget();
  }

  #setCrosshair(pixel) {
    this.stage.crosshair = pixel;
    this.stage.invalidate();
  }
}
