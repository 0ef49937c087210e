// The clicks and boxes that say which objects are meant, with their history. Coordinates are pixels of the picture.
//
// A further click corrects the answer that people see: SAM 2 takes that answer's low-resolution mask along. Each state
// keeps its own answer, so that after an undo the next click goes with the mask of the state that is shown again.

// What one request may hold (docs/api.md).
const MOST_POINTS = 64; // of an object
const MOST_OBJECTS = 64; // so many boxes, too

const NOTHING = { points: [], box: null, earlier: null };

export class Clicks {
  #history = [{ objects: [NOTHING], answer: null }];
  #model = null;

  /** The state that stands now: what the answer to a request about it is kept for. */
  get state() {
    return this.#history.at(-1);
  }

  /**
   * [{points: [[x, y, label]], box: [x0, y0, x1, y1] or null, earlier: null or the answer that this corrects}], the
   * object that is being clicked last. earlier: {mask: low_res as it came, asked: the object as it was asked for,
   * options: of that request, reading: which of its answers, the best first}.
   */
  get objects() {
    return this.state.objects;
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

  /** label: 1 on the object, 0 beside it. Throws an Error for people where a request can hold no more of them. */
  addPoint(x, y, label) {
    if (this.objects.at(-1).points.length >= MOST_POINTS) {
      throw new Error(
        `An object takes up to ${MOST_POINTS} points, and this one has them: undo some, or begin the next object.`,
      );
    }
    const earlier = this.#corrected();
    this.#change((object) => ({ ...object, points: [...object.points, [round(x), round(y), label]], earlier }));
  }

  /**
   * Give the current object a box, or with ownObject begin one of its own. Boxes without an area are left out.
   * Throws an Error for people where a request can hold no more objects.
   */
  addBox([x0, y0, x1, y1], ownObject) {
    const box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)].map(round);
    if (box[2] - box[0] < 1 || box[3] - box[1] < 1) return false;
    const current = this.objects.at(-1);
    if (ownObject && (current.box || current.points.length)) {
      this.#checkRoom();
      this.#push([...this.objects, { ...NOTHING, box }]);
    } else {
      // Who draws another box means something else than what the first one gave.
      const earlier = current.box ? null : this.#corrected();
      this.#change((object) => ({ ...object, box, earlier }));
    }
    return true;
  }

  /** Throws an Error for people where a request can hold no more objects. */
  nextObject() {
    const { points, box } = this.objects.at(-1);
    if (!points.length && !box) return;
    this.#checkRoom();
    this.#push([...this.objects, NOTHING]);
  }

  undo() {
    if (this.canUndo) this.#history.pop();
  }

  reset() {
    this.#history = [{ objects: [NOTHING], answer: null }];
  }

  /** Masks are a model's own: another model is asked without those that are there. */
  use(model) {
    if (model === this.#model) return;
    this.#model = model;
    this.#history = this.#history.map(({ objects }) => ({
      objects: objects.map((object) => ({ ...object, earlier: null })),
      answer: null,
    }));
  }

  /** "2 objects: 3 points, 1 box". */
  describe() {
    const points = this.given.reduce((sum, object) => sum + object.points.length, 0);
    const boxes = this.given.filter(({ box }) => box).length;
    const parts = [count(points, "point"), count(boxes, "box", "boxes")].filter(Boolean).join(", ");
    if (!parts) return "No points";
    return this.given.length > 1 ? `${this.given.length} objects: ${parts}` : parts;
  }

  /**
   * What the next click on the current object corrects: of its readings the one that is shown, the best of several.
   * Until an answer is there, the one that its prompt corrects itself.
   */
  #corrected() {
    const { objects, answer } = this.state;
    const asked = objects.at(-1);
    const readings = answer?.items.filter(({ object }) => object === objects.length - 1) ?? [];
    const chosen = readings.find(({ visible }) => visible) ?? readings[0];
    if (!chosen?.lowRes) return asked.earlier;
    return { mask: chosen.lowRes, asked, options: answer.options, reading: readings.indexOf(chosen) };
  }

  #checkRoom() {
    if (this.objects.length < MOST_OBJECTS) return;
    throw new Error(
      `A request takes up to ${MOST_OBJECTS} objects, and these are that many: undo some, or start over.`,
    );
  }

  #change(change) {
    this.#push([...this.objects.slice(0, -1), change(this.objects.at(-1))]);
  }

  #push(objects) {
    this.#history.push({ objects, answer: null });
  }
}

/** The prompt about objects in its shortest form: points, boxes, or objects. */
export function promptOf(objects) {
  const corrects = objects.some(({ earlier }) => earlier);
  if (objects.length === 1 && !corrects) {
    const [{ points, box }] = objects;
    return { ...(points.length ? { points } : {}), ...(box ? { boxes: [box] } : {}) };
  }
  if (!corrects && objects.every(({ points }) => points.length === 0)) return { boxes: objects.map(({ box }) => box) };
  return {
    objects: objects.map(({ points, box, earlier }) => ({
      ...(points.length ? { points } : {}),
      ...(box ? { box } : {}),
      ...(earlier ? { mask: earlier.mask } : {}),
    })),
  };
}

const round = (value) => Math.round(value * 10) / 10;

function count(number, one, many = `${one}s`) {
  return number === 0 ? "" : `${number} ${number === 1 ? one : many}`;
}
