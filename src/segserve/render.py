"""Pictures of results: overlays, cut-outs, masks and crops, and a product image laid over a masked surface.

Pictures are RGB uint8, H x W x 3; masks are bool, H x W. Every function returns a new array and leaves its input alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segserve.boxes import outer_pixels
from segserve.imaging import Rgb
from segserve.masks import Mask, bounding_box

__all__ = ["Drawable", "Drawing", "colors_of", "crops", "cutout", "mask_image", "overlay"]

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Rectangle = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels, ends exclusive."""

PALETTE: tuple[Color, ...] = (
    (230, 57, 70), (29, 122, 214), (46, 164, 79), (255, 196, 0), (150, 70, 200), (255, 127, 39),
    (0, 184, 196), (232, 62, 168), (140, 190, 20), (100, 84, 235), (0, 135, 110), (180, 92, 40),
    (255, 140, 150), (90, 190, 255), (190, 150, 255), (110, 120, 60),
)  # fmt: skip
"""Colors of labels, any two well apart."""

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


def colors_of(labels: Iterable[str]) -> dict[str, Color]:
    """A color for each label: the same in every picture, unless two labels of one picture would share it.

    The label's CRC-32 picks the color. Of labels with the same pick, the one of fewest words keeps it ("wall" rather
    than "red chair"), and the others take colors that no label of the picture has picked. With more labels than
    colors, colors repeat.
    """
    ordered = sorted(set(labels), key=lambda label: (label.count(" "), label))
    picks = {label: zlib.crc32(label.encode()) % len(PALETTE) for label in ordered}
    owners = {pick: label for label, pick in reversed(picks.items())}
    free = [index for index in range(len(PALETTE)) if index not in owners]
    chosen = {label: PALETTE[pick] for pick, label in owners.items()}
    for label in ordered:
        if label not in chosen:
            # The next free one after its own pick, so that it depends on the others as little as can be.
            index = min(free, key=lambda index: (index - picks[label]) % len(PALETTE)) if free else picks[label]
            chosen[label] = PALETTE[index]
            if free:
                free.remove(index)
    return chosen


def overlay(image: Rgb, instances: Sequence[Drawable], *, opacity: float = 0.42, chips: bool = True) -> Rgb:
    """The picture with every instance tinted and outlined in its label's color, and named on a chip with its score.

    Large instances are painted first, so that what stands before them stays visible. Chips are placed, best score
    first, where they cover no other chip if there is such a place. Pictures under 48 pixels a side get no chips.

    Args:
        opacity: of the tint, 0..1.
        chips: whether to write labels and scores.

    Raises:
        ValueError: a mask has not the picture's size.
    """
    height, width = image.shape[:2]
    colors = colors_of(instance.label for instance in instances)
    painted = image.copy()
    thickness = max(1, round((height + width) / 700))
    masks = [_checked(instance.mask, image) for instance in instances]
    for index in sorted(range(len(masks)), key=lambda position: -int(np.count_nonzero(masks[position]))):
        _paint(painted, masks[index], colors[instances[index].label], opacity, thickness)
    if not chips or min(height, width) < _SMALLEST_WITH_CHIPS:
        return painted
    return _with_chips(painted, instances, masks, colors)


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


def _paint(canvas: Rgb, mask: Mask, color: Color, opacity: float, thickness: int) -> None:
    """Tint and outline one mask in place."""
    box = bounding_box(mask)
    if box is None:
        return
    x0, y0, x1, y1 = box
    inside = mask[y0:y1, x0:x1]
    part = canvas[y0:y1, x0:x1]
    tint = np.float32(opacity) * np.asarray(color, dtype=np.float32)
    part[inside] = np.rint(part[inside] * np.float32(1 - opacity) + tint).astype(np.uint8)
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x0, y0))
    # A dark line under the colored one keeps the outline visible on a surface of the label's own color.
    cv2.drawContours(canvas, contours, -1, tuple(channel * 2 // 5 for channel in color), thickness + 2, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, color, thickness, cv2.LINE_AA)


def _with_chips(image: Rgb, instances: Sequence[Drawable], masks: Sequence[Mask], colors: dict[str, Color]) -> Rgb:
    height, width = image.shape[:2]
    size = float(np.clip(0.027 * (height * width) ** 0.5, 11, 96))
    font = ImageFont.load_default(size)
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    placed: list[Rectangle] = []
    for index in sorted(range(len(instances)), key=lambda position: -instances[position].score):
        instance = instances[index]
        text = _fitting(f"{instance.label} {instance.score:.2f}", font, draw, 0.9 * width)
        extent = (int(draw.textlength(text, font=font) + 0.7 * size), int(1.45 * size))
        where = _place(extent, _anchors(instance.box, masks[index], extent), placed, width, height)
        placed.append(where)
        color = colors[instance.label]
        draw.rounded_rectangle(
            (where[0], where[1], where[2] - 1, where[3] - 1), radius=size / 3, fill=color, outline=(20, 20, 20)
        )
        middle = ((where[0] + where[2]) / 2, (where[1] + where[3]) / 2)
        draw.text(middle, text, font=font, fill=_ink_on(color), anchor="mm")
    return np.array(picture, dtype=np.uint8)


def _ink_on(color: Color) -> Color:
    """Black or white, whichever reads better on color (relative luminance as in WCAG 2)."""
    linear = (np.asarray(color) / 255) ** 2.2
    luminance = float(linear @ np.asarray([0.2126, 0.7152, 0.0722]))
    return (255, 255, 255) if luminance < 0.18 else (15, 15, 15)


def _fitting(text: str, font: Font, draw: ImageDraw.ImageDraw, width: float) -> str:
    """The text, its label cut with an ellipsis until it is no wider than width pixels."""
    label, _, score = text.rpartition(" ")
    while len(label) > 1 and draw.textlength(text, font=font) > width:
        label = label[:-1]
        text = f"{label}… {score}"
    return text


def _anchors(box: Sequence[float], mask: Mask, size: tuple[int, int]) -> Iterator[tuple[float, float]]:
    """Top left corners for a chip, the best place first.

    Walls and floors reach over most of the picture, where a corner of the box says nothing: their chips go to
    the middle of their widest part. Chips of other objects sit on top of the box.
    """
    x0, y0, x1, y1 = box
    chip_width, chip_height = size
    surface = (x1 - x0) * (y1 - y0) > 0.2 * mask.size or y0 < chip_height
    spots = [(x - chip_width / 2, y - chip_height / 2) for x, y in _inner_points(mask)]
    rim = [(x0, y0 - chip_height), (x0, y0), (x1 - chip_width, y0 - chip_height), (x0, y1), (x1 - chip_width, y1)]
    yield from (*spots, *rim) if surface else (*rim[:2], *spots, *rim[2:])


def _inner_points(mask: Mask, count: int = 3) -> list[tuple[float, float]]:
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


def _place(
    size: tuple[int, int], anchors: Iterable[tuple[float, float]], placed: Sequence[Rectangle], width: int, height: int
) -> Rectangle:
    """The first place within the picture that covers no other chip, else the one that covers least."""
    best: Rectangle | None = None
    least = np.inf
    for x, y in anchors:
        left = int(np.clip(x, 0, max(0, width - size[0])))
        top = int(np.clip(y, 0, max(0, height - size[1])))
        candidate = (left, top, left + size[0], top + size[1])
        covered = sum(_common_area(candidate, other) for other in placed)
        if covered < least:
            best, least = candidate, covered
        if covered == 0:
            break
    return best or (0, 0, *size)


def _common_area(first: Rectangle, second: Rectangle) -> int:
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    return max(0, across) * max(0, down)
