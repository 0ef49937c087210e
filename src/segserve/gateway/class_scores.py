"""Scores of a semantic model in NumPy: the best class of every pixel, and the softmax over the classes.

Everything is done a class at a time, in float32: besides the logits, only a few planes of H x W are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segserve.errors import InternalError
from segserve.label_maps import Labels

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class ClassScores:
    """The logits of one picture and what was read from them.

    Attributes:
        logits: C x H x W float32, finite.
        labels: H x W uint8 (uint16 from 257 classes on): the class with the largest logit, the first of equal ones.
        largest: H x W float32: that logit.
    """

    logits: NDArray[np.float32]
    labels: Labels
    largest: Plane

    @classmethod
    def of(cls, logits: NDArray[np.float32]) -> ClassScores:
        """Read C x H x W float32 logits.

        Raises:
            InternalError: they have another form, or are not all finite: JSON knows neither NaN nor infinity.
        """
        if logits.ndim != 3 or 0 in logits.shape or logits.dtype != np.float32:
            raise InternalError("The model answered logits of an unknown form.")
        labels = np.zeros(logits.shape[1:], np.uint8 if len(logits) <= 256 else np.uint16)
        largest = np.full(logits.shape[1:], -np.inf, np.float32)
        for index, plane in enumerate(logits):
            if not np.isfinite(plane).all():
                raise InternalError("The model answered logits that are not finite numbers.")
            labels[plane > largest] = index
            np.maximum(largest, plane, out=largest)
        return cls(logits, labels, largest)

    def probabilities(self) -> Iterator[Plane]:
        """The softmax over the classes at every pixel: a plane of H x W float32 in [0, 1] for each class, in order."""
        total = np.zeros_like(self.largest)
        for plane in self.logits:
            total += self._exponential(plane)
        for plane in self.logits:
            yield self._exponential(plane) / total

    def _exponential(self, plane: Plane) -> Plane:
        # Below the largest logit by more than float32 can say: the exponential is 0 all the same.
        with np.errstate(over="ignore", under="ignore"):
            below: Plane = np.exp(plane - self.largest)
        return below
