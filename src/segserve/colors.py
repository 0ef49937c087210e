"""Colors of labels, of their instances and of classes: the same in every picture, and readable ink on them."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from segserve.boxes import touching

__all__ = ["PALETTE", "SHADES", "Color", "class_colors", "colors_of", "dark_of", "ink_on", "instance_colors"]

Color = tuple[int, int, int]

PALETTE: tuple[Color, ...] = (
    (230, 57, 70), (29, 122, 214), (46, 164, 79), (255, 196, 0), (150, 70, 200), (255, 127, 39),
    (0, 184, 196), (232, 62, 168), (140, 190, 20), (100, 84, 235), (0, 135, 110), (180, 92, 40),
    (255, 140, 150), (90, 190, 255), (190, 150, 255), (110, 120, 60),
)  # fmt: skip
"""Colors of labels, any two well apart."""

SHADES: tuple[float, ...] = (0.0, 0.5, -0.4, 0.72)
"""How far instances that touch others of their label go from its color: towards white (to 1) or black (to -1)."""

_WHITE, _BLACK = (255, 255, 255), (15, 15, 15)


def colors_of(labels: Iterable[str]) -> dict[str, Color]:
    """A color for each label: the same in every picture, unless two labels of one picture would share it.

    The label's CRC-32 picks the color. Of labels with the same pick, the one of fewest words keeps it ("wall" rather
    than "red chair"), and the others take colors that no label of the picture has picked. With more labels than
    the palette has colors, the last get colors of their own, which may resemble others.
    """
    ordered = sorted(set(labels), key=lambda label: (label.count(" "), label))
    picks = {label: zlib.crc32(label.encode()) % len(PALETTE) for label in ordered}
    owners = {pick: label for label, pick in reversed(picks.items())}
    free = [index for index in range(len(PALETTE)) if index not in owners]
    chosen = {label: PALETTE[pick] for pick, label in owners.items()}
    for label in ordered:
        if label not in chosen:
            # The next free one after its own pick, so that it depends on the others as little as can be.
            index = min(free, key=lambda index: (index - picks[label]) % len(PALETTE), default=None)
            chosen[label] = _own_color(label) if index is None else PALETTE[index]
            if index is not None:
                free.remove(index)
    return chosen


def instance_colors(
    labels: Sequence[str], boxes: Sequence[Sequence[float]], margin: float = 0.0, known: Iterable[str] = ()
) -> list[Color]:
    """A color for each instance: its label's own, or a shade of it beside another of the label.

    The first of instances that touch keeps the label's color, and each later one takes the first shade that none of
    its neighbors has; with more neighbors than shades, the one that fewest have.

    Args:
        labels: of N instances.
        boxes: theirs, in pixels.
        margin: boxes of one label that are no further apart than this touch, in pixels.
        known: labels that other pictures may show; colors are shared out among these too.
    """
    colors = colors_of((*labels, *known))
    neighbors = touching(np.asarray(boxes, dtype=np.float64).reshape(-1, 4), margin)
    chosen: list[int] = []
    for index, label in enumerate(labels):
        taken = [chosen[other] for other in range(index) if neighbors[index, other] and labels[other] == label]
        chosen.append(min(range(len(SHADES)), key=lambda shade: (taken.count(shade), shade)))
    return [_shaded(colors[label], SHADES[shade]) for label, shade in zip(labels, chosen, strict=True)]


@lru_cache(maxsize=32)
def class_colors(classes: tuple[str, ...]) -> tuple[Color, ...]:
    """A color for each class of a model: as colors_of while the palette lasts, then colors far from those given.

    It depends on the model's classes only, not on a picture. Classes of one name share a color.
    """
    names = tuple(dict.fromkeys(classes))
    # The first classes as such: among more names than colors, colors_of would give some that resemble each other.
    chosen = colors_of(names[: len(PALETTE)])
    rest = names[len(PALETTE) :]
    if rest:
        hues = [hue / 24 for hue in range(24)]
        tones = product(hues, (0.35, 0.6, 0.9), (0.4, 0.6, 0.8, 0.97))
        candidates = np.rint([[255 * part for part in colorsys.hsv_to_rgb(*tone)] for tone in tones]).astype(np.uint8)
        places = _lab(candidates)
        apart = np.full(len(candidates), np.inf)
        for taken in _lab(np.asarray([*chosen.values(), (0, 0, 0), (255, 255, 255)], dtype=np.uint8)):
            apart = np.minimum(apart, np.linalg.norm(places - taken, axis=1))
        for name in rest:
            best = int(apart.argmax())
            red, green, blue = (int(channel) for channel in candidates[best])
            chosen[name] = (red, green, blue)
            apart = np.minimum(apart, np.linalg.norm(places - places[best], axis=1))
    return tuple(chosen[name] for name in classes)


def dark_of(color: Color) -> Color:
    """The color's dark companion, for the line under a line of the color."""
    red, green, blue = (channel // 4 for channel in color)
    return red, green, blue


def ink_on(color: Color) -> Color:
    """White or nearly black, whichever reads better on color.

    White wins while its contrast (WCAG 2) is 4 or more: on middle tones, where both have that, it reads better.
    """
    linear = (np.asarray(color) / 255) ** 2.2
    luminance = float(linear @ np.asarray([0.2126, 0.7152, 0.0722]))
    return _WHITE if luminance < 0.2 else _BLACK


def _own_color(label: str) -> Color:
    """Any hue, strong or muted, as the label's CRC-32 says."""
    code = zlib.crc32(label.encode())
    saturation, value = ((0.85, 0.85), (0.5, 0.95), (0.75, 0.6))[code // 997 % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(code % 997 / 997, saturation, value))
    return red, green, blue


def _shaded(color: Color, shade: float) -> Color:
    end = 255 if shade > 0 else 0
    red, green, blue = (round(channel + (end - channel) * abs(shade)) for channel in color)
    return red, green, blue


def _lab(colors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """N x 3 colors in CIE Lab, where distances are about as large as differences look."""
    return np.asarray(cv2.cvtColor(colors[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0], dtype=np.float32)
