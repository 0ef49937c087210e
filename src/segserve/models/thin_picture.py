"""Pictures far longer than wide, which a model would shrink to a line of no pixels at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segserve import masks
from segserve.imaging import Rgb
from segserve.masks import Rle
from segserve.models.text_prompt import Refine

MAX_ASPECT = 40
"""Longer side over shorter side up to which a picture is shown to the models as it is."""


@dataclass(frozen=True)
class ThickPicture:
    """A picture as it is shown to the models.

    Attributes:
        image: H x W x 3 uint8; each row is there ``rows`` times and each column ``columns`` times.
    """

    image: Rgb
    rows: int = 1
    columns: int = 1

    @property
    def is_original(self) -> bool:
        """Whether nothing was repeated."""
        return self.rows == self.columns == 1

    def original_boxes(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) of the shown picture in pixels of the original one."""
        if self.is_original:
            return boxes
        repeats = np.array([self.columns, self.rows] * 2, dtype=np.float32)
        return np.asarray(boxes / repeats, dtype=np.float32)

    def original_mask(self, rle: Rle, refine: Refine) -> Rle:
        """A mask of the shown picture in pixels of the original one, then refined."""
        if self.is_original:
            return rle
        mask = masks.decode_rle(rle)[self.rows // 2 :: self.rows, self.columns // 2 :: self.columns]
        return masks.encode_rle(masks.refine(mask, polygon=refine == "polygon") if refine else mask)


def thicken(image: Rgb) -> ThickPicture:
    """The picture with its rows or columns repeated until it is at most 40 times longer than wide."""
    height, width = image.shape[:2]
    rows, columns = -(-width // (MAX_ASPECT * height)), -(-height // (MAX_ASPECT * width))
    if rows == columns == 1:
        return ThickPicture(np.ascontiguousarray(image))
    return ThickPicture(np.repeat(np.repeat(image, rows, axis=0), columns, axis=1), rows, columns)
