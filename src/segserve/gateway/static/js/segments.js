// What an answer found: items with a label, a color and run lengths, be they instances or classes of a label map.

import { classColors, instanceColors } from "./colors.js";
import { decodeAll } from "./decoder.js";
import { Failure } from "./endpoint.js";
import { readLabelMap, runsByClass } from "./label_map.js";
import { countsOf, paint } from "./rle.js";

export class Segments {
  /**
   * items: {index, label, score (null of classes), object (of clicks, else null), lowRes (of clicks, else null), box
   * (as answered: a detector's is not that of the mask), area, counts (null without a mask), runs, color, visible,
   * note}.
   */
  constructor(kind, width, height, items) {
    this.kind = kind; // "instances" or "classes"
    this.width = width;
    this.height = height;
    this.items = items;
  }

  /** From one entry of an answer's results; known: all labels of the model, where they are fixed. */
  static async fromResult(result, known) {
    return result.label_map ? Segments.#fromLabelMap(result) : Segments.#fromInstances(result, known ?? []);
  }

  static async #fromInstances({ width, height, instances }, known) {
    for (const { mask } of instances) checkMask(mask, width, height);
    const given = instances.filter(({ mask }) => mask);
    const decoded = new Map((await decodeAll(given.map(({ mask }) => mask))).map((runs, at) => [given[at], runs]));
    const colors = instanceColors(instances, known);
    const best = bestOfObjects(instances);
    const items = instances.map((instance, index) => ({
      index,
      label: instance.label,
      score: instance.score,
      object: instance.object ?? null,
      lowRes: instance.low_res ?? null,
      box: instance.box,
      area: instance.area,
      counts: instance.mask?.counts ?? null,
      runs: decoded.get(instance) ?? Uint32Array.of(width * height),
      color: colors[index],
      visible: best[index],
      note: best[index] ? "" : "other reading",
    }));
    return new Segments("instances", width, height, items);
  }

  static async #fromLabelMap({ classes, label_map: labelMap, pixel_fraction: fractions }) {
    if (classes.length > 256)
      throw new Failure(`This page shows label maps of up to 256 classes; this has ${classes.length}.`);
    const { width, height, classes: pixels } = await readLabelMap(labelMap);
    const colors = classColors(classes);
    const items = [...runsByClass(pixels, height, width)]
      .sort(([, a], [, b]) => b.area - a.area)
      .map(([value, { runs, area, box }], index) => {
        const label = classes[value] ?? `class ${value}`;
        const fraction = fractions?.[label] ?? area / (width * height);
        const note = `${(fraction * 100).toFixed(fraction < 0.1 ? 1 : 0)} %`;
        return {
          index,
          label,
          score: null,
          object: null,
          lowRes: null,
          box,
          area,
          counts: countsOf(runs),
          runs,
          color: colors[value] ?? [128, 128, 128],
          visible: true,
          note,
        };
      });
    return new Segments("classes", width, height, items);
  }

  /** Show and hide as before what an earlier answer, {items}, had too: an object with the same readings. */
  showAs({ items }) {
    for (const number of new Set(this.items.map(({ object }) => object))) {
      const of = (all) => all.filter(({ object }) => object !== null && object === number);
      const [now, before] = [of(this.items), of(items)];
      const same = now.length === before.length && now.every(({ counts }, at) => counts === before[at].counts);
      if (same) now.forEach((item, at) => (item.visible = before[at].visible));
    }
  }

  get shown() {
    return this.items.filter(({ visible }) => visible);
  }

  /**
   * For each stride-th pixel the number of the topmost item there plus 1, or 0: smaller items lie on larger ones.
   * @returns {{numbers: Uint16Array, width: number, height: number}}
   */
  numbers(stride, items = this.shown) {
    const width = Math.ceil(this.width / stride);
    const height = Math.ceil(this.height / stride);
    const numbers = new Uint16Array(width * height);
    for (const { runs, index } of [...items].sort((a, b) => b.area - a.area)) {
      paint(runs, this.height, this.width, stride, numbers, index + 1);
    }
    return { numbers, width, height };
  }
}

/** Throws a RangeError for a mask of another size than its picture has; an instance may have none. */
function checkMask(mask, width, height) {
  if (!mask) return;
  const [rows, columns] = mask.size;
  if (rows !== height || columns !== width)
    throw new RangeError(`a mask of ${columns} × ${rows} pixels for a picture of ${width} × ${height}`);
}

/** Of the several masks of one object (a click may mean the whole or a part), whether each is the best one. */
function bestOfObjects(instances) {
  const best = new Map();
  instances.forEach(({ object, score }, index) => {
    if (object != null && !(instances[best.get(object)]?.score >= score)) best.set(object, index);
  });
  return instances.map(({ object }, index) => object == null || best.get(object) === index);
}
