// A request as a command line and as Python. A key's value is never shown.

import { promptOf } from "./clicks.js";
import { ClickRequest, SegmentRequest } from "./request.js";

const KEY = "YOUR_KEY";
const WIDTH = 100; // of a line of Python, about
// Without quotes, which would open a text where a shell takes no comments.
const LEFT_OUT = "# The page sent the mask (low_res) of its last answer too; the code in Python does so.\n";

/** The request with curl. base: the API's address; hasKey: whether it asks for a key. */
export function curl(request, base, hasKey) {
  const file = fileOf(request.picture);
  const key = hasKey ? [`-H ${shell(`X-API-Key: ${KEY}`)}`] : [];
  const address = shell(new URL(request.path, base).href);
  if (request instanceof SegmentRequest) {
    const { body } = request instanceof ClickRequest ? request.withoutMasks : request;
    return (
      fetched(request.picture) +
      (request.corrects ? LEFT_OUT : "") +
      [
        `curl -sS ${address}`,
        ...key,
        `--form-string ${shell(`request=${JSON.stringify(body)}`)}`,
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

function segmenting(request) {
  const { returns } = request;
  return [
    ...(request instanceof ClickRequest ? clicking(request) : call("result", request)),
    ...(returns === "label_map"
      ? ["print(result.pixel_fraction)"]
      : ["for instance in result.instances:", "    print(instance.label, instance.score, instance.box)"]),
    'result.save_overlay("overlay.png")',
  ];
}

/** One request for each answer that was corrected, and the last one. */
function clicking(request) {
  const { objects, options } = request;
  if (!request.corrects) return call("result", request.withoutMasks);
  const corrected = objects.filter(({ earlier }) => earlier);
  const names = new Map(corrected.map((object, at) => [object, corrected.length > 1 ? `mask_${at + 1}` : "mask"]));
  return [
    "# Each further click goes with the mask of the answer before.",
    ...corrected.flatMap((object) => correcting(object, names.get(object), request)),
    ...callAbout("result", objects, (object) => names.get(object), request, options),
  ];
}

/** Lines that put the mask that an object's prompt corrects under a name: the oldest request first. */
function correcting({ earlier }, name, request) {
  if (!earlier) return [];
  const { asked, options, reading } = earlier;
  return [
    ...correcting(asked, name, request),
    ...callAbout("answer", [asked], () => name, request, { ...options, low_res: true }),
    `${name} = answer.instances[${reading}].low_res`,
  ];
}

/** Lines of a call about objects; nameOf(object): the variable that holds its mask. */
function callAbout(result, objects, nameOf, { picture, model }, parameters) {
  const named = objects.map((object) =>
    object.earlier ? { ...object, earlier: { mask: new Name(nameOf(object)) } } : object,
  );
  return call(result, { picture, model, prompt: promptOf(named), parameters });
}

/** Lines that call and keep what comes under a name: one, or where that is long, one for each argument and object. */
function call(result, { picture, model, prompt, parameters }) {
  const file = text(fileOf(picture));
  const given = Object.entries({ model, ...prompt, ...parameters });
  const named = given.map(([name, value]) => `${name}=${literal(value)}`);
  const line = `${result} = client.segment(${[file, ...named].join(", ")})`;
  if (line.length <= WIDTH) return [line];
  const lines = given.flatMap(([name, value], at) =>
    name === "objects" ? [`${name}=[`, ...value.map((each) => `    ${literal(each)},`), "],"] : [`${named[at]},`],
  );
  return [`${result} = client.segment(`, ...[`${file},`, ...lines].map((each) => `    ${each}`), ")"];
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

/** A variable of Python in a value of JSON. */
class Name {
  constructor(name) {
    this.name = name;
  }
}

/** A value of JSON as Python writes it; JSON's texts are Python's. */
function literal(value) {
  if (value instanceof Name) return value.name;
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
