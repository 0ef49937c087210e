// The shown segments as a COCO document, as pycocotools reads it.

import { boxOf } from "./rle.js";

export function cocoDocument(picture, segments, info = "segserve") {
  const shown = segments.shown;
  const names = [...new Set(shown.map(({ label }) => label))];
  return {
    info: { description: info },
    images: [{ id: 1, file_name: picture.name, width: segments.width, height: segments.height }],
    categories: names.map((name, index) => ({ id: index + 1, name })),
    annotations: shown.map((item, index) => ({
      id: index + 1,
      image_id: 1,
      category_id: names.indexOf(item.label) + 1,
      bbox: bboxOf(item, segments),
      area: item.area,
      ...(item.counts === null
        ? {}
        : { segmentation: { size: [segments.height, segments.width], counts: item.counts } }),
      iscrowd: 0,
      ...(item.score === null ? {} : { score: item.score }),
    })),
  };
}

/** [x, y, width, height] of the mask, as COCO has it; of what has no mask, the box that was answered. */
function bboxOf({ runs, box }, { height }) {
  const [x0, y0, x1, y1] = boxOf(runs, height) ?? box;
  return [x0, y0, x1 - x0, y1 - y0];
}
