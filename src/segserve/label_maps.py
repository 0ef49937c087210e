"""Label maps: H x W arrays that hold the index of a class for every pixel, and their PNG form on the wire.

uint8 up to 256 classes, uint16 beyond; as PNG they are gray pictures of 8 or 16 bits.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segserve.masks import Mask

__all__ = ["BACKGROUND", "Labels", "decode_png", "encode_png", "foreground", "is_background", "resized", "shares"]

Labels = NDArray[np.uint8] | NDArray[np.uint16]

BACKGROUND = "background"
"""The name of the class, in any case, that stands for nothing in particular; a model need not have it."""

_DEEP_MODES = ("I;16", "I;16B", "I")


def encode_png(labels: Labels) -> bytes:
    """The label map as a gray PNG, of 8 bits for uint8 and 16 bits for uint16."""
    buffer = io.BytesIO()
    # Large areas of one value: the fastest level already packs them a hundredfold.
    Image.fromarray(np.ascontiguousarray(labels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_png(data: bytes) -> Labels:
    """The label map of a gray PNG.

    Raises:
        ValueError: not a whole gray PNG of 8 or 16 bits.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.load()
            if image.mode == "L":
                return np.array(image, dtype=np.uint8)
            if image.mode in _DEEP_MODES:
                return np.array(image).astype(np.uint16)
            mode = image.mode
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("not a PNG, or not the whole of one") from error
    raise ValueError(f"not a gray PNG of 8 or 16 bits but one of mode {mode}")


def resized(labels: Labels, height: int, width: int) -> Labels:
    """The label map at another size: every pixel takes the label of the nearest one. Itself where it fits already."""
    if labels.shape == (height, width):
        return labels
    made: Labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return made


def shares(labels: Labels, count: int) -> NDArray[np.float64]:
    """The share of the pixels that each of count classes has, 0..1.

    Raises:
        ValueError: a pixel has an index of count or more.
    """
    counts = np.bincount(labels.ravel(), minlength=count)
    if len(counts) > count:
        raise ValueError(f"the label map has the class {len(counts) - 1}, but there are {count} classes")
    return counts / max(1, labels.size)


def foreground(labels: Labels, classes: Sequence[str]) -> Mask:
    """H x W bool: what is not of the class "background". True everywhere where no class is called so."""
    shown = np.asarray([not is_background(name) for name in classes])
    return np.ones(labels.shape, dtype=bool) if shown.all() else np.asarray(shown[labels])


def is_background(name: str) -> bool:
    """Whether a class is called "background"."""
    return name.strip().lower() == BACKGROUND
