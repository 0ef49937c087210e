// The shown segments as a COCO document, as pycocotools reads it.

export function cocoDocument(picture, segments, info = "segserve") {
  const shown = segments.shown;
  const names = [...new Set(shown.map(({ label }) => label))];
  return {
    info: { description: info },
    images: [{ id: 1, file_name: picture.name, width: segments.width, height: segments.height }],
    categories: names.map((name, index) => ({ id: index + 1, name })),
    annotations: shown.map(({ label, score, box: [x0, y0, x1, y1], area, counts }, index) => ({
      id: index + 1,
      image_id: 1,
      category_id: names.indexOf(label) + 1,
      bbox: [x0, y0, x1 - x0, y1 - y0],
      area,
      segmentation: { size: [segments.height, segments.width], counts },
      iscrowd: 0,
      ...(score === null ? {} : { score }),
    })),
  };
}
