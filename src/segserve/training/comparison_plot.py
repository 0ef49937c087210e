"""Plots of a comparison: accuracy against latency with the file's size as area, and AP50 of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from segserve.training.comparison import Comparison, Result

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5F5F5F")
"""Of the models, in order; told apart by color-blind readers too (Okabe and Ito)."""

_MOST_CLASSES = 30
_MOST_NUMBERED_BARS = 80
_MEGABYTE = 1e6
_AREA_PER_MEGABYTE = 8.0
"""Square points of a marker for each megabyte, before all are scaled to fit."""
_LARGEST_AREA, _SMALLEST_AREA = 2200.0, 40.0


def comparison_figure(comparison: Comparison, title: str) -> Figure:
    """Three panels (mask AP50 and mask AP against latency, mask AP50 by class), and one legend with the figures."""
    figure = Figure(figsize=(11, 8.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    grid = figure.add_gridspec(2, 2)
    _plot_accuracy(figure.add_subplot(grid[0, 0]), comparison.results, "mask_ap50", "mask AP50")
    _plot_accuracy(figure.add_subplot(grid[0, 1]), comparison.results, "mask_ap", "mask AP (IoU 0.50 to 0.95)")
    _plot_classes(figure.add_subplot(grid[1, :]), comparison)
    entries = [Patch(color=_color(number), label=_legend(each)) for number, each in enumerate(comparison.results)]
    figure.legend(handles=entries, loc="outside lower center", ncols=1, fontsize=10, frameon=False)
    return figure


def write_comparison_plot(comparison: Comparison, title: str, file: Path) -> None:
    """Writes the figure as PNG.

    Raises:
        OSError: it cannot be written.
    """
    comparison_figure(comparison, title).savefig(file, format="png", dpi=100)


def _plot_accuracy(axes: Axes, results: Sequence[Result], figure: str, name: str) -> None:
    """One marker for each model at its median latency, with a line to the latency of nine pictures in ten."""
    sizes = np.asarray([result.file_bytes / _MEGABYTE for result in results])
    values = [getattr(result.scores, figure) or 0.0 for result in results]
    scale = min(_AREA_PER_MEGABYTE, _LARGEST_AREA / float(sizes.max()))
    for number, (result, accuracy) in enumerate(zip(results, values, strict=True)):
        color, area = _color(number), max(_SMALLEST_AREA, scale * float(sizes[number]))
        axes.plot([result.median, result.p90], [accuracy] * 2, marker="|", markevery=[1], markersize=9, color=color)
        axes.scatter([result.median], [accuracy], s=area, color=color, alpha=0.5, linewidths=0)
        axes.scatter([result.median], [accuracy], s=9, color=color, zorder=3)
    axes.set_xlim(0, 1.12 * max(result.p90 for result in results))
    margin = max(0.04, 0.5 * (max(values) - min(values)))
    axes.set_ylim(max(0.0, min(values) - margin), max(values) + margin)
    axes.set_xlabel("latency of one picture, ms (median; line to the 90th percentile)")
    axes.set_ylabel(name)
    axes.set_title(f"{name.split(' (', maxsplit=1)[0]} against latency; area: size of the file", fontsize=11)
    axes.grid(alpha=0.3)


def _plot_classes(axes: Axes, comparison: Comparison) -> None:
    counts = {name: scores.instances for name, scores in comparison.results[0].scores.per_class.items()}
    shown = [name for name in comparison.classes if counts[name]]
    left_out = max(0, len(shown) - _MOST_CLASSES)
    if left_out:
        most = sorted(shown, key=lambda name: -counts[name])[:_MOST_CLASSES]
        shown = [name for name in shown if name in most]
    places = np.arange(len(shown))
    width = 0.8 / len(comparison.results)
    for number, result in enumerate(comparison.results):
        values = [result.scores.per_class[name].mask_ap50 or 0.0 for name in shown]
        offset = (number - (len(comparison.results) - 1) / 2) * width
        bars = axes.bar(places + offset, values, 0.92 * width, color=_color(number), label=result.name)
        if len(shown) * len(comparison.results) <= _MOST_NUMBERED_BARS:
            crowded = len(shown) * len(comparison.results) > _MOST_NUMBERED_BARS / 2.5
            axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2, rotation=90 if crowded else 0)
    axes.set_xticks(places, [f"{name}\n({counts[name]})" for name in shown], fontsize=9)
    if len(shown) > 14:
        axes.tick_params(axis="x", rotation=60)
    axes.set_ylim(0, 1.15)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylabel("mask AP50")
    more = f"; {left_out} classes of fewer objects are left out" if left_out else ""
    axes.set_title(f"mask AP50 by class (number of true objects){more}", fontsize=11)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)


def _legend(result: Result) -> str:
    shares = (("AP50", result.scores.mask_ap50), ("AP", result.scores.mask_ap))
    accuracy = ", ".join(f"mask {name} {value:.3f}" for name, value in shares if value is not None)
    return f"{result.name}: {result.file_bytes / _MEGABYTE:.1f} MB, {result.median:.0f} ms, {accuracy}"


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]
