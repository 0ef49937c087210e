"""Where a person would click: the most interior point of a region, and the point that corrects a wrong mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from segserve.masks import Mask


@dataclass(frozen=True)
class Click:
    """A point prompt.

    Attributes:
        x, y: column and row of a pixel.
        label: 1 on the object, 0 beside it.
    """

    x: int
    y: int
    label: Literal[0, 1]


def most_interior_point(region: Mask) -> tuple[int, int]:
    """Column and row of the pixel of a region that is farthest from its outside; the picture's edge is outside too.

    Raises:
        ValueError: the region is empty.
    """
    if not region.any():
        raise ValueError("most_interior_point: expected a region with at least one pixel, got an empty one")
    padded = cv2.copyMakeBorder(region.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth: NDArray[np.float32] = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(column), int(row)


def first_click(truth: Mask) -> Click:
    """A click on the most interior point of an object.

    Raises:
        ValueError: the object has no pixel.
    """
    return Click(*most_interior_point(truth), label=1)


def corrective_click(found: Mask, truth: Mask) -> Click | None:
    """The click that corrects a mask: on the largest missed region, or beside the object on the largest false one.

    Args:
        found: (H, W) bool, the mask to correct.
        truth: (H, W) bool, the object.

    Returns:
        The most interior point of the larger of the two regions (connected by sides or corners), or None where the
        mask is right already.
    """
    missed, false = _largest_region(truth & ~found), _largest_region(found & ~truth)
    if missed is None and false is None:
        return None
    if false is None or (missed is not None and missed.sum() >= false.sum()):
        assert missed is not None
        return Click(*most_interior_point(missed), label=1)
    return Click(*most_interior_point(false), label=0)


def _largest_region(mask: Mask) -> Mask | None:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return None
    largest: Mask = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return largest
