"""Geometry of binary masks: H x W bool arrays, COCO run-length encoding, polygons, refinement.

The compressed RLE is pycocotools' own: ``{"size": [height, width], "counts": "…"}`` with counts in column order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

Mask = NDArray[np.bool_]
Polygon = list[list[float]]
"""Corners ``[[x, y], …]`` of one closed outline in pixels."""


class Rle(TypedDict):
    """COCO compressed run-length encoding."""

    size: list[int]
    counts: str


def encode_rle(mask: NDArray[np.generic]) -> Rle:
    """Compressed RLE of an H x W mask (anything not 0 is foreground)."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def encode_rles(masks: NDArray[np.generic]) -> list[Rle]:
    """Compressed RLEs of N x H x W masks, in one call."""
    if len(masks) == 0:
        return []
    stacked = np.asfortranarray(np.moveaxis(masks, 0, -1), dtype=np.uint8)
    return [
        {"size": [int(side) for side in item["size"]], "counts": item["counts"].decode("ascii")}
        for item in coco_mask.encode(stacked)
    ]


def decode_rle(rle: Rle) -> Mask:
    """The H x W bool mask of a compressed RLE.

    Raises:
        ValueError: size or counts are not those of a mask.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        decoded = coco_mask.decode({"size": [height, width], "counts": rle["counts"].encode("ascii")})
    except (KeyError, TypeError, AttributeError, UnicodeEncodeError) as error:
        raise ValueError("not a compressed RLE: expected {'size': [height, width], 'counts': str}") from error
    return np.asarray(decoded, dtype=bool)


def area(rle: Rle) -> int:
    """Foreground pixels of a compressed RLE, without decoding it."""
    return int(coco_mask.area({"size": rle["size"], "counts": rle["counts"].encode("ascii")}))


def rle_bounding_box(rle: Rle) -> tuple[float, float, float, float] | None:
    """As bounding_box, of a compressed RLE, without decoding it."""
    encoded = {"size": rle["size"], "counts": rle["counts"].encode("ascii")}
    x, y, width, height = (float(value) for value in coco_mask.toBbox(encoded))
    return (x, y, x + width, y + height) if width and height else None


def iou(first: Mask, second: Mask) -> float:
    """Intersection over union of two masks of the same shape; 0 when both are empty."""
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else 0.0


def bounding_box(mask: Mask) -> tuple[int, int, int, int] | None:
    """The tight box (x0, y0, x1, y1), ends exclusive; None when the mask is empty."""
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def to_polygons(mask: Mask, tolerance: float = 1.0, minimum_area: float = 4.0) -> list[Polygon]:
    """Outer outlines of a mask, largest first, holes left out.

    Corners lie on pixel centres. tolerance is the largest distance in pixels that the simplified outline may keep
    from the true one (Douglas-Peucker); outlines of less than minimum_area square pixels or 3 corners are dropped.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons: list[tuple[float, Polygon]] = []
    for contour in contours:
        simple = cv2.approxPolyDP(contour, tolerance, closed=True)
        size = cv2.contourArea(contour)
        if len(simple) >= 3 and size >= minimum_area:
            polygons.append((size, simple[:, 0, :].astype(float).tolist()))
    polygons.sort(key=lambda pair: -pair[0])
    return [polygon for _, polygon in polygons]


def from_polygons(polygons: Sequence[Sequence[Sequence[float]]], height: int, width: int) -> Mask:
    """The H x W mask that fills the polygons (their outlines included)."""
    canvas = np.zeros((height, width), dtype=np.uint8)
    for polygon in polygons:
        corners = np.rint(np.asarray(polygon, dtype=np.float64)).astype(np.int32).reshape(-1, 1, 2)
        cv2.fillPoly(canvas, [corners], 1)
    return canvas.astype(bool)


def refine(mask: Mask, *, polygon: bool = False) -> Mask:
    """A cleaner mask: edges smoothed, specks removed and holes closed; with polygon, its largest outline filled.

    Specks and holes are parts of less than 1 % of the mask's area. An empty mask stays empty, and a mask that
    would vanish is returned as it came.
    """
    total = int(np.count_nonzero(mask))
    if total == 0:
        return mask
    smooth = cv2.medianBlur(mask.astype(np.uint8), 5) > 0
    cleaned = _without_small_parts(smooth, 0.01 * total)
    cleaned = ~_without_small_parts(~cleaned, 0.01 * total)
    if polygon:
        height, width = mask.shape
        cleaned = from_polygons(to_polygons(cleaned, tolerance=1.5)[:1], height, width)
    return cleaned if cleaned.any() else mask


def _without_small_parts(mask: Mask, minimum_area: float) -> Mask:
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = np.zeros(count, dtype=bool)
    keep[1:] = stats[1:, cv2.CC_STAT_AREA] >= minimum_area
    return np.asarray(keep[parts])
