"""The page's own reading and writing of masks and colors, against pycocotools and the server's colors."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segserve import imaging
from segserve.colors import colors_of, instance_colors
from segserve.masks import Rle, encode_rle
from web_page.segmenting_page import SegmentingPage

_READ_AND_WRITE = """async (rle) => {
  const { decode, encode } = await import("/static/js/rle.js");
  const mask = decode(rle);
  let text = "";
  for (let at = 0; at < mask.length; at += 8192) text += String.fromCharCode(...mask.subarray(at, at + 8192));
  return [btoa(text), encode(mask, ...rle.size)];
}"""
_REFUSE = """async (rle) => {
  const { decode } = await import("/static/js/rle.js");
  try { return `decoded ${decode(rle).length}`; } catch (error) { return error.name; }
}"""
_CLASSES = """async (png) => {
  const { readLabelMap, runsByClass } = await import("/static/js/label_map.js");
  const { countsOf } = await import("/static/js/rle.js");
  const { width, height, classes } = await readLabelMap(png);
  const found = [...runsByClass(classes, height, width)];
  const rle = (runs) => ({ size: [height, width], counts: countsOf(runs) });
  return found.map(([label, { runs, area, box }]) => [label, rle(runs), area, box]);
}"""
_COLORS = """async (instances) => {
  const { colorsOf, instanceColors } = await import("/static/js/colors.js");
  return [[...colorsOf(instances.map(({ label }) => label))], instanceColors(instances)];
}"""


def random_masks() -> list[NDArray[np.bool_]]:
    """Sizes and densities of all kinds: noise, blobs, stripes, one pixel, nothing, everything."""
    random = np.random.default_rng(4)
    masks = [random.random((int(h), int(w))) < p for h, w in random.integers(1, 40, (40, 2)) for p in (0.03, 0.5, 0.97)]
    y, x = np.mgrid[:480, :641]
    masks.append((x - 300) ** 2 + (y - 200) ** 2 < 170**2)
    masks.append(np.asarray(x % 2 == 0))
    masks.append(np.asarray((x + y) % 2 == 0))
    masks += [np.zeros((7, 9), bool), np.ones((7, 9), bool), np.ones((1, 1), bool), np.zeros((1, 1), bool)]
    long = np.zeros((1500, 1200), bool)
    long[700:, 3:] = True
    return [*masks, long, ~long]


def test_masks_are_read_and_written_as_pycocotools_does(page: SegmentingPage) -> None:
    for mask in random_masks():
        rle = encode_rle(mask)
        packed, counts = page.evaluate(_READ_AND_WRITE, rle)
        decoded = np.frombuffer(base64.b64decode(packed), np.uint8).reshape(mask.shape)
        np.testing.assert_array_equal(decoded, coco_mask.decode({**rle, "counts": rle["counts"].encode()}))
        assert counts == rle["counts"]


def test_what_is_no_mask_is_refused(page: SegmentingPage) -> None:
    for counts in ("", "0", "o", "\x7f", "é", "PPPPPPPPPP", "~~~~~~~~~1", "k0"):
        assert page.evaluate(_REFUSE, {"size": [4, 5], "counts": counts}) == "RangeError", counts


def test_label_maps_become_a_mask_for_each_class(page: SegmentingPage) -> None:
    random = np.random.default_rng(5)
    blocks = np.array([3, 0, 200, 7], np.uint8)[random.integers(0, 4, (9, 13))]
    labels = np.kron(blocks, np.ones((5, 4), np.uint8))
    found = page.evaluate(_CLASSES, base64.b64encode(imaging.encode(labels)).decode("ascii"))
    assert sorted(label for label, *_ in found) == sorted(np.unique(labels).tolist())
    for label, rle, area, box in found:
        expected = labels == label
        columns, rows = np.flatnonzero(expected.any(axis=0)), np.flatnonzero(expected.any(axis=1))
        assert Rle(**rle) == encode_rle(expected)
        assert (area, box) == (expected.sum(), [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def test_colors_are_those_of_the_servers_pictures(page: SegmentingPage) -> None:
    labels = ["sofa", "red chair", "chair", "Stühle", *(f"thing {number}" for number in range(20)), "sofa", "sofa"]
    boxes = [[float(number), 0.0, number + 30.0, 40.0] for number in range(len(labels))]
    instances = [{"label": label, "box": box} for label, box in zip(labels, boxes, strict=True)]
    by_label, by_instance = page.evaluate(_COLORS, instances)
    assert {label: tuple(color) for label, color in by_label} == colors_of(labels)
    assert [tuple(color) for color in by_instance] == instance_colors(labels, boxes)
