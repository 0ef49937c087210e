"""How far two engines' logits of the same picture lie apart: logits, distributions, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
"""C x h x w of one picture."""


@dataclass(frozen=True)
class Difference:
    """One picture's answers of two engines compared, at the size of the logits.

    Attributes:
        max_abs: the largest difference of a logit; NaN or infinite where one engine's logits are.
        logits_l2: Euclidean norm of the logits' difference.
        distribution_l2: the same of the softmax over the classes.
        label_map_l2: the same of the label maps (of class numbers, whose distance means nothing beyond being none).
        agreement: the share of pixels with the same class, 0..1.
        lowest, highest: of the first engine's logits, for each class, (C,).
    """

    max_abs: float
    logits_l2: float
    distribution_l2: float
    label_map_l2: float
    agreement: float
    lowest: Logits
    highest: Logits


@dataclass(frozen=True)
class Agreement:
    """What the differences of several pictures say together.

    Attributes:
        pictures: how many.
        max_abs: the largest difference of a logit in any picture.
        logit_range: how far the logits of a class range over all pixels of all pictures, for the class that ranges
            furthest. Classes' offsets are not in it: a network that says the same of every pixel has a range of 0.
        magnitude: the largest absolute logit.
        labels: the share of all pictures' pixels with the same class; pictures of one size count alike.
        worst_labels: that share in the picture where it is least.
        logits_l2, distribution_l2, label_map_l2: means over the pictures.
    """

    pictures: int
    max_abs: float
    logit_range: float
    magnitude: float
    labels: float
    worst_labels: float
    logits_l2: float
    distribution_l2: float
    label_map_l2: float

    @property
    def relative(self) -> float:
        """max_abs as a share of logit_range; infinite where the logits do not range at all."""
        return self.max_abs / self.logit_range if self.logit_range > 0 else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """For JSON; numbers that are none (NaN, infinite) become null."""
        figures = {
            "pictures": self.pictures,
            "max_abs_logit_difference": self.max_abs,
            "logit_range": self.logit_range,
            "max_logit_difference_of_range": self.relative,
            "label_agreement": self.labels,
            "worst_label_agreement": self.worst_labels,
            "logits_l2": self.logits_l2,
            "distribution_l2": self.distribution_l2,
            "label_map_l2": self.label_map_l2,
        }
        return {name: value if np.isfinite(value) else None for name, value in figures.items()}


def difference(expected: Logits, actual: Logits) -> Difference:
    """Compares two engines' logits of one picture.

    Raises:
        ValueError: they differ in shape, or are not C x h x w.
    """
    if expected.shape != actual.shape or expected.ndim != 3:
        raise ValueError(f"logits of {expected.shape} and of {actual.shape} cannot be compared")
    with np.errstate(invalid="ignore"):  # infinite logits lead to NaN, which is what is to be told
        apart = np.abs(expected - actual)
        distribution_l2 = float(np.linalg.norm(softmax(expected) - softmax(actual)))
    ours, theirs = expected.argmax(0), actual.argmax(0)
    return Difference(
        max_abs=float(apart.max()),
        logits_l2=float(np.linalg.norm(apart)),
        distribution_l2=distribution_l2,
        label_map_l2=float(np.linalg.norm((ours - theirs).astype(np.float64))),
        agreement=float(np.mean(ours == theirs)),
        lowest=expected.min((1, 2)),
        highest=expected.max((1, 2)),
    )


def agreement(differences: Sequence[Difference]) -> Agreement:
    """What at least one picture's difference says.

    Raises:
        ValueError: there is none.
    """
    if not differences:
        raise ValueError("no differences to summarize")
    lowest = np.min([each.lowest for each in differences], axis=0)
    highest = np.max([each.highest for each in differences], axis=0)
    shares = [each.agreement for each in differences]
    return Agreement(
        pictures=len(differences),
        # np.max, since max() would lose a NaN that comes after a number.
        max_abs=float(np.max([each.max_abs for each in differences])),
        logit_range=float(np.max(highest - lowest)),
        magnitude=float(max(np.max(np.abs(lowest)), np.max(np.abs(highest)))),
        labels=float(np.mean(shares)),
        worst_labels=min(shares),
        logits_l2=float(np.mean([each.logits_l2 for each in differences])),
        distribution_l2=float(np.mean([each.distribution_l2 for each in differences])),
        label_map_l2=float(np.mean([each.label_map_l2 for each in differences])),
    )


def softmax(logits: Logits) -> Logits:
    """The distribution over the classes, C x h x w, of logits of that shape."""
    powers = np.exp(logits - logits.max(0, keepdims=True))
    return np.asarray(powers / powers.sum(0, keepdims=True), dtype=np.float32)
