"""The loop: what it asks of a fleet, when, and how it ends."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import pytest

from segserve.errors import NotReadyError, SegserveError, UnauthorizedError
from segserve.torchserve.autoscaler import Autoscaler, Step
from segserve.torchserve.autoscaling import Observation, ScalingPolicy

MIB = 2**20
POLICY = ScalingPolicy(1, 4, grow_after=1, shrink_after=1, grow_pause_s=0, shrink_pause_s=0, reserve_bytes=0)
IDLE = Observation(1, 1, worker_bytes=100 * MIB, available_bytes=250 * MIB)
BUSY = replace(IDLE, queued=20, queue_time_s=1.5, in_work=1.0)


@dataclass
class Models:
    """A fleet that is what a test says, and keeps what it is told to scale. failures come before observations."""

    seen: dict[str, Observation]
    scaled: list[tuple[str, int]] = field(default_factory=list)
    failures: list[SegserveError] = field(default_factory=list)

    def models(self) -> list[str]:
        return list(self.seen)

    def observe(self, model: str) -> Observation:
        if self.failures:
            raise self.failures.pop(0)
        return self.seen[model]

    def scale(self, model: str, workers: int) -> None:
        self.scaled.append((model, workers))


def test_each_model_is_decided_by_itself_and_new_workers_take_room_from_the_next():
    fleet = Models({"a": BUSY, "b": IDLE, "c": replace(BUSY, available_bytes=150 * MIB)})
    steps = Autoscaler(fleet, POLICY).step()
    # a's new worker takes 100 of the 150 MiB that c could have had.
    assert [(step.model, step.decision.workers, step.decision.kind) for step in steps] == [
        ("a", 2, "grow"),
        ("b", 1, "hold"),
        ("c", 1, "no room"),
    ]
    assert fleet.scaled == [("a", 2)]


def test_workers_that_load_elsewhere_take_room():
    loading = replace(IDLE, workers=3, ready_workers=1)
    fleet = Models({"a": loading, "b": BUSY})
    assert Autoscaler(fleet, POLICY, ["a", "b"]).step()[1].decision.kind == "no room"


def test_a_dry_run_decides_and_changes_nothing():
    fleet = Models({"a": BUSY})
    (step,) = Autoscaler(fleet, POLICY, dry_run=True).step()
    assert (step.changes, step.applied, fleet.scaled) == (True, False, [])
    assert str(step).startswith("a: would be 1 → 2 workers (1.50 s in the queue, 20 waiting")


def test_models_that_come_later_are_looked_after_and_others_are_not():
    fleet = Models({"a": BUSY})
    every, one = Autoscaler(fleet, POLICY), Autoscaler(fleet, POLICY, ["a"])
    fleet.seen["late"] = BUSY
    assert [step.model for step in every.step()] == ["a", "late"]
    assert [step.model for step in one.step()] == ["a"]


def run(autoscaler: Autoscaler, looks: int) -> list[list[Step] | SegserveError]:
    stop, came = threading.Event(), []

    def report(what: list[Step] | SegserveError) -> None:
        came.append(what)
        if len(came) == looks:
            stop.set()

    autoscaler.run(stop, 0.001, report)
    return came


def test_the_loop_outlives_a_service_that_cannot_be_asked_and_ends_when_told():
    fleet = Models({"a": BUSY}, failures=[NotReadyError("starting"), NotReadyError("starting")])
    first, second, third, fourth = run(Autoscaler(fleet, POLICY), looks=4)
    assert isinstance(first, NotReadyError)
    assert isinstance(second, NotReadyError)
    # The first look that succeeds only starts the counting.
    assert third == []
    assert fourth[0].decision.workers == 2
    assert fleet.scaled == [("a", 2)]


def test_a_refused_key_ends_the_loop():
    fleet = Models({"a": BUSY}, failures=[UnauthorizedError("wrong key")])
    with pytest.raises(UnauthorizedError):
        run(Autoscaler(fleet, POLICY), looks=1)
