"""What a predictor returns for one picture: the instances it found, or a class for every pixel."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
        object: of a model that is told where to look, the index of the prompt's object that this answers.
        low_res: h x w float32 logits of the mask, where they were asked for; see ``mask_logits``.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    rle: Rle
    object: int | None = None
    low_res: NDArray[np.float32] | None = field(default=None, compare=False)

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
    """The answer for one picture of ``width`` x ``height`` pixels; instances by falling score.

    cached says whether the picture's embedding was there already; None where no cache was asked.
    """

    width: int
    height: int
    instances: list[Instance]
    cached: bool | None = None


@dataclass(frozen=True)
class LabelMap:
    """The answer of a semantic model for one picture of ``width`` x ``height`` pixels.

    Attributes:
        labels: h x w, uint8 (uint16 from 257 classes on): for every pixel the index of its class. h x w is the
            picture's size, or that of the model's input, as was asked for.
        classes: their names, by index.
        scores: C x h x w float32, where it was asked for: the logits, or the probabilities of the classes.
    """

    width: int
    height: int
    labels: NDArray[np.uint8] | NDArray[np.uint16]
    classes: tuple[str, ...]
    scores: NDArray[np.float32] | None = None

    def pixel_fraction(self) -> dict[str, float]:
        """Class name: the share of the label map's pixels it has, 0..1; classes without a pixel are left out."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return {self.classes[index]: float(counts[index] / self.labels.size) for index in np.flatnonzero(counts)}
