"""Masks: hand-drawn pictures with the expected result beside them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from segserve import masks


def draw(*rows: str) -> masks.Mask:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


RING = draw(
    ".......",
    ".#####.",
    ".#...#.",
    ".#...#.",
    ".#####.",
    ".......",
)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_rle_round_trip(seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) > 0.5
    rle = masks.encode_rle(mask)
    assert rle["size"] == [height, width]
    assert np.array_equal(masks.decode_rle(rle), mask)
    assert masks.area(rle) == mask.sum()


def test_rle_is_pycocotools_own() -> None:
    rle = masks.encode_rle(RING)
    assert np.array_equal(coco_mask.decode({"size": rle["size"], "counts": rle["counts"].encode()}), RING)


def test_many_rles_equal_one_by_one() -> None:
    stack = np.random.default_rng(1).random((4, 6, 7)) > 0.4
    assert masks.encode_rles(stack) == [masks.encode_rle(mask) for mask in stack]
    assert masks.encode_rles(stack[:0]) == []


@pytest.mark.parametrize("bad", [{}, {"size": [2, 2]}, {"size": "ab", "counts": "0"}, {"size": [2, 2], "counts": 4}])
def test_a_wrong_rle_is_a_value_error(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        masks.decode_rle(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (draw("##.."), draw(".##."), 1 / 3),
        (draw("####"), draw("####"), 1.0),
        (draw("#..."), draw("...#"), 0.0),
        (draw("...."), draw("...."), 0.0),
    ],
)
def test_iou(first: masks.Mask, second: masks.Mask, expected: float) -> None:
    assert masks.iou(first, second) == pytest.approx(expected)


def test_bounding_box() -> None:
    assert masks.bounding_box(RING) == (1, 1, 6, 5)
    assert masks.bounding_box(draw("...", "...")) is None


def test_polygons_are_outer_outlines_largest_first() -> None:
    two = draw(
        "..........",
        ".###......",
        ".###......",
        ".###.####.",
        ".....####.",
        ".....####.",
        ".....####.",
        "..........",
    )
    large, small = masks.to_polygons(two)
    assert sorted(map(tuple, large)) == [(5, 3), (5, 6), (8, 3), (8, 6)]
    assert sorted(map(tuple, small)) == [(1, 1), (1, 3), (3, 1), (3, 3)]
    assert np.array_equal(masks.from_polygons([large, small], *two.shape), two)


def test_polygon_of_a_ring_fills_its_hole() -> None:
    filled = masks.from_polygons(masks.to_polygons(RING), *RING.shape)
    assert filled.sum() == 20


def test_polygons_of_a_disc_stay_close_to_it() -> None:
    rows, columns = np.mgrid[:80, :80]
    disc = (rows - 40) ** 2 + (columns - 40) ** 2 < 30**2
    polygons = masks.to_polygons(disc)
    assert len(polygons[0]) < 60
    assert masks.iou(masks.from_polygons(polygons, 80, 80), disc) > 0.96


def noisy_square() -> tuple[masks.Mask, masks.Mask]:
    square = np.zeros((60, 60), bool)
    square[10:50, 10:50] = True
    noisy = square.copy()
    noisy[20:22, 20:23] = False  # a hole
    noisy[2:4, 2:5] = True  # a speck
    return noisy, square


def test_refine_drops_specks_and_closes_holes() -> None:
    noisy, square = noisy_square()
    refined = masks.refine(noisy)
    assert not refined[:8].any()
    assert refined[12:48, 12:48].all()
    assert masks.iou(refined, square) > 0.99


def test_refine_keeps_a_large_hole_unless_polygons_are_asked_for() -> None:
    frame = np.zeros((60, 60), bool)
    frame[10:50, 10:50] = True
    frame[20:40, 20:40] = False
    assert not masks.refine(frame)[30, 30]
    assert masks.refine(frame, polygon=True)[30, 30]


def test_refine_with_polygon_keeps_only_the_largest_part() -> None:
    parts = np.zeros((60, 60), bool)
    parts[5:45, 5:30] = True
    parts[5:25, 40:55] = True
    assert masks.refine(parts)[10, 50]
    assert not masks.refine(parts, polygon=True)[10, 50]


@pytest.mark.parametrize("mask", [np.zeros((9, 9), bool), np.eye(9, dtype=bool), np.ones((1, 1), bool)])
def test_refine_never_loses_a_mask(mask: masks.Mask) -> None:
    assert masks.refine(mask).any() == mask.any()
    assert masks.refine(mask, polygon=True).any() == mask.any()


@pytest.mark.parametrize("seed", range(6))
def test_the_box_of_a_compressed_mask_is_that_of_the_mask(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random((7, 9)) < (0.03, 0.1, 0.5, 0.97, 1.1, 0.2)[seed]
    assert masks.rle_bounding_box(masks.encode_rle(mask)) == masks.bounding_box(mask)
    one = np.zeros((7, 9), dtype=bool)
    one[:, 3 + seed] = True
    assert masks.rle_bounding_box(masks.encode_rle(one)) == (3 + seed, 0, 4 + seed, 7)


def test_an_empty_compressed_mask_has_no_box() -> None:
    assert masks.rle_bounding_box(masks.encode_rle(np.zeros((4, 5), dtype=bool))) is None
