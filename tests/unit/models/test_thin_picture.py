"""Pictures far longer than wide, and the way back from what the models are shown."""

from __future__ import annotations

import numpy as np
import pytest

from segserve import masks
from segserve.models.thin_picture import thicken


@pytest.mark.parametrize(
    ("size", "repeats"),
    [((60, 80), (1, 1)), ((10, 400), (1, 1)), ((10, 401), (2, 1)), ((1, 3000), (75, 1)), ((2000, 5), (1, 10))],
)
def test_how_often_rows_and_columns_are_repeated(size: tuple[int, int], repeats: tuple[int, int]) -> None:
    image = np.arange(size[0] * size[1] * 3, dtype=np.uint32).astype(np.uint8).reshape(*size, 3)
    shown = thicken(image)
    assert (shown.rows, shown.columns) == repeats
    assert shown.image.shape == (size[0] * repeats[0], size[1] * repeats[1], 3)
    assert np.array_equal(shown.image[:: repeats[0], :: repeats[1]], image)
    assert max(shown.image.shape[:2]) <= 40 * min(shown.image.shape[:2])


def test_boxes_and_masks_come_back_in_the_pictures_own_pixels() -> None:
    shown = thicken(np.zeros((2, 200, 3), np.uint8))
    assert (shown.rows, shown.columns) == (3, 1)
    boxes = np.array([[10, 3, 50, 6]], dtype=np.float32)
    assert shown.original_boxes(boxes).tolist() == [[10, 1, 50, 2]]
    mask = np.zeros((6, 200), dtype=bool)
    mask[3:6, 10:50] = True
    back = masks.decode_rle(shown.original_mask(masks.encode_rle(mask), False))
    assert back.shape == (2, 200)
    assert not back[0].any() and np.flatnonzero(back[1]).tolist() == list(range(10, 50))
