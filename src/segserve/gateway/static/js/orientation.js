// How a picture file's pixels are to be turned to be upright, read as the server reads it: from EXIF, else from XMP.
//
// Browsers obey the EXIF orientation of JPEG and PNG, some of them that of WebP, and none obeys XMP. The server obeys
// them all, so what a browser leaves aside is done here: people click on the picture that the server sees.

const TAG = 0x0112;
const TURN = /tiff:Orientation(?:="|>)([1-8])/;
const JPEG_XMP = "http://ns.adobe.com/xap/1.0/\0";

/** For each orientation the transform that makes w x h pixels upright, for CanvasRenderingContext2D.setTransform. */
const TRANSFORMS = {
  2: (w) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w) => [0, -1, 1, 0, 0, w],
};

/** An ImageBitmap of a file's pixels (a Blob), upright. Rejects where the browser cannot show the file. */
export async function uprightBitmap(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const { turn, browserTurns, hidden } = read(bytes);
  if (hidden) bytes.set(hidden.bytes, hidden.at);
  const bitmap = await createImageBitmap(hidden ? new Blob([bytes]) : blob, { imageOrientation: "from-image" });
  return browserTurns || !TRANSFORMS[turn] ? bitmap : turned(bitmap, turn);
}

function turned(bitmap, turn) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(...(turn > 4 ? [height, width] : [width, height]));
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.setTransform(...TRANSFORMS[turn](width, height));
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.transferToImageBitmap();
}

/** {turn: 1 to 8, browserTurns, hidden: null or {at, bytes} to write over what only some browsers obey}. */
function read(bytes) {
  const view = new DataView(bytes.buffer);
  const chunks = [...chunksOf(view)];
  const exif = chunks.find(({ kind, from, to }) => kind === "exif" && tagIn(view, from, to) !== null);
  if (!exif) return { turn: xmpTurn(view, chunks), browserTurns: false, hidden: null };
  const turn = tagIn(view, exif.from, exif.to);
  if (!isWebp(view)) return { turn, browserTurns: true, hidden: null };
  // Under another name the chunk is one that decoders pass over.
  return { turn, browserTurns: false, hidden: { at: exif.from - 8, bytes: bytesOf("none") } };
}

function xmpTurn(view, chunks) {
  for (const { kind, from, to } of chunks) {
    const found = kind === "xmp" && TURN.exec(text(view, from, to));
    if (found) return Number(found[1]);
  }
  return 1;
}

/** The parts of a file that hold EXIF and XMP: {kind: "exif" or "xmp", from, to}. Ends where a file makes no sense. */
function* chunksOf(view) {
  if (isWebp(view)) yield* webpChunks(view);
  else if (startsWith(view, 0, "\x89PNG\r\n\x1a\n")) yield* pngChunks(view);
  else if (startsWith(view, 0, "\xff\xd8")) yield* jpegSegments(view);
}

function isWebp(view) {
  return startsWith(view, 0, "RIFF") && startsWith(view, 8, "WEBP");
}

function* webpChunks(view) {
  const kinds = { EXIF: "exif", "XMP ": "xmp" };
  for (let at = 12; at + 8 <= view.byteLength;) {
    const size = view.getUint32(at + 4, true);
    const kind = kinds[text(view, at, at + 4)];
    if (kind) yield { kind, from: at + 8, to: at + 8 + size };
    at += 8 + size + (size % 2);
  }
}

function* pngChunks(view) {
  for (let at = 8; at + 12 <= view.byteLength;) {
    const size = view.getUint32(at);
    const type = text(view, at + 4, at + 8);
    const to = at + 8 + size;
    if (type === "eXIf") yield { kind: "exif", from: at + 8, to };
    if (type === "iTXt" && startsWith(view, at + 8, "XML:com.adobe.xmp\0")) yield { kind: "xmp", from: at + 8, to };
    at = to + 4;
  }
}

function* jpegSegments(view) {
  // Up to the start of scan, from where on there are no such segments.
  for (let at = 2; at + 4 <= view.byteLength && view.getUint8(at) === 0xff;) {
    const marker = view.getUint8(at + 1);
    if (marker === 0xda) return;
    if (marker === 0xff) {
      at++;
      continue;
    }
    const to = at + 2 + view.getUint16(at + 2);
    if (marker === 0xe1 && startsWith(view, at + 4, "Exif\0\0")) yield { kind: "exif", from: at + 4, to };
    if (marker === 0xe1 && startsWith(view, at + 4, JPEG_XMP)) yield { kind: "xmp", from: at + 4, to };
    at = to;
  }
}

/** The orientation (1 to 8; 1 for any other number) in EXIF, or null where that says nothing about it. */
function tagIn(view, from, to) {
  const start = startsWith(view, from, "Exif\0\0") ? from + 6 : from;
  const end = Math.min(to, view.byteLength);
  const little = startsWith(view, start, "II");
  if (!little && !startsWith(view, start, "MM")) return null;
  if (start + 8 > end) return null;
  const directory = start + view.getUint32(start + 4, little);
  if (directory + 2 > end) return null;
  for (let entry = directory + 2, left = view.getUint16(directory, little); left > 0 && entry + 12 <= end; left--) {
    if (view.getUint16(entry, little) === TAG) {
      const long = view.getUint16(entry + 2, little) === 4;
      const value = long ? view.getUint32(entry + 8, little) : view.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
    entry += 12;
  }
  return null;
}

function startsWith(view, at, letters) {
  return text(view, at, at + letters.length) === letters;
}

/** Bytes as letters, one for each. */
function text(view, from, to) {
  const end = Math.min(to, view.byteLength);
  let letters = "";
  for (let at = from; at < end; at++) letters += String.fromCharCode(view.getUint8(at));
  return letters;
}

function bytesOf(letters) {
  return Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
}
