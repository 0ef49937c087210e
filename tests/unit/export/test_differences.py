"""Distances of two engines' logits, on pictures of two pixels."""

from __future__ import annotations

import numpy as np
import pytest

from segserve.export.differences import agreement, difference, softmax


def logits(*pixels: tuple[float, ...]) -> np.ndarray:
    """C x 1 x N of N pixels' logits."""
    return np.asarray(pixels, dtype=np.float32).T[:, None, :]


OURS = logits((3.0, 0.0), (0.0, 4.0))


def test_equal_answers_lie_nowhere_apart() -> None:
    found = difference(OURS, OURS.copy())
    assert (found.max_abs, found.logits_l2, found.distribution_l2, found.label_map_l2) == (0, 0, 0, 0)
    assert found.agreement == 1


def test_distances_are_euclidean() -> None:
    found = difference(OURS, logits((3.0, 3.0), (4.0, 4.0)))
    assert found.max_abs == 4
    assert found.logits_l2 == pytest.approx(5)
    ours, theirs = np.exp(3) / (np.exp(3) + 1), np.exp(4) / (np.exp(4) + 1)
    assert found.distribution_l2 == pytest.approx(np.sqrt(2 * (ours - 0.5) ** 2 + 2 * (theirs - 0.5) ** 2), rel=1e-5)


def test_labels_are_compared_pixel_by_pixel() -> None:
    found = difference(OURS, logits((0.0, 3.0), (0.0, 4.0)))
    assert found.agreement == 0.5
    assert found.label_map_l2 == 1


def test_the_range_leaves_the_classes_offsets_out() -> None:
    """A class at 0 and one at 100, the same in every pixel, are no reason to allow a difference of 1."""
    flat = logits((0.0, 100.0), (0.5, 100.0))
    assert agreement([difference(flat, flat)]).logit_range == pytest.approx(0.5)


def test_the_range_goes_over_all_pictures() -> None:
    low, high = logits((0.0, 0.0)), logits((7.0, 1.0))
    found = agreement([difference(low, low), difference(high, high + 0.7)])
    assert found.logit_range == pytest.approx(7)
    assert found.relative == pytest.approx(0.1)


def test_a_range_of_nothing_allows_nothing() -> None:
    flat = logits((1.0, 2.0), (1.0, 2.0))
    assert agreement([difference(flat, flat)]).relative == float("inf")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_numbers_that_are_none_are_not_lost_among_others(order: tuple[int, int]) -> None:
    broken = OURS.copy()
    broken[0, 0, 0] = np.nan
    pictures = [difference(OURS, OURS), difference(OURS, broken)]
    found = agreement([pictures[index] for index in order])
    assert np.isnan(found.max_abs)
    assert found.to_dict()["max_abs_logit_difference"] is None


def test_summaries_are_means_and_worst_cases() -> None:
    other = logits((0.0, 3.0), (0.0, 4.0))
    found = agreement([difference(OURS, OURS), difference(OURS, other)])
    assert (found.pictures, found.labels, found.worst_labels) == (2, 0.75, 0.5)
    assert found.logits_l2 == pytest.approx(np.sqrt(18) / 2)


def test_large_logits_do_not_overflow_the_softmax() -> None:
    assert softmax(logits((1000.0, 0.0))).ravel().tolist() == [1, 0]


def test_answers_of_other_shapes_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 2\)"):
        difference(OURS, OURS[:, :, :1])
    with pytest.raises(ValueError, match="no differences"):
        agreement([])
