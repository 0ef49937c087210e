"""What ``segserve demo`` makes of the semantic model's answers: agreement with the truth, a table, a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from segserve.colors import Color
    from segserve.imaging import Rgb
    from segserve.masks import Mask
    from segserve.results import Result
    from segserve.training.scenes import Scene

Answered = Sequence[tuple["Scene", "Result"]]
"""Scenes, each with the label map that the model answered."""


def class_ious(answered: Answered) -> dict[str, float]:
    """Of each class that the scenes show: the IoU of its pixels with those that were given it, over all scenes; 0..1.

    Raises:
        ValueError: a result has no label map of its scene's size.
    """
    return {name: iou for name, true, _, iou in _agreement(answered) if true > 0}


def class_table(answered: Answered) -> Table:
    """For each class: its share of the scenes' pixels in truth and in the answers, and their IoU over all scenes."""
    from rich.table import Table

    table = Table("class", "true %", "found %", "IoU", title="pixel by pixel: semantic", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, true, found, iou in _agreement(answered):
        table.add_row(name, f"{100 * true:.1f}", f"{100 * found:.1f}", f"{iou:.3f}")
    ious = class_ious(answered).values()
    table.add_row("mean", "", "", f"{sum(ious) / max(1, len(ious)):.3f}", style="bold")
    return table


def with_class_legend(sheet: Rgb, results: Sequence[Result], colors: Mapping[str, Color]) -> Rgb:
    """The sheet with a legend below it: the classes that the results show, and their share of all their pixels."""
    import numpy as np

    from segserve.label_render import legend_entries
    from segserve.legend import with_legend

    maps = [result.label_map.ravel() for result in results if result.label_map is not None]
    if not maps:
        return sheet
    together = np.concatenate(maps)[None].astype(np.uint16)
    return with_legend(sheet, legend_entries(together, results[0].classes, colors=colors))


def _agreement(answered: Answered) -> list[tuple[str, float, float, float]]:
    """Name, true share, found share and IoU of each class that is in the scenes or in the answers."""
    import numpy as np

    from segserve.training.scenes import CATEGORIES

    rows: list[tuple[str, float, float, float]] = []
    for index, name in enumerate(CATEGORIES):
        true = np.concatenate([(scene.semantic == index).ravel() for scene, _ in answered])
        found = np.concatenate([_pixels_of(result, name).ravel() for _, result in answered])
        either = np.count_nonzero(true | found)
        if either:
            rows.append((name, float(true.mean()), float(found.mean()), float(np.count_nonzero(true & found) / either)))
    return rows


def _pixels_of(result: Result, name: str) -> Mask:
    """H x W bool: where the result's label map says the class; nowhere where the model does not know it."""
    import numpy as np

    labels = result.label_map
    if labels is None or labels.shape != (result.height, result.width):
        raise ValueError("the semantic model answered no label map of the room's size")
    if name not in result.classes:
        return np.zeros(labels.shape, dtype=bool)
    return np.asarray(labels == result.classes.index(name))
