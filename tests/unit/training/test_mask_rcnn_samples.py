"""Sheets of sample pictures: where things are, in which colors, and what is written to disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segserve.colors import colors_of
from segserve.masks import encode_rle
from segserve.render import Drawing
from segserve.training.coco import LabeledObject, LabeledPicture
from segserve.training.mask_rcnn_samples import (
    SampleRow,
    drawing_sheet,
    sample_sheet,
    truth_drawings,
    write_samples,
)

GRAY = np.full((60, 80, 3), 128, np.uint8)


def square(label: str, x: int, y: int, side: int = 30) -> Drawing:
    mask = np.zeros(GRAY.shape[:2], bool)
    mask[y : y + side, x : x + side] = True
    return Drawing(label, 0.75, (x, y, x + side, y + side), mask)


def nearest_color(pixels: np.ndarray, label: str) -> int:
    """How many pixels have the tint that a label's color gives to gray."""
    tint = 0.58 * 128 + 0.42 * np.asarray(colors_of([label])[label])
    return int((np.abs(pixels.astype(float) - tint).max(axis=-1) < 3).sum())


def test_truth_is_on_the_left_and_what_was_found_on_the_right() -> None:
    sheet = sample_sheet([SampleRow(GRAY, [square("chair", 10, 10)], [square("table", 40, 20)])], width=640)
    left, right = sheet[:, :320], sheet[:, 320:]
    assert nearest_color(left, "chair") > 2000
    assert nearest_color(left, "table") == 0
    assert nearest_color(right, "table") > 2000
    assert nearest_color(right, "chair") == 0


def test_objects_lie_where_they_do_in_the_picture() -> None:
    sheet = sample_sheet([SampleRow(GRAY, [square("chair", 40, 20)], [])], width=656)
    # Two columns of (656 - 3 * 8) / 2 = 316 pixels: a scale of 3.95, below 34 pixels of headings.
    tint = 0.58 * 128 + 0.42 * np.asarray(colors_of(["chair"])["chair"])
    inside = sheet[34 + 150, 8 + 220]
    outside = sheet[34 + 150, 8 + 140]
    assert np.abs(inside - tint).max() < 3
    assert outside.tolist() == [128, 128, 128]


def test_rows_of_pictures_of_any_shape_lie_below_each_other() -> None:
    shapes = [(60, 80), (200, 20), (20, 400), (1200, 900)]
    rows = [SampleRow(np.full((*shape, 3), 10 * n + 10, np.uint8), [], []) for n, shape in enumerate(shapes)]
    sheet = sample_sheet(rows, width=400)
    assert sheet.shape[1] == 400
    middle = 8 + 188 // 2
    values = [value for value in sheet[40:, middle, 0].tolist() if value < 100]
    assert list(dict.fromkeys(values)) == [10, 20, 30, 40]
    assert (sheet[:, :4] == 255).all(), "a margin"


def test_as_many_columns_as_headings() -> None:
    rows = [(GRAY, ([square("chair", 10, 10)], [], [square("lamp", 20, 20)]))]
    sheet = drawing_sheet(rows, ["truth", "small", "a name that is far too long for its column " * 3], width=600)
    thirds = np.array_split(sheet, 3, axis=1)
    assert [nearest_color(third, "chair") > 500 for third in thirds] == [True, False, False]
    assert [nearest_color(third, "lamp") > 500 for third in thirds] == [False, False, True]
    assert all((third[:34] < 128).any() for third in thirds), "each has its heading"


def test_a_label_has_one_color_on_the_whole_sheet_and_with_all_labels_known_on_every_sheet() -> None:
    # Labels of one pick: "wall" loses its own color beside "lamp", also where the lamp was not found.
    assert colors_of(["wall"])["wall"] == colors_of(["lamp"])["lamp"]
    beside = colors_of(["lamp", "wall"])["wall"]
    wall = square("wall", 40, 20)
    sheet = sample_sheet([SampleRow(GRAY, [square("lamp", 5, 20), wall], [wall])], width=640)
    alone = sample_sheet([SampleRow(GRAY, [], [wall])], width=640, labels=("wall", "lamp"))
    tint = 0.58 * 128 + 0.42 * np.asarray(beside)
    for half in (sheet[:, :320], sheet[:, 320:], alone[:, 320:]):
        assert int((np.abs(half.astype(float) - tint).max(axis=-1) < 3).sum()) > 2000


def test_what_makes_no_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        sample_sheet([])
    with pytest.raises(ValueError, match="2 columns"):
        drawing_sheet([(GRAY, ([],))], ["a", "b"])
    wrong = Drawing("chair", 0.5, (0, 0, 5, 5), np.ones((5, 5), bool))
    with pytest.raises(ValueError, match="does not fit"):
        sample_sheet([SampleRow(GRAY, [wrong], [])])


def test_truth_leaves_out_what_does_not_count() -> None:
    rle = encode_rle(square("", 5, 5).mask)
    flags = [(False, False), (True, False), (False, True)]
    objects = tuple(LabeledObject(n % 2, (5, 5, 35, 35), rle, crowd, ignore) for n, (crowd, ignore) in enumerate(flags))
    drawn = truth_drawings(LabeledPicture(1, Path("x.png"), 80, 60, objects), ("chair", "table"))
    assert [(item.label, item.score, item.box) for item in drawn] == [("chair", 1.0, (5, 5, 35, 35))]
    assert np.array_equal(drawn[0].mask, square("", 5, 5).mask)


@pytest.mark.parametrize("name", ["epoch_003.jpg", "epoch_003.png"])
def test_a_sheet_is_written_whole(tmp_path: Path, name: str) -> None:
    file = tmp_path / "new" / "samples" / name
    write_samples([SampleRow(GRAY, [square("chair", 10, 10)], [])], file, width=400)
    with Image.open(file) as picture:
        assert picture.size[0] == 400
        assert picture.format == {".jpg": "JPEG", ".png": "PNG"}[file.suffix]
    assert [path.name for path in file.parent.iterdir()] == [name]
