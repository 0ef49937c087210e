// The clicks and boxes that say which objects are meant, with their history. Coordinates are pixels of the picture.

const EMPTY = [{ points: [], box: null }];

export class Clicks {
  #history = [EMPTY];

  /** [{points: [[x, y, label]], box: [x0, y0, x1, y1] or null}], the object that is being clicked last. */
  get objects() {
    return this.#history.at(-1);
  }

  /** The objects that say anything. */
  get given() {
    return this.objects.filter(({ points, box }) => points.length || box);
  }

  get empty() {
    return this.given.length === 0;
  }

  get canUndo() {
    return this.#history.length > 1;
  }

  /** label: 1 on the object, 0 beside it. */
  addPoint(x, y, label) {
    this.#change((object) => ({ ...object, points: [...object.points, [round(x), round(y), label]] }));
  }

  /** Give the current object a box, or with ownObject begin one of its own. Boxes without an area are left out. */
  addBox([x0, y0, x1, y1], ownObject) {
    const box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)].map(round);
    if (box[2] - box[0] < 1 || box[3] - box[1] < 1) return false;
    const current = this.objects.at(-1);
    if (ownObject && (current.box || current.points.length)) this.#push([...this.objects, { points: [], box }]);
    else this.#change((object) => ({ ...object, box }));
    return true;
  }

  nextObject() {
    const { points, box } = this.objects.at(-1);
    if (points.length || box) this.#push([...this.objects, { points: [], box: null }]);
  }

  undo() {
    if (this.canUndo) this.#history.pop();
  }

  reset() {
    this.#history = [EMPTY];
  }

  /** The prompt in its shortest form: points, boxes, or objects. */
  prompt() {
    const given = this.given;
    if (given.length === 1) {
      const [{ points, box }] = given;
      return { ...(points.length ? { points } : {}), ...(box ? { boxes: [box] } : {}) };
    }
    if (given.every(({ points }) => points.length === 0)) return { boxes: given.map(({ box }) => box) };
    const objects = given.map(({ points, box }) => ({ ...(points.length ? { points } : {}), ...(box ? { box } : {}) }));
    return { objects };
  }

  /** "2 objects: 3 points, 1 box". */
  describe() {
    const points = this.given.reduce((sum, object) => sum + object.points.length, 0);
    const boxes = this.given.filter(({ box }) => box).length;
    const parts = [count(points, "point"), count(boxes, "box", "boxes")].filter(Boolean).join(", ");
    if (!parts) return "No points";
    return this.given.length > 1 ? `${this.given.length} objects: ${parts}` : parts;
  }

  #change(change) {
    this.#push([...this.objects.slice(0, -1), change(this.objects.at(-1))]);
  }

  #push(objects) {
    this.#history.push(objects);
  }
}

const round = (value) => Math.round(value * 10) / 10;

function count(number, one, many = `${one}s`) {
  return number === 0 ? "" : `${number} ${number === 1 ? one : many}`;
}
