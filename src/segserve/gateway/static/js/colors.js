// Colors of labels and instances: the same as in the pictures that the server draws (segserve.colors).

export const PALETTE = [
  [230, 57, 70],
  [29, 122, 214],
  [46, 164, 79],
  [255, 196, 0],
  [150, 70, 200],
  [255, 127, 39],
  [0, 184, 196],
  [232, 62, 168],
  [140, 190, 20],
  [100, 84, 235],
  [0, 135, 110],
  [180, 92, 40],
  [255, 140, 150],
  [90, 190, 255],
  [190, 150, 255],
  [110, 120, 60],
];
const SHADES = [0, 0.5, -0.4, 0.72];

/** CRC-32 of a text's UTF-8 bytes, as zlib computes it. */
export function crc32(text) {
  let crc = 0xffffffff;
  for (const byte of new TextEncoder().encode(text)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** A Map from each label to its color. Of labels that pick the same one, that of fewest words keeps it. */
export function colorsOf(labels) {
  const words = (label) => label.split(" ").length;
  const order = (a, b) => words(a) - words(b) || (a < b ? -1 : a > b ? 1 : 0);
  const ordered = [...new Set(labels)].sort(order);
  const picks = new Map(ordered.map((label) => [label, crc32(label) % PALETTE.length]));
  const owners = new Map();
  for (const [label, pick] of picks) if (!owners.has(pick)) owners.set(pick, label);
  const free = PALETTE.map((_, index) => index).filter((index) => !owners.has(index));
  const chosen = new Map([...owners].map(([pick, label]) => [label, PALETTE[pick]]));
  for (const label of ordered.filter((each) => !chosen.has(each))) {
    const distance = (index) => (index - picks.get(label) + PALETTE.length) % PALETTE.length;
    free.sort((a, b) => distance(a) - distance(b));
    const index = free.shift();
    chosen.set(label, index === undefined ? ownColor(label) : PALETTE[index]);
  }
  return chosen;
}

/**
 * A color for each instance {label, box}: its label's, or a shade of it beside another of the label.
 * known: labels that other pictures may show; colors are shared out among these too.
 */
export function instanceColors(instances, known = []) {
  const colors = colorsOf([...instances.map(({ label }) => label), ...known]);
  const shades = [];
  instances.forEach((instance, index) => {
    const taken = SHADES.map(() => 0);
    for (let other = 0; other < index; other++) {
      const near = instances[other].label === instance.label && touching(instances[other].box, instance.box);
      if (near) taken[shades[other]]++;
    }
    shades.push(taken.indexOf(Math.min(...taken)));
  });
  return instances.map(({ label }, index) => shaded(colors.get(label), SHADES[shades[index]]));
}

/** A color for each class of a model; it depends on the model's classes only, not on a picture. */
export function classColors(classes) {
  const first = colorsOf(classes.slice(0, PALETTE.length));
  return classes.map((name) => first.get(name) ?? ownColor(name));
}

/** Black or white, whichever reads better on the color. */
export function inkOn(color) {
  const [red, green, blue] = color.map((channel) => (channel / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.2 ? [255, 255, 255] : [15, 15, 15];
}

function touching(a, b) {
  return a[0] <= b[2] && b[0] <= a[2] && a[1] <= b[3] && b[1] <= a[3];
}

function shaded(color, shade) {
  const end = shade > 0 ? 255 : 0;
  return color.map((channel) => toEven(channel + (end - channel) * Math.abs(shade)));
}

/** Rounded, halves to the even number, as Python does. */
function toEven(value) {
  const rounded = Math.round(value);
  return value % 1 === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/** For labels beyond the palette: any hue, strong or muted. */
function ownColor(label) {
  const code = crc32(label);
  const [saturation, value] = [
    [0.85, 0.85],
    [0.5, 0.95],
    [0.75, 0.6],
  ][Math.floor(code / 997) % 3];
  const hue = ((code % 997) / 997) * 6;
  const channel = (offset) => {
    const k = (offset + hue) % 6;
    return Math.round(255 * (value - value * saturation * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [channel(5), channel(3), channel(1)];
}
