"""The learning-rate schedule of the demo trainings: warm-up, a constant plateau, then a decay to almost nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Warm-up, stable, decay ("WSD") as a pure function of the step, so that a resumed run repeats itself exactly.

    A plateau instead of one long cosine lets a run be cut short: resume it with a smaller ``steps`` and the
    decay starts from wherever the new length puts it (Hu et al., "MiniCPM", 2024, section 4).

    Attributes:
        peak: learning rate of the plateau.
        warmup: steps of linear growth from ``peak / warmup`` to ``peak``.
        decay: share of all steps, in [0, 1], spent going down along half a cosine.
        floor: what the rate ends at, as a share of ``peak``.
    """

    peak: float
    warmup: int = 200
    decay: float = 0.3
    floor: float = 0.01

    def rate(self, step: int, steps: int) -> float:
        """Learning rate for ``step`` (0-based) of a run of ``steps`` steps; at or past the end it is the floor's.

        Raises:
            ValueError: ``steps`` is not positive or ``step`` is negative.
        """
        if steps <= 0 or step < 0:
            raise ValueError(f"schedule: expected steps > 0 and step >= 0, got steps={steps}, step={step}")
        growth = min(1.0, (step + 1) / self.warmup) if self.warmup > 0 else 1.0
        decay_steps = self.decay * steps
        left = steps - step
        if left >= decay_steps:
            return self.peak * growth
        share = max(0.0, left / decay_steps)
        shrink = self.floor + (1.0 - self.floor) * 0.5 * (1.0 - math.cos(math.pi * share))
        return self.peak * min(growth, shrink)
