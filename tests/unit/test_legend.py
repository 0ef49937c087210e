"""Legends: below the picture, readable, whole where there is room, and cut where there is not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from segserve import legend
from segserve.legend import Entry, percent, with_legend

COLORS = [(230, 57, 70), (29, 122, 214), (46, 164, 79), (255, 196, 0), (150, 70, 200)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def entries(count: int) -> list[Entry]:
    colors = itertools.cycle(COLORS)
    return [Entry(f"class {index}", 1 / count, next(colors)) for index in range(count)]


def strip_of(height: int, width: int, shown: list[Entry]) -> np.ndarray:
    picture = noise(height, width)
    made = with_legend(picture, shown)
    assert made.shape[1:] == (width, 3) and np.array_equal(made[:height], picture)
    return made[height:]


def places(strip: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """(y, x) of the pixels of a color."""
    return np.argwhere((strip == color).all(axis=2))


@pytest.mark.parametrize("size", [(40, 48), (48, 64), (90, 120), (480, 640), (60, 1600), (2000, 90)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_class_has_a_swatch_and_writing_beside_it(size: tuple[int, int], count: int) -> None:
    strip = strip_of(*size, entries(count))
    assert len(strip) >= 12
    for color in COLORS[:count]:
        swatch = places(strip, color)
        (top, left), (bottom, right) = swatch.min(axis=0), swatch.max(axis=0)
        assert bottom - top >= 3 and right - left >= 3, "large enough to be seen"
        # On its line, between its swatch and the next column, there is dark writing.
        beside = strip[top : bottom + 1, right + 3 :]
        assert (beside.max(axis=2) < 110).any()


@pytest.mark.parametrize("width", [48, 64, 100, 200, 640, 3000])
@pytest.mark.parametrize("count", [2, 13, 21, 48])
def test_entries_are_read_down_the_columns_and_overlap_nowhere(width: int, count: int) -> None:
    shown = entries(count)
    grid = legend._grid(shown, width, 480)
    assert grid.columns * grid.rows >= count > (grid.columns - 1) * grid.rows
    assert grid.margin * 2 + grid.columns * grid.cell + (grid.columns - 1) * grid.gap <= width
    assert strip_of(480, width, shown).shape[0] == grid.height
    whole = all(legend._needed(entry, grid) <= grid.cell for entry in shown)
    assert whole or width <= 64, "only the narrowest pictures cut names"


def test_the_largest_comes_first() -> None:
    few = [Entry("a", 0.1, COLORS[0]), Entry("c", 0.7, COLORS[1]), Entry("b", 0.2, COLORS[2])]
    tops = [places(strip_of(300, 100, few), color)[:, 0].min() for color in (COLORS[1], COLORS[2], COLORS[0])]
    assert tops == sorted(tops) and len(set(tops)) == 3


@pytest.mark.parametrize("width", [48, 64, 200, 640])
def test_an_endless_name_is_cut_and_writes_over_nothing(width: int) -> None:
    """Its entry ends where that of other long names ends, and the others keep the size of their writing."""
    endless, long = (
        strip_of(480, width, [Entry(name, 0.5, COLORS[0]), Entry("floor", 0.25, COLORS[1])])
        for name in ("mmmm " * 50, "mmmm " * 40)
    )
    assert np.array_equal(endless, long)
    assert (endless[:, -3:] == 250).all(axis=2)[2:].all(), "nothing is written to the edge"
    plain = strip_of(480, width, [Entry("wall", 0.5, COLORS[0]), Entry("floor", 0.25, COLORS[1])])
    swatches = [places(strip, COLORS[1]) for strip in (endless, plain)]
    assert width < 640 or len(swatches[0]) == len(swatches[1])


def test_a_class_that_is_not_painted_has_an_empty_swatch() -> None:
    painted = strip_of(480, 640, [Entry("floor", 1.0, COLORS[0])])
    empty = strip_of(480, 640, [Entry("floor", 1.0, None)])
    swatch = places(painted, COLORS[0])
    inside = empty[tuple(swatch.T)]
    assert (inside == 250).all(axis=1).mean() > 0.5 and (inside < 200).any()


def test_very_many_classes_are_summed_up() -> None:
    shown = legend._shortened([Entry(f"class {index}", 0.01, COLORS[0]) for index in range(100)])
    assert len(shown) == 48
    assert (shown[-1].name, shown[-1].share, shown[-1].color) == ("53 more", pytest.approx(0.53), None)


def test_too_narrow_or_empty_adds_nothing() -> None:
    assert strip_of(480, 47, entries(2)).shape[0] == 0
    assert strip_of(480, 640, []).shape[0] == 0


def test_writing_has_contrast() -> None:
    """WCAG 2 asks for 4.5 of small print; the paper is light whatever the page is."""
    for ink in (legend._INK, legend._FAINT):
        light, dark = (sum(w * (c / 255) ** 2.2 for w, c in zip((0.2126, 0.7152, 0.0722), tone, strict=True)) + 0.05
                       for tone in (legend._PAPER, ink))  # fmt: skip
        assert light / dark > 5


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100.0 %"), (0.3719, "37.2 %"), (0.0004, "<0.1 %"), (0.0005, "0.1 %"), (0.0, "0.0 %")]
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text
