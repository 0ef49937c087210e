"""Where clicks land: the middle of an object, the middle of the largest mistake."""

import numpy as np
import pytest

from segserve.training.clicks import Click, corrective_click, first_click, most_interior_point


def block(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_the_most_interior_point_is_farthest_from_the_outside() -> None:
    # A thin arm and a wide body: the middle of the bounding box would lie on the arm.
    assert most_interior_point(block(10, 0, 13, 40) | block(2, 40, 21, 59)) == (49, 11)


def test_the_pictures_edge_counts_as_outside() -> None:
    assert most_interior_point(np.ones((21, 31), bool))[1] == 10


def test_an_empty_region_has_no_interior() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        first_click(block(0, 0, 0, 0))


def test_a_missed_region_is_clicked_as_foreground() -> None:
    truth = block(5, 5, 30, 50)
    assert corrective_click(truth & ~block(10, 30, 21, 41), truth) == Click(35, 15, 1)


def test_a_false_region_is_clicked_as_background() -> None:
    truth = block(5, 5, 30, 25)
    assert corrective_click(truth | block(10, 40, 21, 51), truth) == Click(45, 15, 0)


def test_the_larger_mistake_is_corrected_and_pieces_do_not_add_up() -> None:
    truth = block(0, 0, 40, 30)
    pieces = block(1, 1, 5, 5) | block(1, 10, 5, 14) | block(1, 20, 5, 24)  # 48 pixels, of 16 each
    assert corrective_click((truth & ~pieces) | block(20, 40, 25, 45), truth) == Click(42, 22, 0)


def test_what_is_right_needs_no_click() -> None:
    truth = block(5, 5, 30, 25)
    assert corrective_click(truth, truth) is None
