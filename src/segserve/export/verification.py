"""Does an ONNX file answer as the network that it was made from? Both run on real pictures, at several batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segserve.errors import InvalidRequestError
from segserve.export.differences import Agreement, Difference, agreement, difference
from segserve.models.semantic.pictures import grouped

BATCH_SIZES = (1, 2, 4, 8)

_ROUNDING = 1e-5
"""Logits that range over less than this share of their magnitude differ by float32's rounding, not by the picture."""

Runner = Callable[[Tensor], NDArray[np.float32]]
"""Normalized pictures, N x 3 x H x W float32 on the CPU, to logits, N x C x h x w."""


@dataclass(frozen=True)
class Tolerance:
    """How far an export may be off.

    Attributes:
        logits: the largest difference of any logit, as a share of the range of the logits (see Agreement). A share,
            because the scale of logits is each network's own; rounding of float32 stays below 1e-5.
        labels: the least share of pixels that must have the same class, 0..1.

    Raises:
        InvalidRequestError: a number is out of its range.
    """

    logits: float = 1e-4
    labels: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.logits < 1:
            raise InvalidRequestError(f"tolerance: expected 0 or more and less than 1, came {self.logits:g}.")
        if not 0 <= self.labels <= 1:
            raise InvalidRequestError(f"label agreement: expected 0 to 1, came {self.labels:g}.")


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        agreement: of all pictures.
        batch_sizes: those that were run.
        tolerance: what was allowed.
    """

    agreement: Agreement
    batch_sizes: tuple[int, ...]
    tolerance: Tolerance

    @property
    def problems(self) -> list[str]:
        """Why the file is not good, in words with numbers; empty when it is."""
        found, allowed = self.agreement, self.tolerance
        problems = []
        if found.logit_range <= _ROUNDING * found.magnitude:
            problems.append("the network says the same of every pixel, which proves nothing: are its weights trained?")
        # Written so that NaN, which is neither more nor less than anything, is a problem.
        elif not found.relative <= allowed.logits:
            problems.append(
                f"logits differ by up to {found.max_abs:.3g}, {found.relative:.2e} of their range of "
                f"{found.logit_range:.3g}; {allowed.logits:g} of it is allowed"
            )
        if not found.labels >= allowed.labels:
            problems.append(f"{found.labels:.4%} of the pixels have the same class; {allowed.labels:.4%} must")
        return problems

    @property
    def passed(self) -> bool:
        """Whether the file may be used."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "passed": self.passed,
            "batch_sizes": list(self.batch_sizes),
            "tolerance": {
                "max_logit_difference_of_range": self.tolerance.logits,
                "label_agreement": self.tolerance.labels,
            },
            **self.agreement.to_dict(),
        }


def verify(
    reference: Runner,
    candidate: Runner,
    inputs: Sequence[Tensor],
    *,
    tolerance: Tolerance | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    done: Callable[[int, int], None] | None = None,
) -> Verification:
    """Run both engines on the same inputs and compare.

    Every input is run once at least, in batches whose sizes take turns, and every size comes up.

    Args:
        reference: torch, as a rule.
        candidate: what is to be verified.
        inputs: 3 x H x W float32 each, normalized; of one size or of several.
        batch_sizes: 1 or more each; the reference gets the same batches.
        done: called after each batch with the number done and that of all, for a progress bar.

    Raises:
        InvalidRequestError: no inputs, or the engines' logits differ in shape.
    """
    if not inputs:
        raise InvalidRequestError("there are no pictures to verify the export on.")
    batches = list(_batches(inputs, batch_sizes))
    found: list[Difference] = []
    for number, batch in enumerate(batches, 1):
        pixels = torch.stack([inputs[index] for index in batch])
        expected, actual = reference(pixels), candidate(pixels)
        if expected.shape != actual.shape:
            raise InvalidRequestError(
                f"a batch of {len(batch)} gives logits of {expected.shape} in torch and {actual.shape} in ONNX."
            )
        found += [difference(ours, theirs) for ours, theirs in zip(expected, actual, strict=True)]
        if done:
            done(number, len(batches))
    used = tuple(sorted({len(batch) for batch in batches}))
    return Verification(agreement(found), used, tolerance or Tolerance())


def _batches(inputs: Sequence[Tensor], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Indices of inputs that have one size each; the first group sees every batch size, however few it has."""
    for number, group in enumerate(grouped(inputs)):
        shown, turn = 0, 0
        positions = cycle(group)
        while shown < len(group) or (number == 0 and turn < len(sizes)):
            size = sizes[turn % len(sizes)]
            if number > 0:
                size = min(size, len(group) - shown)
            yield [next(positions) for _ in range(size)]
            shown, turn = shown + size, turn + 1
