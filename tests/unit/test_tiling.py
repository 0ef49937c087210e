"""A product over a masked surface: what is outside, the repetition, the light and the perspective."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from segserve.tiling import tile_product, vanishing_point


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def trapezoid(height: int, width: int, top: int, upper: tuple[int, int], lower: tuple[int, int]) -> NDArray[np.bool_]:
    """A floor: from row top (columns upper) to the last row (columns lower, which may lie outside)."""
    rows = np.arange(height)[:, None]
    part = (rows - top) / (height - top)
    left = upper[0] + (lower[0] - upper[0]) * part
    right = upper[1] + (lower[1] - upper[1]) * part
    columns = np.arange(width)[None]
    return (rows >= top) & (columns >= left) & (columns < right)


SHAPES = [(1, 1), (1, 9), (9, 1), (31, 47), (300, 200)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("product_shape", [(1, 1), (5, 3), (700, 400)])
@pytest.mark.parametrize("perspective", [False, True])
@pytest.mark.parametrize("kind", ["empty", "one pixel", "lower half", "scattered", "all"])
def test_outside_stays_byte_identical(
    shape: tuple[int, int], product_shape: tuple[int, int], perspective: bool, kind: str
) -> None:
    image, product = picture(*shape), picture(*product_shape, seed=1)
    mask = np.zeros(shape, dtype=bool)
    if kind == "one pixel":
        mask[shape[0] // 2, shape[1] // 2] = True
    elif kind == "lower half":
        mask[shape[0] // 2 :] = True
    elif kind == "scattered":
        mask = picture(*shape, seed=2)[..., 0] > 200
    elif kind == "all":
        mask[:] = True
    before = image.copy()
    tiled = tile_product(image, mask, product, perspective=perspective)
    assert np.array_equal(image, before)
    assert tiled.dtype == np.uint8 and tiled.shape == image.shape
    assert np.array_equal(tiled[~mask], image[~mask])


def test_inside_repeats_the_product() -> None:
    image, product = picture(120, 200), picture(25, 50, seed=1)
    mask = np.ones((120, 200), dtype=bool)
    tiled = tile_product(image, mask, product, scale=0.25, shading=False, feather=False)
    assert np.array_equal(tiled, np.tile(product, (5, 4, 1))[:120])


def test_repetition_is_counted_from_the_picture_not_from_the_mask() -> None:
    image, product = picture(120, 200), picture(25, 50, seed=1)
    mask = np.zeros((120, 200), dtype=bool)
    mask[13:90, 31:170] = True
    whole = tile_product(image, np.ones_like(mask), product, shading=False, feather=False)
    part = tile_product(image, mask, product, shading=False, feather=False)
    assert np.array_equal(part[mask], whole[mask])


@pytest.mark.parametrize("scale", [0.1, 0.25, 1.0, 3.0])
def test_scale_is_the_width_of_one_repetition(scale: float) -> None:
    image, mask = picture(100, 400), np.ones((100, 400), dtype=bool)
    product = np.zeros((10, 10, 3), dtype=np.uint8)
    product[:, :5] = 255
    tiled = tile_product(image, mask, product, scale=scale, shading=False, feather=False)
    row = tiled[5, :, 0] > 127
    changes = np.flatnonzero(row[1:] != row[:-1]) + 1
    half = round(400 * scale) / 2
    expected = np.arange(half, 400, half)
    assert len(changes) == len(expected)
    assert np.abs(changes - expected).max(initial=0) <= 1


def test_feather_touches_only_the_outermost_pixel_inside() -> None:
    image = np.full((20, 20, 3), 200, dtype=np.uint8)
    product = np.full((4, 4, 3), 100, dtype=np.uint8)
    mask = np.zeros((20, 20), dtype=bool)
    mask[5:12, 8:] = True
    gray = tile_product(image, mask, product, shading=False)[..., 0]
    assert (gray[6:11, 9:] == 100).all(), "also at the picture's border, which is no edge of the surface"
    assert (gray[5, 8:] == 150).all() and (gray[11, 8:] == 150).all() and (gray[5:12, 8] == 150).all()


def test_shadows_stay_and_the_old_pattern_goes() -> None:
    height, width = 240, 320
    light = np.where(np.arange(width) < 160, 220.0, 110.0)[None].repeat(height, axis=0)
    checkers = np.where((np.arange(height)[:, None] + np.arange(width)[None]) % 2, 12.0, -12.0)
    image = np.clip(light + checkers, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    product = np.full((8, 8, 3), 120, dtype=np.uint8)
    tiled = tile_product(image, np.ones((height, width), dtype=bool), product)[..., 0].astype(float)
    bright, dark = tiled[40:200, 30:110], tiled[40:200, 210:290]
    assert 1.6 < bright.mean() / dark.mean() < 2.4, "the light differs by two"
    assert bright.std() < 3 and dark.std() < 3, "the checkers are gone"
    edge = tiled[40:200, 140:180].mean(axis=0)
    assert (edge[:12] > 0.85 * bright.mean()).all() and (edge[-12:] < 1.2 * dark.mean()).all(), "the edge is sharp"


def test_what_stands_beside_the_surface_casts_no_light_on_it() -> None:
    mask = np.zeros((120, 160), dtype=bool)
    mask[60:] = True
    product = np.full((8, 8, 3), 120, dtype=np.uint8)
    results = []
    for above in (0, 130):
        image = np.full((120, 160, 3), 130, dtype=np.uint8)
        image[:60] = above
        results.append(tile_product(image, mask, product, feather=False)[60:])
    assert np.abs(results[0].astype(int) - results[1]).max() <= 1


@pytest.mark.parametrize(
    ("upper", "lower", "x", "y"),
    [((150, 250), (0, 400), 200, 66.7), ((100, 200), (-50, 250), 175, 50.0), ((180, 220), (-100, 500), 200, 92.9)],
)
def test_vanishing_point_is_where_the_edges_meet(
    upper: tuple[int, int], lower: tuple[int, int], x: float, y: float
) -> None:
    point = vanishing_point(trapezoid(200, 400, 100, upper, lower))
    assert point is not None
    assert point.x == pytest.approx(x, abs=2)
    assert point.y == pytest.approx(y, abs=2)


def test_vanishing_point_in_spite_of_furniture() -> None:
    mask = trapezoid(200, 400, 100, (150, 250), (0, 400))
    mask[120:150, :140] = False
    point = vanishing_point(mask)
    assert point is not None
    assert (point.x, point.y) == (pytest.approx(200, abs=3), pytest.approx(66.7, abs=3))


@pytest.mark.parametrize("shape", ["full width", "picture", "pixel"])
def test_horizon_is_above_the_surface_when_the_outline_says_nothing(shape: str) -> None:
    mask = np.zeros((200, 300), dtype=bool)
    if shape == "full width":
        mask[120:] = True
    elif shape == "picture":
        mask[:] = True
    else:
        mask[199, 10] = True
    point = vanishing_point(mask)
    assert point is not None
    assert point.y < np.flatnonzero(mask.any(axis=1))[0]


@pytest.mark.parametrize("mirrored", [False, True])
def test_one_edge_is_enough_to_point_to_it(mirrored: bool) -> None:
    mask = trapezoid(200, 400, 100, (150, 900), (50, 1000))
    point = vanishing_point(mask[:, ::-1] if mirrored else mask)
    assert point is not None
    # One pixel to the left for each pixel down, from 150 at row 100: 175 at the horizon.
    assert point.y == pytest.approx(75, abs=1)
    assert point.x == pytest.approx(400 - 175 if mirrored else 175, abs=2)


def test_nothing_has_no_vanishing_point() -> None:
    assert vanishing_point(np.zeros((5, 5), dtype=bool)) is None


def test_a_floor_gets_smaller_with_the_distance_and_runs_to_the_vanishing_point() -> None:
    mask = trapezoid(400, 600, 200, (200, 400), (0, 600))
    product = np.full((64, 64, 3), 255, dtype=np.uint8)
    product[:, :8] = 0
    tiled = tile_product(picture(400, 600), mask, product, scale=0.1, perspective=True, shading=False)

    def line_columns(row: int) -> NDArray[np.float64]:
        dark = (tiled[row, :, 0] < 128) & mask[row]
        edges = np.flatnonzero(np.diff(dark.astype(int)))
        return edges[edges > np.flatnonzero(mask[row])[0] + 2].astype(float)

    def spacing(row: int) -> float:
        return float(np.median(np.diff(line_columns(row)[::2])))

    assert spacing(395) == pytest.approx(60, abs=2), "one tenth of 600 pixels at the lower edge"
    assert spacing(240) == pytest.approx(60 * 140 / 295, abs=2), "as the distance to the horizon at row 100"


@pytest.mark.parametrize(
    ("mask", "product", "scale", "match"),
    [
        (np.ones((4, 5), dtype=bool), np.ones((2, 2, 3), dtype=np.uint8), 0.25, "does not fit"),
        (np.ones((5, 4), dtype=bool), np.ones((2, 0, 3), dtype=np.uint8), 0.25, "product"),
        (np.ones((5, 4), dtype=bool), np.ones((2, 2), dtype=np.uint8), 0.25, "product"),
        (np.ones((5, 4), dtype=bool), np.ones((2, 2, 3), dtype=np.uint8), 0.0, "scale"),
        (np.ones((5, 4), dtype=bool), np.ones((2, 2, 3), dtype=np.uint8), float("inf"), "scale"),
    ],
)
def test_callers_mistakes_are_named(
    mask: NDArray[np.bool_], product: NDArray[np.uint8], scale: float, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        tile_product(picture(5, 4), mask, product, scale=scale)


def test_a_big_picture_is_done_in_strips() -> None:
    image = np.zeros((2000, 1500, 3), dtype=np.uint8)
    mask = np.ones((2000, 1500), dtype=bool)
    product = picture(30, 75, seed=1)
    tiled = tile_product(image, mask, product, scale=75 / 2000, shading=False, feather=False)
    assert np.array_equal(tiled, np.tile(product, (67, 20, 1))[:2000])
