"""Where chips go: on no other chip, on no small object, within the picture, tied to their instance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from segserve.chips import Chip, Place, layout, write
from segserve.masks import Mask

WIDTH, HEIGHT = 640, 480
RED = (230, 57, 70)


@dataclass(frozen=True)
class Masked:
    """What a chip belongs to."""

    mask: Mask


def chip(box: tuple[int, int, int, int], score: float = 0.9, label: str = "thing", shape: tuple[int, int] = (480, 640)):
    x0, y0, x1, y1 = box
    mask = np.zeros(shape, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return Chip(label, score, RED, box, Masked(mask))


def overlapping(places: Sequence[Place]) -> int:
    pairs = itertools.combinations([place.box for place in places], 2)
    return sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a, b in pairs)


def test_a_chip_sits_on_top_of_its_box() -> None:
    (place,) = layout([chip((200, 150, 300, 250))], WIDTH, HEIGHT)
    x0, _, _, y1 = place.box
    assert (x0, y1) == (200, 150) and place.target is None and place.text == "thing 0.90"


def test_the_chip_of_a_surface_lies_within_it() -> None:
    (place,) = layout([chip((0, 200, 640, 480), label="floor")], WIDTH, HEIGHT)
    x0, y0, x1, y1 = place.box
    assert x0 > 0 and x1 < 640 and y0 > 220 and y1 < 460


@pytest.mark.parametrize("count", [4, 12])
def test_chips_of_objects_in_one_place_do_not_cover_each_other(count: int) -> None:
    places = layout([chip((200, 150, 420, 300), 0.9 - index / 20) for index in range(count)], WIDTH, HEIGHT)
    assert overlapping(places) == 0
    for x0, y0, x1, y1 in (place.box for place in places):
        assert 0 <= x0 < x1 <= WIDTH and 0 <= y0 < y1 <= HEIGHT


def test_the_best_score_has_the_best_place_whatever_the_order() -> None:
    low, high = chip((200, 150, 300, 250), 0.5), chip((200, 150, 300, 250), 0.9)
    assert layout([low, high], WIDTH, HEIGHT) == layout([high, low], WIDTH, HEIGHT)[::-1]
    assert layout([low, high], WIDTH, HEIGHT)[1] == layout([high], WIDTH, HEIGHT)[0]


def test_chips_keep_off_small_objects_and_are_led_back_when_they_move_away() -> None:
    # A column of small objects that leaves no room above or below any of them.
    column = [chip((300, 100 + 24 * row, 330, 122 + 24 * row), 0.9 - row / 50) for row in range(8)]
    places = layout(column, WIDTH, HEIGHT)
    assert overlapping(places) == 0
    boxes = [Place("", 0, each.box, None) for each in column]
    assert overlapping([*places, *boxes]) == 0
    assert any(place.target for place in places)
    for each, place in zip(column, places, strict=True):
        if place.target is not None:
            x, y = place.target
            assert each.mask[int(y), int(x)], "the line ends on the instance"


def test_many_chips_are_written_smaller_but_never_illegibly() -> None:
    grid = [chip((20 + 60 * x, 20 + 55 * y, 70 + 60 * x, 65 + 55 * y), 0.9) for x in range(10) for y in range(8)]
    few, many = layout(grid[:3], WIDTH, HEIGHT), layout(grid, WIDTH, HEIGHT)
    assert 9 <= many[0].size < few[0].size
    assert overlapping(many) <= 2


@pytest.mark.parametrize("label", ["a label far too long for the picture " * 4, "two\nlines", "", "диван", "\u0000"])
@pytest.mark.parametrize("shape", [(48, 48), (48, 400), (400, 60)])
def test_odd_labels_fit_the_picture(label: str, shape: tuple[int, int]) -> None:
    height, width = shape
    chips = [chip((0, 0, width, height), 1.0, label, shape)] * 3
    assert write(np.zeros((*shape, 3), dtype=np.uint8), chips).shape == (*shape, 3)
    for place in layout(chips, width, height):
        assert place.text.endswith("1.00") and "\n" not in place.text
        if width >= 100:
            assert place.box[2] <= width


def test_chips_of_empty_masks_and_none_at_all() -> None:
    empty = Chip("ghost", 0.5, RED, (10, 10, 10, 10), Masked(np.zeros((480, 640), dtype=bool)))
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    assert (write(image, [empty] * 9) != image).any()
    assert np.array_equal(write(image, []), image)
    assert layout([], WIDTH, HEIGHT) == []


def test_where_chips_must_overlap_the_better_score_is_on_top() -> None:
    shape = (60, 90)
    chips = [
        Chip("a", 0.95, (255, 0, 0), (0, 0, 90, 60), Masked(np.ones(shape, dtype=bool))),
        *[Chip("b", 0.5, (0, 255, 0), (0, 0, 90, 60), Masked(np.ones(shape, dtype=bool))) for _ in range(30)],
    ]
    drawn = write(np.zeros((*shape, 3), dtype=np.uint8), chips)
    x0, y0, x1, y1 = layout(chips, 90, 60)[0].box
    assert (drawn[y0:y1, x0:x1] == (255, 0, 0)).all(axis=2).mean() > 0.4
    assert not (drawn[y0:y1, x0:x1] == (0, 255, 0)).all(axis=2)[3:-3, 3:-3].any()
