"""Geometry of boxes: absolute pixels ``[x0, y0, x1, y1]``, origin at the top left, ends exclusive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def areas(boxes: Floats) -> Floats:
    """Areas in square pixels. boxes: (N, 4). Returns (N,); inverted boxes count 0."""
    widths = np.clip(boxes[:, 2] - boxes[:, 0], 0, None)
    heights = np.clip(boxes[:, 3] - boxes[:, 1], 0, None)
    return np.asarray(widths * heights)


def iou_matrix(first: Floats, second: Floats) -> Floats:
    """Intersection over union of every pair. first: (N, 4), second: (M, 4). Returns (N, M) in [0, 1]."""
    overlap = overlap_matrix(first, second)
    union = areas(first)[:, None] + areas(second)[None, :] - overlap
    return np.asarray(overlap / np.maximum(union, np.finfo(np.float64).tiny))


def overlap_matrix(first: Floats, second: Floats) -> Floats:
    """Common area of every pair in square pixels. first: (N, 4), second: (M, 4). Returns (N, M)."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.clip(bottom_right - top_left, 0, None)
    return np.asarray(sides[..., 0] * sides[..., 1])


def touching(boxes: Floats, margin: float = 0.0) -> NDArray[np.bool_]:
    """Which boxes (N, 4) overlap, or are no more than margin pixels apart. Returns (N, N)."""
    gaps = np.maximum(boxes[:, None, :2] - boxes[None, :, 2:], boxes[None, :, :2] - boxes[:, None, 2:])
    return np.asarray((gaps <= margin).all(axis=-1))


def non_maximum_suppression(boxes: Floats, scores: Floats, iou_threshold: float) -> NDArray[np.intp]:
    """Indices of the boxes kept by greedy NMS, best score first.

    boxes: (N, 4); scores: (N,); a box is dropped when its IoU with a kept one is over iou_threshold (0..1).
    Ties are broken by position, so that the result is the same everywhere.
    """
    order = np.argsort(-scores, kind="stable")
    ious = iou_matrix(boxes, boxes)
    kept: list[int] = []
    dropped = np.zeros(len(boxes), dtype=bool)
    for index in order:
        if not dropped[index]:
            kept.append(int(index))
            dropped |= ious[index] > iou_threshold
    return np.asarray(kept, dtype=np.intp)


def non_maximum_suppression_by_label(
    boxes: Floats, scores: Floats, labels: Sequence[str], iou_threshold: float
) -> NDArray[np.intp]:
    """NMS among boxes of the same label only; indices over all labels, best score first."""
    kept: list[int] = []
    names = np.asarray(labels, dtype=object)
    for label in dict.fromkeys(labels):
        members = np.flatnonzero(names == label)
        chosen = non_maximum_suppression(boxes[members], scores[members], iou_threshold)
        kept.extend(int(members[index]) for index in chosen)
    indices = np.asarray(kept, dtype=np.intp)
    return indices[np.argsort(-scores[indices], kind="stable")]


def clip(boxes: Floats, width: int, height: int) -> Floats:
    """Boxes (N, 4) limited to a picture of width x height pixels."""
    limits = np.asarray([width, height, width, height], dtype=boxes.dtype)
    return np.asarray(np.clip(boxes, 0, limits))


def outer_pixels(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """The smallest whole-pixel box, at least 1 x 1, that contains box and lies within the picture."""
    x0 = int(np.clip(np.floor(box[0]), 0, width - 1))
    y0 = int(np.clip(np.floor(box[1]), 0, height - 1))
    x1 = int(np.clip(np.ceil(box[2]), x0 + 1, width))
    y1 = int(np.clip(np.ceil(box[3]), y0 + 1, height))
    return x0, y0, x1, y1
