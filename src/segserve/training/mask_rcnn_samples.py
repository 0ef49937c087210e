"""Sheets of sample pictures: each picture with its true objects, and beside them what one or several models found.

rows = [SampleRow(image, truth_drawings(picture, dataset.classes), answer.instances), ...]
write_sheet(sample_sheet(rows), out / "samples" / "epoch_003.jpg")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segserve.imaging import Rgb
from segserve.render import Drawable, Drawing, overlay
from segserve.training.coco import LabeledPicture

WIDTH = 1280
HEADINGS = ("truth", "prediction")
_GAP, _HEADING_HEIGHT, _HEADING_SIZE = 8, 34, 20.0
_PAPER, _INK = (255, 255, 255), (25, 25, 25)
_TALLEST = 1.25
"""Of a cell's height to its width; taller pictures are made narrower than their column."""


@dataclass(frozen=True)
class SampleRow:
    """One picture (H x W x 3) with its true objects and the found ones, in its pixels."""

    image: Rgb
    truth: Sequence[Drawable]
    found: Sequence[Drawable]


def truth_drawings(picture: LabeledPicture, classes: Sequence[str]) -> list[Drawing]:
    """The true objects of a picture that count, with a score of 1; ignored ones and crowds are left out."""
    return [
        Drawing(classes[item.class_index], 1.0, item.box, item.mask(picture.height, picture.width))
        for item in picture.objects
        if not (item.crowd or item.ignore)
    ]


def sample_sheet(
    rows: Sequence[SampleRow], width: int = WIDTH, headings: Sequence[str] = HEADINGS, labels: Sequence[str] = ()
) -> Rgb:
    """The rows below each other, truth on the left and prediction on the right, under headings.

    Args:
        rows: at least one.
        width: of the sheet, in pixels.
        headings: of the two columns.
        labels: all that objects may have; with them, colors are the same on every sheet.

    Raises:
        ValueError: no rows, or a mask that has not its picture's size.
    """
    return drawing_sheet([(row.image, (row.truth, row.found)) for row in rows], headings, width, labels)


def drawing_sheet(
    rows: Sequence[tuple[Rgb, Sequence[Sequence[Drawable]]]],
    headings: Sequence[str],
    width: int = WIDTH,
    labels: Sequence[str] = (),
) -> Rgb:
    """Each row's picture drawn once for each heading, with that column's objects on it.

    Pictures are brought to their column's width before anything is drawn on them, so that labels stay readable. A
    label has one color on the whole sheet.

    Args:
        rows: at least one; of each, the picture and as many sequences of objects as there are headings.
        headings: of the columns.
        width: of the sheet, in pixels.
        labels: all that objects may have; with them, colors are the same on every sheet.

    Raises:
        ValueError: no rows or headings, a row of another length, or a mask that has not its picture's size.
    """
    if not rows or not headings:
        raise ValueError("a sheet needs at least one row and one heading")
    column = (width - _GAP * (len(headings) + 1)) // len(headings)
    known = sorted({*labels, *(item.label for _, columns in rows for objects in columns for item in objects)})
    cells = [[_cell(image, objects, column, known) for objects in columns] for image, columns in rows]
    if any(len(row) != len(headings) for row in cells):
        raise ValueError(f"each row of a sheet needs {len(headings)} columns")
    height = _HEADING_HEIGHT + sum(row[0].shape[0] + _GAP for row in cells)
    sheet = np.full((height, width, 3), _PAPER, dtype=np.uint8)
    top = _HEADING_HEIGHT
    for row in cells:
        for number, cell in enumerate(row):
            left = _GAP + number * (column + _GAP) + (column - cell.shape[1]) // 2
            sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
        top += row[0].shape[0] + _GAP
    return _with_headings(sheet, headings, column)


def write_sheet(sheet: Rgb, file: Path) -> None:
    """Writes a sheet as the format of its name (.jpg or .png), whole or not at all; makes the folder.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.stem}.partial{file.suffix}")
    Image.fromarray(sheet).save(partial, quality=88)
    partial.replace(file)


def write_samples(rows: Sequence[SampleRow], file: Path, width: int = WIDTH, labels: Sequence[str] = ()) -> None:
    """The sheet of the rows as a picture file; see sample_sheet and write_sheet."""
    write_sheet(sample_sheet(rows, width, labels=labels), file)


def _cell(image: Rgb, objects: Sequence[Drawable], column: int, labels: Sequence[str]) -> Rgb:
    """The picture as wide as a column (narrower when it is very tall), with the objects drawn on it."""
    height, width = image.shape[:2]
    scale = min(column / width, _TALLEST * column / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = np.asarray(cv2.resize(image, size, interpolation=smooth), dtype=np.uint8)
    return overlay(resized, [_resized(item, image, size) for item in objects], labels=labels)


def _resized(item: Drawable, image: Rgb, size: tuple[int, int]) -> Drawing:
    mask = item.mask
    if mask.shape != image.shape[:2]:
        raise ValueError(f"a mask of {mask.shape} does not fit a picture of {image.shape[:2]}")
    across, down = size[0] / image.shape[1], size[1] / image.shape[0]
    larger = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    x0, y0, x1, y1 = item.box
    return Drawing(item.label, item.score, (x0 * across, y0 * down, x1 * across, y1 * down), larger.astype(bool))


def _with_headings(sheet: Rgb, headings: Sequence[str], column: int) -> Rgb:
    picture = Image.fromarray(sheet)
    draw = ImageDraw.Draw(picture)
    for number, heading in enumerate(headings):
        size = _HEADING_SIZE
        while size > 9 and draw.textlength(heading, font=ImageFont.load_default(size)) > column:
            size -= 1
        middle = (_GAP + number * (column + _GAP) + column / 2, _HEADING_HEIGHT / 2)
        draw.text(middle, heading, font=ImageFont.load_default(size), fill=_INK, anchor="mm")
    return np.array(picture, dtype=np.uint8)
