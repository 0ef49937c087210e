// A picture to work on: its file's bytes, its pixels (upright), and where it came from.

import { uprightBitmap } from "./orientation.js";

export class Picture {
  constructor(blob, bitmap, name, origin) {
    this.blob = blob;
    this.bitmap = bitmap;
    this.name = name;
    this.origin = origin; // {kind: "file"}, {kind: "url", url} or {kind: "scene", url, scene}
    this.width = bitmap.width;
    this.height = bitmap.height;
  }

  /** Rejects with an Error for people where the browser cannot show the bytes. */
  static async fromBlob(blob, name, origin = { kind: "file" }) {
    if (blob.size === 0) throw new Error(`${name} is empty (0 bytes).`);
    let bitmap;
    try {
      bitmap = await uprightBitmap(blob);
    } catch {
      throw new Error(`${name} is not a picture that this browser can show. Take a JPEG, PNG, WebP, GIF or BMP file.`);
    }
    return new Picture(blob, bitmap, name, origin);
  }

  /** The name without its ending, for files made from the picture. */
  get stem() {
    return this.name.replace(/\.[^.]+$/, "") || "picture";
  }
}

/** A file name for what is at an address. */
export function nameOf(url) {
  const last = new URL(url).pathname.split("/").pop();
  try {
    return decodeURIComponent(last) || "picture";
  } catch {
    return last;
  }
}
