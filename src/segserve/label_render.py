"""Pictures of label maps: classes blended over a picture, color maps, cut-outs; with a legend of the classes.

Pictures are RGB uint8, H x W x 3; label maps hold an index into the classes, h x w. A label map of another size than
its picture's (that of a model's input) is laid over the whole picture. A class's color depends on the model's classes
only; "background" is black in color maps and left unpainted in overlays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from segserve import render
from segserve.colors import Color, class_colors
from segserve.imaging import Rgb
from segserve.label_maps import Labels, foreground, is_background, resized, shares
from segserve.legend import Entry, with_legend

__all__ = ["color_map", "colors_of_classes", "cutout", "legend_entries", "overlay"]

_BLACK: Color = (0, 0, 0)
_KEPT_COLOR = 0.2
"""How much of the picture's own color stays under a class's, 0..1."""
_ROWS = 256
"""So many rows are worked on at a time: the intermediate values of a 12-megapixel picture would take 150 MB."""


def overlay(
    image: Rgb,
    labels: Labels,
    classes: Sequence[str],
    *,
    opacity: float = 0.55,
    legend: bool = True,
    colors: Mapping[str, Color] | None = None,
) -> Rgb:
    """The picture with every class blended over it in its color, in full color at its borders, and the legend below.

    Under the classes' colors the picture is paled: lightness tells what it shows, color the class.

    Args:
        opacity: of the colors away from borders, 0..1.
        legend: whether to add the strip below the picture.
        colors: of classes that are to have others than their own, by name.

    Raises:
        ValueError: a pixel has an index that is no class's.
    """
    height, width = image.shape[:2]
    fitting = resized(labels, height, width)
    entries = legend_entries(labels, classes, unpainted=True, colors=colors)
    table = _table(classes, colors)
    unpainted = np.asarray([is_background(name) for name in classes])
    painted = np.empty_like(image)
    reach = max(1, round((height + width) / 1600))
    for top in range(0, height, _ROWS):
        bottom = min(top + _ROWS, height)
        above, below = max(0, top - reach), min(height, bottom + reach)
        border = _borders(fitting[above:below], reach)[top - above : bottom - above]
        before, part = image[top:bottom], fitting[top:bottom]
        pale, paint = _paled(before), _colored(part, table)
        made = cv2.addWeighted(pale, 1 - opacity, paint, opacity, 0)
        edge = (1 - opacity) / 4
        np.copyto(made, cv2.addWeighted(pale, edge, paint, 1 - edge, 0), where=border[..., None])
        if unpainted.any():
            np.copyto(made, before, where=unpainted[part][..., None])
        painted[top:bottom] = made
    return with_legend(painted, entries) if legend else painted


def color_map(labels: Labels, classes: Sequence[str], height: int, width: int, *, legend: bool = True) -> Rgb:
    """The label map as a picture of height x width: each class in its color, and the legend below.

    Raises:
        ValueError: a pixel has an index that is no class's.
    """
    entries = legend_entries(labels, classes)
    painted = _colored(resized(labels, height, width), _table(classes))
    return with_legend(painted, entries) if legend else painted


def cutout(image: Rgb, labels: Labels, classes: Sequence[str]) -> NDArray[np.uint8]:
    """The picture as RGBA with the class "background" transparent; wholly opaque where no class is called so."""
    height, width = image.shape[:2]
    return render.cutout(image, foreground(resized(labels, height, width), classes))


def legend_entries(
    labels: Labels, classes: Sequence[str], *, unpainted: bool = False, colors: Mapping[str, Color] | None = None
) -> list[Entry]:
    """The classes that a label map shows, by falling share.

    Args:
        unpainted: whether "background" has no color, as in overlays.
        colors: as in overlay.

    Raises:
        ValueError: a pixel has an index that is no class's.
    """
    table = _table(classes, colors)
    found = shares(labels, len(classes))
    entries = []
    for index in np.argsort(-found, kind="stable"):
        if found[index] > 0:
            red, green, blue = (int(channel) for channel in table[index])
            color = None if unpainted and is_background(classes[index]) else (red, green, blue)
            entries.append(Entry(classes[index], float(found[index]), color))
    return entries


def colors_of_classes(classes: Sequence[str]) -> list[Color]:
    """The color of each class in color maps and overlays; "background" has black."""
    # Without "background" among them: no other class should lose its color to it.
    named = tuple(name for name in classes if not is_background(name))
    colors = dict(zip(named, class_colors(named), strict=True))
    return [colors.get(name, _BLACK) for name in classes]


def _table(classes: Sequence[str], colors: Mapping[str, Color] | None = None) -> NDArray[np.uint8]:
    """C x 3: the classes' colors."""
    chosen = zip(classes, colors_of_classes(classes), strict=True)
    return np.asarray([(colors or {}).get(name, own) for name, own in chosen], dtype=np.uint8).reshape(-1, 3)


def _colored(labels: Labels, table: NDArray[np.uint8]) -> Rgb:
    """H x W x 3: the color of each pixel's class."""
    if labels.dtype != np.uint8 or len(table) > 256:
        return table[labels]
    # OpenCV's look-up is ten times as fast as indexing, and takes tables of 256 colors only.
    full = np.zeros((256, 1, 3), dtype=np.uint8)
    full[: len(table), 0] = table
    return np.asarray(cv2.applyColorMap(labels, full), dtype=np.uint8)


def _paled(image: Rgb) -> Rgb:
    """With little of its own color left: a class's pink over a green sofa would look like another class's brown."""
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(image, _KEPT_COLOR, gray, 1 - _KEPT_COLOR, 0), dtype=np.uint8)


def _borders(labels: Labels, reach: int) -> NDArray[np.bool_]:
    """Where another class is within reach pixels."""
    window = np.ones((2 * reach + 1, 2 * reach + 1), dtype=np.uint8)
    return np.asarray(cv2.dilate(labels, window) != cv2.erode(labels, window))
