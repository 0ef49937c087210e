"""A legend: a strip below a picture that tells which color stands for which class, and how much of the picture it has.

The picture itself stays as it is: rows 0 to H - 1 of what comes out are those that went in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segserve.colors import Color
from segserve.imaging import Rgb

__all__ = ["LEAST_WIDTH", "Entry", "percent", "with_legend"]

LEAST_WIDTH = 48
"""Narrower pictures, in pixels, get no legend: nothing could be read in it."""

_PAPER, _INK, _FAINT, _EDGE = (250, 250, 250), (24, 24, 28), (92, 92, 100), (120, 120, 128)
"""Light in any case, with dark writing: readable on light pages and on dark ones. Edge: around the swatches."""

_FONT_SIZES = (10.0, 64.0)
_LEAST_FONT_SIZE = 9.0
_MOST_COLUMNS = 6
_MOST_ENTRIES = 48
_LONGEST_NAME = 14
"""In font sizes, about two letters each: one endless name does not make all the others small."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Entry:
    """One line of a legend. share: of the picture, 0..1; color: None for what is left unpainted."""

    name: str
    share: float
    color: Color | None


@dataclass(frozen=True)
class _Grid:
    """Where the entries go, in pixels.

    Attributes:
        size: of the font.
        columns, rows: of entries, read down the columns.
        cell: width of a column.
        line: height of a line of writing.
        margin: around the strip's content.
        stacked: the shares stand below the names, for there is no room beside them.
    """

    size: float
    columns: int
    rows: int
    cell: int
    line: int
    margin: int
    stacked: bool

    @property
    def gap(self) -> int:
        """Between columns: wide enough that a share is not taken for that of the next column's class."""
        return 3 * self.margin

    @property
    def entry_height(self) -> int:
        return ceil(self.line * (1.85 if self.stacked else 1))

    @property
    def height(self) -> int:
        return self.rows * self.entry_height + 2 * self.margin

    @property
    def swatch(self) -> int:
        """Width of the swatches, and of the space behind them."""
        return max(6, round(0.95 * self.size))


def with_legend(picture: Rgb, entries: Sequence[Entry]) -> Rgb:
    """The picture, H x W x 3, with the legend below it: as wide, higher; entries by falling share.

    Entries that do not fit beside each other go into several columns, or into one. Long names are cut. Pictures
    under 48 pixels of width and legends without entries add nothing.
    """
    height, width = picture.shape[:2]
    if not entries or width < LEAST_WIDTH:
        return picture
    shown = _shortened(sorted(entries, key=lambda entry: (-entry.share, entry.name)))
    grid = _grid(shown, width, height)
    made = np.empty((height + grid.height, width, 3), dtype=np.uint8)
    made[:height] = picture
    made[height:] = _strip(shown, grid, width)
    return made


def percent(share: float) -> str:
    """A share as people read it: ``"37.2 %"``; more than nothing is never shown as 0."""
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def _shortened(entries: Sequence[Entry]) -> list[Entry]:
    """The largest entries, and one for what they leave out."""
    if len(entries) <= _MOST_ENTRIES:
        return list(entries)
    rest = entries[_MOST_ENTRIES - 1 :]
    return [*entries[: _MOST_ENTRIES - 1], Entry(f"{len(rest)} more", sum(entry.share for entry in rest), None)]


def _grid(entries: Sequence[Entry], width: int, height: int) -> _Grid:
    """The largest writing with which every entry fits whole; in the narrowest pictures, names below percentages."""
    largest = float(np.clip(0.021 * (height * width) ** 0.5, *_FONT_SIZES))
    for factor in (1.0, 0.9, 0.8, 0.7):
        size = max(factor * largest, _LEAST_FONT_SIZE)
        grid = _fitted(entries, width, size, stacked=False)
        if grid is not None:
            return grid
    grid = _fitted(entries, width, _LEAST_FONT_SIZE, stacked=True)
    return grid or _one_column(entries, width, _LEAST_FONT_SIZE, stacked=True)


def _fitted(entries: Sequence[Entry], width: int, size: float, *, stacked: bool) -> _Grid | None:
    """As many columns as there is room for; None where not even one fits."""
    single = _one_column(entries, width, size, stacked=stacked)
    needed = max(_needed(entry, single) for entry in entries)
    if needed > single.cell:
        return None
    most = min((single.cell + single.gap) // (needed + single.gap), _MOST_COLUMNS)
    rows = ceil(len(entries) / most)
    # Fewer columns may do for as many rows. They are no wider than need be, lest a name and its share drift apart.
    return _Grid(size, ceil(len(entries) / rows), rows, needed, single.line, single.margin, stacked)


def _one_column(entries: Sequence[Entry], width: int, size: float, *, stacked: bool) -> _Grid:
    margin = max(3, round(min(0.75 * size, width / 16)))
    return _Grid(size, 1, len(entries), width - 2 * margin, ceil(1.5 * size), margin, stacked)


def _needed(entry: Entry, grid: _Grid) -> int:
    """The width of an entry that is not cut, but for a name that is longer than most."""
    font = _font(grid.size)
    name = min(font.getlength(_plain(entry.name)), _LONGEST_NAME * grid.size)
    share = font.getlength(percent(entry.share))
    beside = max(name, share) if grid.stacked else name + share + grid.size
    return ceil(1.5 * grid.swatch + beside)


def _strip(entries: Sequence[Entry], grid: _Grid, width: int) -> Rgb:
    strip = Image.new("RGB", (width, grid.height), _PAPER)
    draw = ImageDraw.Draw(strip)
    draw.line((0, 0, width, 0), fill=(212, 212, 216))
    for index, entry in enumerate(entries):
        column, row = divmod(index, grid.rows)
        x = grid.margin + column * (grid.cell + grid.gap)
        _write(draw, entry, grid, x, grid.margin + row * grid.entry_height)
    return np.array(strip, dtype=np.uint8)


def _write(draw: ImageDraw.ImageDraw, entry: Entry, grid: _Grid, x: int, y: int) -> None:
    """One entry, its top left corner at (x, y)."""
    font = _font(grid.size)
    top = y + (grid.line - grid.swatch) // 2
    box = (x, top, x + grid.swatch - 1, top + grid.swatch - 1)
    thickness = max(1, round(grid.size / 16))
    draw.rounded_rectangle(box, radius=grid.swatch / 5, fill=entry.color, outline=_EDGE, width=thickness)
    if entry.color is None:
        # Crossed out: nothing is painted for it.
        draw.line((box[0] + 1, box[3] - 1, box[2] - 1, box[1] + 1), fill=_EDGE, width=thickness)
    left, right = x + 1.5 * grid.swatch, x + grid.cell
    share = percent(entry.share)
    if grid.stacked:
        draw.text((left, y + 1.3 * grid.line), share, font=font, fill=_FAINT, anchor="lm")
        room = right - left
    else:
        draw.text((right, y + 0.5 * grid.line), share, font=font, fill=_FAINT, anchor="rm")
        room = right - left - font.getlength(share) - 0.5 * grid.size
    draw.text((left, y + 0.5 * grid.line), _cut(_plain(entry.name), font, room), font=font, fill=_INK, anchor="lm")


def _cut(name: str, font: Font, room: float) -> str:
    """The name, cut with an ellipsis where it is wider than room pixels."""
    text = name
    while len(name) > 1 and font.getlength(text) > room:
        name = name[:-1].rstrip()
        text = f"{name}…"
    return text


def _plain(name: str) -> str:
    return " ".join(name.split()) or "?"


@cache
def _font(size: float) -> Font:
    return ImageFont.load_default(size)
