// A request as a command line and as Python. A key's value is never shown.

import { SegmentRequest } from "./request.js";

const KEY = "YOUR_KEY";

/** The request with curl. base: the API's address; hasKey: whether it asks for a key. */
export function curl(request, base, hasKey) {
  const file = fileOf(request.picture);
  const key = hasKey ? [`-H ${shell(`X-API-Key: ${KEY}`)}`] : [];
  const address = shell(new URL(request.path, base).href);
  if (request instanceof SegmentRequest) {
    return (
      fetched(request.picture) +
      [
        `curl -sS ${address}`,
        ...key,
        `--form-string ${shell(`request=${JSON.stringify(request.body)}`)}`,
        `-F ${shell(`image=@"${file.replace(/["\\]/g, "\\$&")}"`)}`,
      ].join(" \\\n  ")
    );
  }
  // printf puts the picture into the JSON: %s is its place, so that other signs of printf's are doubled.
  const parts = JSON.stringify(request.body("\u0000")).split('"\\u0000"');
  const [before, after] = parts.map((part) => part.replace(/[%\\]/g, "$&$&"));
  return (
    `${fetched(request.picture)}printf ${shell(`${before}"%s"${after}`)} "$(base64 < ${shell(file)} | tr -d '\\n')" |\n  ` +
    [`curl -sS ${address}`, ...key, "-H 'Content-Type: application/json' --data-binary @-"].join(" \\\n  ")
  );
}

/** The request with segserve.client. */
export function python(request, base, hasKey) {
  const connection = [text(base.replace(/\/$/, "")), ...(hasKey ? [`api_key=${text(KEY)}`] : [])].join(", ");
  return [
    `${comment(request.picture)}from segserve.client import Client`,
    "",
    `with Client(${connection}) as client:`,
    ...(request instanceof SegmentRequest ? segmenting(request) : tiling(request)).map((line) => `    ${line}`),
  ].join("\n");
}

function segmenting({ picture, model, returns, prompt, parameters }) {
  const named = Object.entries({ model, ...prompt, ...parameters }).map(([name, value]) => `${name}=${literal(value)}`);
  return [
    `result = client.segment(${[text(fileOf(picture)), ...named].join(", ")})`,
    ...(returns === "label_map"
      ? ["print(result.pixel_fraction)"]
      : ["for instance in result.instances:", "    print(instance.label, instance.score, instance.box)"]),
    'result.save_overlay("overlay.png")',
  ];
}

function tiling({ picture, category, room }) {
  const named = room ? `, room=${text(room)}` : "";
  return [`tiled = client.tile(${text(category)}, [${text(fileOf(picture))}]${named})[0]`, 'tiled.save("tiled.png")'];
}

/** The picture's name in the current folder. */
function fileOf({ name }) {
  return name.replace(/[/\u0000-\u001f]/g, "_").replace(/^-/, "_");
}

/** How to get the picture first, where it is at an address. */
function fetched(picture) {
  return picture.origin.url ? `curl -sSL -o ${shell(fileOf(picture))} ${shell(picture.origin.url)}\n` : "";
}

function comment(picture) {
  return picture.origin.url ? `# The picture is at ${picture.origin.url.replace(/[\r\n]/g, "")}\n` : "";
}

/** One word for a POSIX shell. */
function shell(word) {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/** A value of JSON as Python writes it; JSON's texts are Python's. */
function literal(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value)
      .map(([key, each]) => `${text(key)}: ${literal(each)}`)
      .join(", ")}}`;
  }
  return JSON.stringify(value);
}

const text = (value) => JSON.stringify(value);
