"""What a training loop reports while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from segserve.training.schedule import Schedule

_SMOOTHING = 0.98


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


class ProgressReporter:
    """Turns the losses of each step into Progress, and hands that to a callback, if there is one.

    Args:
        callback: called after every step.
        steps: length of the whole run.
        first: steps that were done before this session.
        batch_size: pictures a step.
        schedule: of the run's learning rate.
    """

    def __init__(
        self, callback: ProgressCallback | None, *, steps: int, first: int, batch_size: int, schedule: Schedule
    ) -> None:
        self._callback = callback
        self._steps = steps
        self._first = first
        self._batch_size = batch_size
        self._schedule = schedule
        self._began = time.monotonic()
        self._smooth: dict[str, float] = {}

    def report(self, step: int, losses: dict[str, float]) -> None:
        """Note the loss terms of the step that has just been done."""
        for name, loss in losses.items():
            self._smooth[name] = _SMOOTHING * self._smooth.get(name, loss) + (1 - _SMOOTHING) * loss
        if self._callback is not None:
            speed = (step - self._first) * self._batch_size / (time.monotonic() - self._began)
            rate = self._schedule.rate(step - 1, self._steps)
            self._callback(Progress(step, self._steps, dict(self._smooth), speed, rate))
