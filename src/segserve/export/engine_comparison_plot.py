"""A picture of two engines' answers side by side: picture, label maps, and where and how far they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from segserve.colors import class_colors
from segserve.export.engine_comparison import EngineComparison, EngineSample
from segserve.imaging import Rgb

_MOST_CLASSES = 24
_COLUMN_INCHES = 3.25
_OTHER_CLASS = (255, 0, 0)
"""Of pixels that the engines give different classes, on the gray map of distances."""


def engine_figure(comparison: EngineComparison, classes: Sequence[str], title: str) -> Figure:
    """A row for each sample: the picture, each engine's label map, the logits' distance with other classes in red."""
    rows = len(comparison.samples)
    first, second = comparison.runtimes
    tallest = max(sample.image.shape[0] / sample.image.shape[1] for sample in comparison.samples)
    row_height = _COLUMN_INCHES * min(max(tallest, 0.3), 1.6) + 0.35
    figure = Figure(figsize=(4 * _COLUMN_INCHES, row_height * rows + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    colors = np.asarray(class_colors(tuple(classes)), dtype=np.uint8)
    axes = figure.subplots(rows, 4, squeeze=False)
    for row, sample in zip(axes, comparison.samples, strict=True):
        _show(row[0], sample.image, sample.name)
        _show(row[1], _fitted(colors[sample.labels[first]], sample), first)
        _show(row[2], _fitted(colors[sample.labels[second]], sample), second)
        _show_distance(row[3], sample)
    present = _present(comparison)
    entries = [Patch(color=colors[index] / 255, label=classes[index]) for index in present[:_MOST_CLASSES]]
    if len(present) > _MOST_CLASSES:
        entries.append(Patch(color="white", label=f"and {len(present) - _MOST_CLASSES} more"))
    figure.legend(handles=entries, loc="outside lower center", ncols=8, fontsize=9, frameon=False)
    return figure


def write_engine_plot(comparison: EngineComparison, classes: Sequence[str], title: str, file: Path) -> None:
    """Writes the figure as PNG.

    Raises:
        OSError: it cannot be written.
    """
    engine_figure(comparison, classes, title).savefig(file, format="png", dpi=90)


def _show(axes: Axes, image: Rgb, title: str) -> None:
    axes.imshow(image)
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def _show_distance(axes: Axes, sample: EngineSample) -> None:
    """How far the logits of each pixel lie apart, white for not at all; pixels of different classes in red."""
    furthest = float(np.nan_to_num(sample.apart, nan=np.inf).max())
    scale = furthest if 0 < furthest < np.inf else 1.0
    dark = np.nan_to_num(200 * sample.apart / scale, nan=200.0, posinf=200.0).clip(0, 200)
    picture = np.repeat(255 - dark.astype(np.uint8)[..., None], 3, axis=2)
    first, second = sample.labels.values()
    other = first != second
    picture[other] = _OTHER_CLASS
    _show(axes, _fitted(picture, sample), f"difference: at most {furthest:.1e}, {int(other.sum())} pixels differ")


def _fitted(image: NDArray[np.uint8], sample: EngineSample) -> Rgb:
    """A map of the model's size, seen in the picture's proportions; no pixel is blended with its neighbors."""
    height, width = sample.image.shape[:2]
    scale = min(1.0, 1024 / max(height, width))
    rows = np.arange(round(height * scale)) * image.shape[0] // max(1, round(height * scale))
    columns = np.arange(round(width * scale)) * image.shape[1] // max(1, round(width * scale))
    fitted: Rgb = image[rows][:, columns]
    return fitted


def _present(comparison: EngineComparison) -> list[int]:
    """Classes that any engine sees in any sample, the most frequent first."""
    counts: dict[int, int] = {}
    for sample in comparison.samples:
        for each in sample.labels.values():
            labels, pixels = np.unique(each, return_counts=True)
            for label, number in zip(labels.tolist(), pixels.tolist(), strict=True):
                counts[label] = counts.get(label, 0) + number
    return sorted(counts, key=lambda label: -counts[label])
