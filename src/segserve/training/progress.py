"""What a training loop reports while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """State of a training run after a step.

    Attributes:
        step: steps done, counted from 1, earlier sessions of the same run included.
        steps: length of the whole run.
        losses: running mean of each loss term, by name; ``"total"`` is always there.
        images_per_second: mean speed of this session.
        learning_rate: the rate the step used.
    """

    step: int
    steps: int
    losses: dict[str, float] = field(default_factory=dict)
    images_per_second: float = 0.0
    learning_rate: float = 0.0


ProgressCallback = Callable[[Progress], None]
