"""Boxes: tables of tiny examples, and a slow reference for IoU."""

from __future__ import annotations

import numpy as np
import pytest

from segserve import boxes


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),
        ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0.0),
        ([0, 0, 4, 4], [1, 1, 3, 3], 0.25),
        ([3, 3, 1, 1], [1, 1, 3, 3], 0.0),
        ([1, 1, 1, 1], [1, 1, 1, 1], 0.0),
    ],
)
def test_iou_of_two_boxes(first: list[float], second: list[float], expected: float) -> None:
    assert boxes.iou_matrix(np.array([first], float), np.array([second], float))[0, 0] == pytest.approx(expected)


def test_iou_matrix_agrees_with_counting_pixels() -> None:
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 12, (9, 2, 2)), axis=1)
    first = np.concatenate([corners[:, 0], corners[:, 1]], axis=1).astype(float)
    pixels = np.zeros((9, 12, 12), bool)
    for canvas, (x0, y0, x1, y1) in zip(pixels, first.astype(int), strict=True):
        canvas[y0:y1, x0:x1] = True
    matrix = boxes.iou_matrix(first, first)
    for i in range(9):
        for j in range(9):
            union = (pixels[i] | pixels[j]).sum()
            assert matrix[i, j] == pytest.approx((pixels[i] & pixels[j]).sum() / union if union else 0)


@pytest.mark.parametrize(
    ("other", "common", "margin", "touch"),
    [
        ([1, 1, 3, 3], 1.0, 0, True),
        ([2, 0, 4, 2], 0.0, 0, True),
        ([2.5, 0, 4, 2], 0.0, 0, False),
        ([2.5, 2.5, 4, 4], 0.0, 0.5, True),
        ([2.5, 3, 4, 4], 0.0, 0.5, False),
    ],
)
def test_common_area_and_touch(other: list[float], common: float, margin: float, touch: bool) -> None:
    both = np.array([[0, 0, 2, 2], other], float)
    assert boxes.overlap_matrix(both, both)[0, 1] == common
    matrix = boxes.touching(both, margin)
    assert matrix.tolist() == [[True, touch], [touch, True]]


OVERLAPPING = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 9]], float)


@pytest.mark.parametrize(
    ("scores", "threshold", "kept"),
    [
        ([0.9, 0.8, 0.7, 0.6], 0.5, [0, 2]),
        ([0.6, 0.9, 0.7, 0.8], 0.5, [1, 2]),
        ([0.9, 0.8, 0.7, 0.6], 0.85, [0, 1, 2]),
        ([0.9, 0.8, 0.7, 0.6], 1.0, [0, 1, 2, 3]),
        ([0.5, 0.5, 0.5, 0.5], 0.5, [0, 2]),
    ],
)
def test_non_maximum_suppression(scores: list[float], threshold: float, kept: list[int]) -> None:
    assert boxes.non_maximum_suppression(OVERLAPPING, np.array(scores), threshold).tolist() == kept


def test_suppression_by_label_leaves_other_labels_alone_and_sorts_by_score() -> None:
    kept = boxes.non_maximum_suppression_by_label(
        OVERLAPPING, np.array([0.6, 0.9, 0.7, 0.8]), ["sofa", "sofa", "rug", "bed"], 0.5
    )
    assert kept.tolist() == [1, 3, 2]


def test_no_boxes() -> None:
    nothing = np.zeros((0, 4))
    assert boxes.non_maximum_suppression(nothing, np.zeros(0), 0.5).tolist() == []
    assert boxes.non_maximum_suppression_by_label(nothing, np.zeros(0), [], 0.5).tolist() == []


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([1.2, 2.8, 5.1, 6.0], (1, 2, 6, 6)),
        ([-5, -5, 99, 99], (0, 0, 20, 10)),
        ([3, 3, 3, 3], (3, 3, 4, 4)),
        ([50, 50, 60, 60], (19, 9, 20, 10)),
    ],
)
def test_outer_pixels(box: list[float], expected: tuple[int, ...]) -> None:
    assert boxes.outer_pixels(box, width=20, height=10) == expected


def test_clip() -> None:
    assert boxes.clip(np.array([[-1.0, 2.0, 30.0, 40.0]]), 20, 10).tolist() == [[0, 2, 20, 10]]
