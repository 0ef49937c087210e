"""What every predictor asks of the pictures that it is given."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from segserve.errors import InvalidRequestError
from segserve.imaging import Rgb


def check_pictures(images: Iterable[Rgb]) -> None:
    """Whether each is a picture that a predictor takes.

    Raises:
        InvalidRequestError: one is not H x W x 3 uint8, or is empty.
    """
    for image in images:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise InvalidRequestError(f"image: expected H x W x 3 uint8, came {image.shape} {image.dtype}.")
