"""Pictures of results: overlays, cut-outs, masks and crops, and what was not found turned gray.

Pictures are RGB uint8, H x W x 3; masks are bool, H x W. Every function returns a new array and leaves its input alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from segserve import chips as chip_writing
from segserve.boxes import outer_pixels
from segserve.colors import Color, dark_of, instance_colors
from segserve.imaging import Rgb
from segserve.masks import Mask, bounding_box

__all__ = ["Drawable", "Drawing", "crops", "cutout", "gray_outside", "mask_image", "overlay"]

_SMALLEST_WITH_CHIPS = 48


class Drawable(Protocol):
    """What an overlay shows of one object: box in pixels of the picture, score 0..1, mask of the picture's size."""

    @property
    def label(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def box(self) -> Sequence[float]: ...
    @property
    def mask(self) -> Mask: ...


@dataclass(frozen=True)
class Drawing:
    """A plain Drawable."""

    label: str
    score: float
    box: Sequence[float]
    mask: Mask


def overlay(
    image: Rgb,
    instances: Sequence[Drawable],
    *,
    opacity: float = 0.42,
    chips: bool = True,
    boxes: bool = False,
    labels: Iterable[str] = (),
) -> Rgb:
    """The picture with every instance tinted and outlined in its label's color, and named on a chip with its score.

    Instances of one label that touch are told apart by shades of its color. Large instances are painted first, so
    that what stands before them stays visible. Every colored line has a dark one under it, so that it shows on a
    surface of its own color too. Pictures under 48 pixels a side get no chips.

    Args:
        opacity: of the tint, 0..1.
        chips: whether to write labels and scores.
        boxes: whether to draw the instances' boxes as well.
        labels: all that the model may give, where they are known: then each has its color in every picture, whatever
            else the picture shows.

    Raises:
        ValueError: a mask has not the picture's size.
    """
    height, width = image.shape[:2]
    line = _Line.for_picture(width, height)
    # Each mask is asked for when it is needed, and not kept: a hundred of a 12-megapixel picture would take 1.2 GB.
    areas = [int(np.count_nonzero(_checked(instance.mask, image))) for instance in instances]
    names, frames = [each.label for each in instances], [each.box for each in instances]
    colors = instance_colors(names, frames, 4.0 * line.under, labels)
    painted = image.copy()
    for index in sorted(range(len(areas)), key=lambda position: -areas[position]):
        _paint(painted, _checked(instances[index].mask, image), colors[index], opacity, line)
    if boxes:
        for instance, color in zip(instances, colors, strict=True):
            _frame(painted, instance.box, color, line)
    if not chips or min(height, width) < _SMALLEST_WITH_CHIPS:
        return painted
    return chip_writing.write(
        painted,
        [
            chip_writing.Chip(instance.label, instance.score, color, instance.box, instance)
            for instance, color in zip(instances, colors, strict=True)
        ],
    )


def gray_outside(image: Rgb, mask: Mask) -> Rgb:
    """The picture with its colors inside the mask only; elsewhere the gray of its luminance (Rec. 601).

    Raises:
        ValueError: the mask has not the picture's size.
    """
    inside = _checked(mask, image)
    result = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    result[inside] = image[inside]
    return np.asarray(result, dtype=np.uint8)


def cutout(image: Rgb, mask: Mask) -> NDArray[np.uint8]:
    """What the mask covers as RGBA, H x W x 4, everything else fully transparent (and black, which packs small).

    Raises:
        ValueError: the mask has not the picture's size.
    """
    inside = _checked(mask, image)
    result = np.zeros((*inside.shape, 4), dtype=np.uint8)
    result[inside, :3] = image[inside]
    result[inside, 3] = 255
    return result


def mask_image(masks: Iterable[Mask], height: int, width: int) -> NDArray[np.uint8]:
    """The union of the masks as H x W uint8: 255 inside, 0 outside; all 0 without masks."""
    union = np.zeros((height, width), dtype=np.uint8)
    for mask in masks:
        union[mask] = 255
    return union


def crops(image: Rgb, boxes: Iterable[Sequence[float]]) -> list[Rgb]:
    """The part of the picture within each box, in whole pixels and at least 1 x 1."""
    height, width = image.shape[:2]
    parts = []
    for box in boxes:
        x0, y0, x1, y1 = outer_pixels(box, width, height)
        parts.append(image[y0:y1, x0:x1].copy())
    return parts


def _checked(mask: Mask, image: Rgb) -> Mask:
    if mask.shape != image.shape[:2]:
        raise ValueError(f"a mask of {mask.shape} does not fit a picture of {image.shape[:2]}")
    return np.asarray(mask, dtype=bool)


@dataclass(frozen=True)
class _Line:
    """Thicknesses in pixels: of a colored line, and of the wider dark one under it."""

    over: int
    under: int

    @classmethod
    def for_picture(cls, width: int, height: int) -> _Line:
        over = max(1, round((height + width) / 700))
        # Three pixels of line would bury the objects of a thumbnail.
        return cls(over, over + (1 if height + width < 400 else 2 * max(1, round(0.35 * over))))


def _paint(canvas: Rgb, mask: Mask, color: Color, opacity: float, line: _Line) -> None:
    """Tint and outline one mask in place."""
    box = bounding_box(mask)
    if box is None:
        return
    x0, y0, x1, y1 = box
    inside = mask[y0:y1, x0:x1]
    part = canvas[y0:y1, x0:x1]
    if opacity > 0:
        levels = np.arange(256)[:, None] * (1 - opacity) + opacity * np.asarray(color)
        tinted = cv2.LUT(part, np.rint(levels).astype(np.uint8).reshape(1, 256, 3))
        np.copyto(part, tinted, where=inside[..., None])
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(x0, y0))
    if line.over > 2:
        # Thick lines hide the corners of single pixels, and take long to draw around them.
        contours = [cv2.approxPolyDP(contour, line.over / 6, closed=True) for contour in contours]
    cv2.drawContours(canvas, contours, -1, dark_of(color), line.under, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, color, line.over, cv2.LINE_AA)


def _frame(canvas: Rgb, box: Sequence[float], color: Color, line: _Line) -> None:
    """Draw one box in place: a colored line within a dark one, both wholly within the picture."""
    height, width = canvas.shape[:2]
    edge = max(1, (line.under - line.over) // 2)
    x0, y0, x1, y1 = outer_pixels(box, width, height)
    x0, y0, x1, y1 = max(0, x0 - edge), max(0, y0 - edge), min(width, x1 + edge), min(height, y1 + edge)
    for tone, inset, thickness in ((dark_of(color), 0, edge), (color, edge, line.over)):
        part = canvas[y0 + inset : y1 - inset, x0 + inset : x1 - inset]
        for side in (part[:thickness], part[-thickness:], part[:, :thickness], part[:, -thickness:]):
            side[:] = tone
