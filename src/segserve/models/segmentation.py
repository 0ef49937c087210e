"""What a predictor returns: the instances it found in one picture."""

from __future__ import annotations

from dataclasses import dataclass

from segserve import masks
from segserve.masks import Mask, Rle


@dataclass(frozen=True)
class Instance:
    """One object found.

    The mask is held as its run-length encoding: a hundred bool masks of a 12-megapixel picture would take 1.2 GB.

    Attributes:
        label: the phrase of the prompt that names it.
        score: 0..1.
        box: ``(x0, y0, x1, y1)`` in pixels of the picture, within it.
        rle: COCO compressed run-length encoding of the mask, as large as the picture.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    rle: Rle

    @classmethod
    def from_mask(cls, label: str, score: float, box: tuple[float, float, float, float], mask: Mask) -> Instance:
        """An instance of an H x W bool mask."""
        return cls(label, score, box, masks.encode_rle(mask))

    @property
    def mask(self) -> Mask:
        """The H x W bool mask, decoded anew at each call."""
        return masks.decode_rle(self.rle)

    @property
    def area(self) -> int:
        """Foreground pixels."""
        return masks.area(self.rle)


@dataclass(frozen=True)
class Segmentation:
    """The answer for one picture of ``width`` x ``height`` pixels; instances by falling score."""

    width: int
    height: int
    instances: list[Instance]
