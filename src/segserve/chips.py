"""Chips: what the instances of a picture are, written beside them where it hides least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segserve.boxes import areas, outer_pixels, overlap_matrix
from segserve.colors import Color, dark_of, ink_on
from segserve.imaging import Rgb
from segserve.masks import Mask

__all__ = ["Chip", "Place", "layout", "write"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Floats = NDArray[np.float64]
Point = tuple[float, float]

_FONT_SIZES = (11.0, 96.0)
_LEAST_FONT_SIZE = 9.0
_CROWDED = 0.16
"""Chips that would take more of the picture than this are written smaller."""
_SMALL = 6.0
"""An object of fewer chip areas than this is small: chips keep off it."""
_RINGS = 4

_CHIP_COST, _OBJECT_COST, _OWN_COST, _RING_COST = 6.0, 1.0, 0.5, 0.12
"""Of hiding one chip's area of: another chip, another small object, the own small object; and of going a ring away."""


class Masked(Protocol):
    """What has a mask of the picture's size."""

    @property
    def mask(self) -> Mask: ...


@dataclass(frozen=True)
class Chip:
    """What to write about one instance. box: in pixels of the picture; owner: has its mask, asked for when needed."""

    label: str
    score: float
    color: Color
    box: Sequence[float]
    owner: Masked

    @property
    def mask(self) -> Mask:
        """The instance's."""
        return self.owner.mask


@dataclass(frozen=True)
class Place:
    """Where a chip goes.

    Attributes:
        text: label and score, the label cut where it is too wide for the picture.
        size: of the font, in pixels.
        box: x0, y0, x1, y1 in whole pixels, ends exclusive.
        target: a point (x, y) of the instance that a line leads to; None where the chip lies at its instance.
    """

    text: str
    size: float
    box: tuple[int, int, int, int]
    target: Point | None


def write(image: Rgb, chips: Sequence[Chip]) -> Rgb:
    """The picture with the chips on it; where two overlap, the better score is on top."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    height, width = image.shape[:2]
    places = layout(chips, width, height)
    order = sorted(range(len(chips)), key=lambda index: chips[index].score)
    for index in order:
        _lead(draw, places[index], chips[index].color)
    for index in order:
        _write_one(draw, places[index], chips[index].color)
    return np.array(picture, dtype=np.uint8)


def layout(chips: Sequence[Chip], width: int, height: int) -> list[Place]:
    """A place for each chip in a picture of width x height pixels, in their order.

    The best score chooses first. A chip keeps off other chips first of all, and off small objects; where there is
    no such place at its object, it moves away and a line leads back. Crowded chips are written smaller.
    """
    size = _font_size(chips, width, height)
    texts = [_fitting(chip, size, 0.9 * width) for chip in chips]
    extents = [_extent(text, size) for text in texts]
    boxes = np.asarray([chip.box for chip in chips], dtype=np.float64).reshape(-1, 4)
    chip_areas = np.asarray([wide * high for wide, high in extents], dtype=np.float64)
    small = areas(boxes) < _SMALL * np.median(chip_areas) if chips else np.zeros(0, dtype=bool)
    taken = np.zeros((0, 4))
    places: dict[int, Place] = {}
    for index in sorted(range(len(chips)), key=lambda position: -chips[position].score):
        weights = np.where(small, _OBJECT_COST, 0.0)
        weights[index] *= _OWN_COST
        anchors = list(_anchors(chips[index], extents[index]))
        corners = _within([(x, y) for x, y, _ in anchors], extents[index], width, height)
        cost = _CHIP_COST * overlap_matrix(corners, taken).sum(axis=1) + overlap_matrix(corners, boxes) @ weights
        cost = cost / chip_areas[index] + _RING_COST * np.asarray([ring for _, _, ring in anchors])
        best = int(cost.argmin())
        x0, y0, x1, y1 = (int(side) for side in corners[best])
        taken = np.concatenate([taken, corners[best : best + 1]])
        away = anchors[best][2] > 0 and not overlap_matrix(corners[best : best + 1], boxes[index : index + 1]).any()
        target = _nearest(chips[index], corners[best]) if away else None
        places[index] = Place(texts[index], size, (x0, y0, x1, y1), target)
    return [places[index] for index in range(len(chips))]


@cache
def _font(size: float) -> Font:
    return ImageFont.load_default(size)


def _font_size(chips: Sequence[Chip], width: int, height: int) -> float:
    """That of the picture's size, or smaller where so many chips would hide too much."""
    largest = float(np.clip(0.027 * (height * width) ** 0.5, *_FONT_SIZES))
    size = largest
    for factor in (1.0, 0.85, 0.7):
        size = max(factor * largest, _LEAST_FONT_SIZE)
        extents = [_extent(_fitting(chip, size, 0.9 * width), size) for chip in chips]
        if sum(wide * high for wide, high in extents) <= _CROWDED * width * height:
            break
    return size


def _extent(text: str, size: float) -> tuple[int, int]:
    """Width and height of a chip in pixels."""
    return int(_font(size).getlength(text) + 0.7 * size), int(1.45 * size)


def _fitting(chip: Chip, size: float, width: float) -> str:
    """Label and score, the label cut with an ellipsis until they are no wider than width pixels."""
    font = _font(size)
    label = " ".join(chip.label.split())
    text = f"{label} {chip.score:.2f}"
    while len(label) > 1 and font.getlength(text) > width:
        label = label[:-1]
        text = f"{label}… {chip.score:.2f}"
    return text


def _anchors(chip: Chip, extent: tuple[int, int]) -> Iterator[tuple[float, float, int]]:
    """Top left corners for a chip, with the ring they are on; the best first, 0 at the object itself.

    Walls and floors reach over most of the picture, where a corner of the box says nothing: their chips go to
    the middle of their widest part. Chips of other objects sit on top of the box.
    """
    x0, y0, x1, y1 = chip.box
    wide, high = extent
    spots = [(x - wide / 2, y - high / 2) for x, y in _inner_points(chip.mask)]
    rim = [(x0, y0 - high), (x0, y0), (x1 - wide, y0 - high), (x0, y1), (x1 - wide, y1)]
    surface = (x1 - x0) * (y1 - y0) > 0.2 * chip.mask.size or y0 < high
    near = (*spots, *rim) if surface else (*rim[:2], *spots, *rim[2:])
    yield from ((x, y, 0) for x, y in near)
    middle, level = (x0 + x1 - wide) / 2, (y0 + y1 - high) / 2
    for ring in range(1, _RINGS + 1):
        away = (ring - 0.5) * high
        left, right, above, below = x0 - wide - away, x1 + away, y0 - high - away, y1 + away
        for x, y in ((middle, above), (middle, below), (left, level), (right, level)):
            yield x, y, ring
        for x, y in ((left, above), (right, above), (left, below), (right, below)):
            yield x, y, ring


def _inner_points(mask: Mask, count: int = 3) -> list[Point]:
    """Points (x, y) deep inside the mask, the deepest first, apart from each other; none for an empty mask."""
    factor = max(1, max(mask.shape) // 160)
    small = np.ascontiguousarray(mask[::factor, ::factor], dtype=np.uint8)
    # Zeros around it: the picture's own border counts as an edge, so that chips keep away from it.
    depth = cv2.distanceTransform(np.pad(small, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    points = []
    for _ in range(count):
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        reach = float(depth[y, x])
        if reach <= 0:
            break
        points.append((float(x * factor), float(y * factor)))
        cv2.circle(depth, (int(x), int(y)), max(1, int(reach)), 0, -1)
    return points


def _nearest(chip: Chip, corners: Floats) -> Point:
    """The point of the mask within its box that is nearest to the middle of a rectangle; the box's if it is empty."""
    x, y = float(corners[[0, 2]].mean()), float(corners[[1, 3]].mean())
    height, width = chip.mask.shape
    x0, y0, x1, y1 = outer_pixels(chip.box, width, height)
    ys, xs = np.nonzero(chip.mask[y0:y1, x0:x1])
    if not len(xs):
        return min(max(x, x0), x1), min(max(y, y0), y1)
    index = int(((xs + x0 - x) ** 2 + (ys + y0 - y) ** 2).argmin())
    return float(xs[index] + x0), float(ys[index] + y0)


def _within(corners: Sequence[Point], extent: tuple[int, int], width: int, height: int) -> Floats:
    """Chips of this extent with these top left corners, moved into the picture: (N, 4), whole pixels."""
    limits = np.asarray([max(0, width - extent[0]), max(0, height - extent[1])])
    moved = np.clip(np.asarray(corners, dtype=np.float64), 0, limits).astype(np.int64)
    return np.concatenate([moved, moved + np.asarray(extent)], axis=1).astype(np.float64)


def _lead(draw: ImageDraw.ImageDraw, place: Place, color: Color) -> None:
    """The line from a chip that lies apart to its instance, ending in a dot."""
    if place.target is None:
        return
    x0, y0, x1, y1 = place.box
    start = ((x0 + x1) / 2, (y0 + y1) / 2)
    thickness = max(1, round(place.size / 10))
    radius = thickness + 1
    x, y = place.target
    draw.line((start, place.target), fill=dark_of(color), width=thickness + 2)
    draw.line((start, place.target), fill=color, width=thickness)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline=dark_of(color))


def _write_one(draw: ImageDraw.ImageDraw, place: Place, color: Color) -> None:
    x0, y0, x1, y1 = place.box
    draw.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), radius=place.size / 3, fill=color, outline=(20, 20, 20))
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    draw.text(middle, place.text, font=_font(place.size), fill=ink_on(color), anchor="mm")
