"""The loop that keeps models between their fewest and most workers: observe, decide, scale, again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from segserve.errors import NotFoundError, SegserveError, ServiceError
from segserve.torchserve.autoscaling import Decision, History, Observation, ScalingPolicy, decide
from segserve.torchserve.queue_metrics import Fleet


@dataclass(frozen=True)
class Step:
    """What came of one look at one model. before: workers that it had; applied: whether it was scaled."""

    model: str
    before: int
    decision: Decision
    applied: bool

    @property
    def changes(self) -> bool:
        """Whether another number of workers was decided on."""
        return self.decision.workers != self.before

    def __str__(self) -> str:
        if not self.changes:
            return f"{self.model}: {self.before} workers stay ({self.decision.why})"
        verb = "" if self.applied else "would be "
        return f"{self.model}: {verb}{self.before} → {self.decision.workers} workers ({self.decision.why})"


Report = Callable[[list[Step] | SegserveError], None]
"""Told what came of each look: the steps, or why there are none."""


class Autoscaler:
    """Decides for each model in turn, and scales.

    Args:
        fleet: what is scaled.
        policy: for each model.
        models: to look after; empty: all that are served, also those that come later.
        dry_run: decide, but change nothing.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        policy: ScalingPolicy,
        models: Sequence[str] = (),
        *,
        dry_run: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._policy = policy
        self._models = tuple(models)
        self._dry_run = dry_run
        self._clock = clock
        self._histories: dict[str, History] = {}

    def observe(self) -> dict[str, Observation]:
        """Every model as it is, and what happened to it since this was last called.

        Raises:
            SegserveError: the service cannot be asked, or has not got a model that was named.
        """
        return {name: self._fleet.observe(name) for name in self._models or self._fleet.models()}

    def step(self) -> list[Step]:
        """Observe, decide and scale once.

        Raises:
            SegserveError: the service cannot be asked, refuses, or has not got a model that was named.
        """
        seen = self.observe()
        # Workers that load, whosever they are, and those that this step starts, will yet take their memory.
        promised = sum(each.loading_bytes for each in seen.values())
        steps = []
        for name, each in seen.items():
            step = self._decided(name, _with_less_room(each, promised - each.loading_bytes))
            steps.append(step)
            promised += max(0, step.decision.workers - each.workers) * (each.worker_bytes or 0)
        return steps

    def run(self, stop: threading.Event, interval_s: float, report: Report) -> None:
        """A step every interval_s seconds until stop is set.

        While the service cannot be asked, or has not got a model, that is reported instead and tried again.

        Raises:
            RequestError: the service refuses, e.g. the key.
        """
        # The first look only sets the counters; without it the first step would decide on no time at all.
        look: Callable[[], list[Step]] = self._first_look
        while True:
            try:
                report(look())
                look = self.step
            except (ServiceError, NotFoundError) as error:
                report(error)
            if stop.wait(interval_s):
                return

    def _first_look(self) -> list[Step]:
        self.observe()
        return []

    def _decided(self, name: str, seen: Observation) -> Step:
        decision = decide(self._policy, seen, self._histories.get(name, History()), self._clock())
        applied = decision.workers != seen.workers and not self._dry_run
        self._histories[name] = decision.history
        if applied:
            self._fleet.scale(name, decision.workers)
        return Step(name, seen.workers, decision, applied)


def _with_less_room(seen: Observation, promised: int) -> Observation:
    if seen.available_bytes is None:
        return seen
    return replace(seen, available_bytes=max(0, seen.available_bytes - promised))
