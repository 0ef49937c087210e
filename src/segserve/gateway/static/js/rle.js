// COCO's compressed run-length encoding, as pycocotools writes it: runs of zeros and ones by turns, down the columns,
// each as a signed number of 5-bit groups, from the third on as the difference to the run before the last.

const FIRST = 48; // "0", the character of an empty group
const MORE = 0x20;
const SIGN = 0x10;

/** Run lengths (Uint32Array), zeros first, of a counts text. Throws a RangeError where it is none. */
export function runsOf(counts) {
  const runs = [];
  for (let at = 0; at < counts.length;) {
    let value = 0;
    let shift = 0;
    let group;
    do {
      group = counts.charCodeAt(at++) - FIRST;
      if (!(group >= 0 && group < 64) || shift > 30) throw new RangeError("not the counts of an RLE mask");
      value |= (group & 0x1f) << shift;
      shift += 5;
    } while (group & MORE);
    if (group & SIGN && shift < 32) value |= -1 << shift;
    if (runs.length > 2) value += runs[runs.length - 2];
    if (value < 0) throw new RangeError("not the counts of an RLE mask");
    runs.push(value);
  }
  return Uint32Array.from(runs);
}

/** The counts text of run lengths. */
export function countsOf(runs) {
  let text = "";
  for (let index = 0; index < runs.length; index++) {
    let value = runs[index] - (index > 2 ? runs[index - 2] : 0);
    let more = true;
    while (more) {
      let group = value & 0x1f;
      value >>= 5;
      more = group & SIGN ? value !== -1 : value !== 0;
      if (more) group |= MORE;
      text += String.fromCharCode(group + FIRST);
    }
  }
  return text;
}

/** A mask (row by row, height x width, 0 or 1) of an RLE {size: [height, width], counts}. */
export function decode({ size: [height, width], counts }) {
  const mask = new Uint8Array(height * width);
  paint(runsChecked(counts, height, width), height, width, 1, mask, 1);
  return mask;
}

/** The counts text of a mask (row by row; anything but 0 counts as 1). */
export function encode(mask, height, width) {
  const runs = [];
  let current = 0;
  let length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      const value = mask[y * width + x] ? 1 : 0;
      if (value !== current) {
        runs.push(length);
        current = value;
        length = 0;
      }
      length++;
    }
  }
  runs.push(length);
  return countsOf(runs);
}

/** runsOf, with the check that the runs cover the picture exactly. */
export function runsChecked(counts, height, width) {
  const runs = runsOf(counts);
  const covered = runs.reduce((sum, run) => sum + run, 0);
  if (covered !== height * width) throw new RangeError(`an RLE of ${covered} pixels, expected ${height} x ${width}`);
  return runs;
}

/** The box [x0, y0, x1, y1] around the pixels of run lengths, its far edges outside; null of an empty mask. */
export function boxOf(runs, height) {
  let box = null;
  for (let index = 0, start = 0; index < runs.length; start += runs[index++]) {
    if (index % 2 === 0 || runs[index] === 0) continue;
    box ??= [Infinity, Infinity, 0, 0];
    widen(box, start, start + runs[index], height);
  }
  return box;
}

/** Make a box hold the pixels from start to before end, down the columns. */
export function widen(box, start, end, height) {
  const first = Math.floor(start / height);
  const last = Math.floor((end - 1) / height);
  const whole = first !== last;
  box[0] = Math.min(box[0], first);
  box[1] = Math.min(box[1], whole ? 0 : start % height);
  box[2] = Math.max(box[2], last + 1);
  box[3] = Math.max(box[3], whole ? height : ((end - 1) % height) + 1);
}

/**
 * Write value wherever the mask is 1.
 * @param {Uint32Array} runs of a height x width mask
 * @param {number} stride only each stride-th row and column counts
 * @param target row by row, ceil(height / stride) x ceil(width / stride)
 */
export function paint(runs, height, width, stride, target, value) {
  const columns = Math.ceil(width / stride);
  let position = 0;
  for (let index = 0; index < runs.length; index++) {
    const end = position + runs[index];
    while (index % 2 === 1 && position < end) {
      const x = Math.floor(position / height);
      const top = position - x * height;
      const bottom = Math.min(height, top + end - position);
      if (x % stride === 0) {
        const column = x / stride;
        for (let row = Math.ceil(top / stride); row * stride < bottom; row++) target[row * columns + column] = value;
      }
      position += bottom - top;
    }
    position = end;
  }
}
