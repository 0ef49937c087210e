"""Label maps: their PNG form, other sizes, shares of classes, what is not background."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from segserve.label_maps import decode_png, encode_png, foreground, resized, shares

SMALL = np.array([[0, 0, 1], [2, 0, 1]], dtype=np.uint8)


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("dtype", "highest"), [(np.uint8, 255), (np.uint16, 65535)])
def test_png_keeps_every_index(dtype: type[np.uint8 | np.uint16], highest: int) -> None:
    labels = np.random.default_rng(0).integers(0, highest + 1, (7, 11)).astype(dtype)
    labels[0, 0] = highest
    read = decode_png(encode_png(labels))
    assert read.dtype == dtype and np.array_equal(read, labels)
    assert Image.open(io.BytesIO(encode_png(labels))).mode == ("L" if dtype is np.uint8 else "I;16")


def test_png_of_a_view_is_that_of_its_values() -> None:
    assert np.array_equal(decode_png(encode_png(SMALL.T[::-1])), SMALL.T[::-1])


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", encode_png(np.zeros((90, 90), np.uint8))[:60], png(Image.new("RGB", (3, 2)))],
    ids=["empty", "text", "truncated", "colored"],
)
def test_what_is_no_label_map_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a"):
        decode_png(data)


def test_resized_takes_the_nearest_label_and_makes_none_up() -> None:
    doubled = resized(SMALL, 4, 6)
    assert np.array_equal(doubled, SMALL.repeat(2, axis=0).repeat(2, axis=1))
    assert resized(SMALL, 2, 3) is SMALL
    wide = resized(SMALL.astype(np.uint16) * 300, 5, 7)
    assert wide.dtype == np.uint16 and set(np.unique(wide)) == {0, 300, 600}


def test_shares_count_every_class() -> None:
    assert shares(SMALL, 4).tolist() == [3 / 6, 2 / 6, 1 / 6, 0]
    with pytest.raises(ValueError, match="class 2, but there are 2"):
        shares(SMALL, 2)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("background", "a", "b"), SMALL > 0),
        (("a", " Background ", "b"), SMALL != 1),
        (("a", "b", "c"), np.ones_like(SMALL, dtype=bool)),
    ],
)
def test_foreground_is_what_is_not_background(classes: tuple[str, ...], expected: np.ndarray) -> None:
    assert np.array_equal(foreground(SMALL, classes), expected)
