"""How many workers a model should have: one decision from one observation, as a pure function.

Workers are added when requests wait longer than the policy's target, several observations in a row, and taken away one
by one when the others would do. Between the two thresholds, and for a while after each change, nothing happens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from segserve.errors import InvalidRequestError

Kind = Literal["grow", "shrink", "restore", "hold", "loading", "no room"]


@dataclass(frozen=True)
class ScalingPolicy:
    """What an operator asks for.

    Attributes:
        minimum, maximum: workers, 1 <= minimum <= maximum.
        target_s: requests should not wait longer than this for a worker, in seconds.
        quiet: part of target_s, in [0, 1), below which a worker may be one too many.
        headroom: part of the remaining workers' places, in (0, 1], that may be in use after one is taken away.
        grow_after, shrink_after: observations in a row that it takes.
        grow_pause_s, shrink_pause_s: least seconds since the last change.
        reserve_bytes: memory that new workers leave free.
        loading_s: growing waits for workers that still load, but no longer than this after the last change: TorchServe
            keeps one that it has given up among the workers.

    Raises:
        InvalidRequestError: a value out of range; names it.
    """

    minimum: int
    maximum: int
    target_s: float = 1.0
    quiet: float = 0.25
    headroom: float = 0.7
    grow_after: int = 2
    shrink_after: int = 6
    grow_pause_s: float = 10.0
    shrink_pause_s: float = 60.0
    reserve_bytes: int = 512 * 2**20
    loading_s: float = 300.0

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.maximum:
            raise InvalidRequestError(f"Expected 1 <= min <= max, came min {self.minimum} and max {self.maximum}.")
        checks = {
            "the target queue time": (self.target_s, 0 < self.target_s < math.inf, "seconds above 0"),
            "quiet": (self.quiet, 0 <= self.quiet < 1, "from 0 to below 1"),
            "headroom": (self.headroom, 0 < self.headroom <= 1, "above 0, at most 1"),
            "grow after": (self.grow_after, self.grow_after >= 1, "at least 1"),
            "shrink after": (self.shrink_after, self.shrink_after >= 1, "at least 1"),
            "the cool-down after growing": (self.grow_pause_s, 0 <= self.grow_pause_s < math.inf, "seconds from 0"),
            "the cool-down before shrinking": (
                self.shrink_pause_s,
                0 <= self.shrink_pause_s < math.inf,
                "seconds from 0",
            ),
            "the memory reserve": (self.reserve_bytes, self.reserve_bytes >= 0, "bytes from 0"),
        }
        for name, (value, fits, expected) in checks.items():
            if not fits:
                raise InvalidRequestError(f"Expected {name} to be {expected}, came {value}.")


@dataclass(frozen=True)
class Observation:
    """What was seen of one model since the observation before.

    Attributes:
        workers: all, those that still load it too.
        ready_workers: those that have loaded it.
        queued: requests that wait for a worker now.
        queue_time_s: how long requests waited, or will, whichever is more, in seconds.
        in_work: images that workers had in hand, on average.
        batch_size: most images that one worker takes at once.
        worker_bytes: memory of its largest worker; None: not known.
        available_bytes: memory for further workers, see machine_memory.memory_room; None: not known.
    """

    workers: int
    ready_workers: int
    queued: int = 0
    queue_time_s: float = 0.0
    in_work: float = 0.0
    batch_size: int = 1
    worker_bytes: int | None = None
    available_bytes: int | None = None

    @property
    def loading_bytes(self) -> int:
        """What the workers that are still loading may yet take."""
        return (self.workers - self.ready_workers) * (self.worker_bytes or 0)


@dataclass(frozen=True)
class History:
    """What a decision needs of those before it. busy, quiet: such observations in a row; changed_at: seconds."""

    busy: int = 0
    quiet: int = 0
    changed_at: float = -math.inf


@dataclass(frozen=True)
class Decision:
    """workers: to have from now on; why: one clause for people; history: for the next decision."""

    workers: int
    kind: Kind
    why: str
    history: History


def decide(policy: ScalingPolicy, seen: Observation, history: History, now: float) -> Decision:
    """How many workers the model should have.

    Never below the minimum or above the maximum of the policy; more than there are only where memory_allows them.

    Args:
        now: on the clock of history.changed_at, in seconds.
    """
    history = _continued(policy, seen, history)
    kind: Kind = "grow"
    if seen.workers < policy.minimum:
        wanted, kind = policy.minimum, "restore"
        why = f"fewer than the minimum of {policy.minimum}"
    elif seen.workers > policy.maximum:
        return _changed(policy.maximum, "restore", f"more than the maximum of {policy.maximum}", now)
    elif history.busy:
        if (reason := _grows_not(policy, seen, history, now)) is not None:
            return Decision(seen.workers, *reason, history)
        wanted = _grown(policy, seen)
        why = f"{_waiting(seen)}, target {policy.target_s:g} s"
    elif history.quiet:
        return _shrunk(policy, seen, history, now)
    else:
        return Decision(seen.workers, "hold", _waiting(seen), history)
    possible = memory_allows(policy, seen, wanted)
    if possible > seen.workers:
        return _changed(possible, kind, why if possible == wanted else f"{why}; {_limit(seen)}", now)
    needed = (seen.worker_bytes or 0) + seen.loading_bytes + policy.reserve_bytes
    room = f"{_mib(seen.available_bytes or 0)} are available, {_mib(needed)} needed"
    return Decision(seen.workers, "no room", f"{why}; no memory for another worker: {room}", history)


def memory_allows(policy: ScalingPolicy, seen: Observation, wanted: int) -> int:
    """How many workers (seen.workers <= n <= wanted) fit, each as large as the largest there is.

    Where memory or the size of a worker is not known, one more at a time, which then shows it. A first worker is
    always tried.
    """
    if seen.worker_bytes is None or seen.available_bytes is None:
        return min(wanted, seen.workers + 1)
    room = seen.available_bytes - policy.reserve_bytes - seen.loading_bytes
    fitting = max(0, room) // max(1, seen.worker_bytes)
    return min(wanted, max(seen.workers + fitting, 1))


def _continued(policy: ScalingPolicy, seen: Observation, history: History) -> History:
    if seen.queue_time_s > policy.target_s:
        return replace(history, busy=history.busy + 1, quiet=0)
    if seen.queue_time_s <= policy.quiet * policy.target_s and _others_would_do(policy, seen):
        return replace(history, busy=0, quiet=history.quiet + 1)
    return replace(history, busy=0, quiet=0)


def _others_would_do(policy: ScalingPolicy, seen: Observation) -> bool:
    places = (seen.workers - 1) * seen.batch_size
    return seen.in_work <= policy.headroom * places


def _grows_not(policy: ScalingPolicy, seen: Observation, history: History, now: float) -> tuple[Kind, str] | None:
    if seen.workers >= policy.maximum:
        return "hold", f"{_waiting(seen)}, but {seen.workers} workers are the maximum"
    if seen.ready_workers < seen.workers and now - history.changed_at < policy.loading_s:
        return "loading", f"{_waiting(seen)}; {_loading(seen)}"
    if history.busy < policy.grow_after:
        return "hold", f"{_waiting(seen)}, seen {history.busy} of {policy.grow_after} times"
    if now - history.changed_at < policy.grow_pause_s:
        return "hold", f"{_waiting(seen)}; within {policy.grow_pause_s:g} s of the last change"
    return None


def _grown(policy: ScalingPolicy, seen: Observation) -> int:
    """In proportion to how much too long requests wait, at most twice as many."""
    factor = min(2.0, seen.queue_time_s / policy.target_s)
    return min(policy.maximum, max(seen.workers + 1, math.ceil(seen.workers * factor)))


def _shrunk(policy: ScalingPolicy, seen: Observation, history: History, now: float) -> Decision:
    if seen.workers <= policy.minimum:
        return Decision(seen.workers, "hold", f"quiet; {seen.workers} workers are the minimum", history)
    if seen.ready_workers < seen.workers:
        # TorchServe takes the newest away, which may be the one that works.
        return Decision(seen.workers, "loading", f"quiet; {_loading(seen)}", history)
    if history.quiet < policy.shrink_after:
        return Decision(seen.workers, "hold", f"quiet, seen {history.quiet} of {policy.shrink_after} times", history)
    if now - history.changed_at < policy.shrink_pause_s:
        return Decision(seen.workers, "hold", f"quiet; within {policy.shrink_pause_s:g} s of the last change", history)
    return _changed(seen.workers - 1, "shrink", f"quiet: {_waiting(seen)}", now)


def _changed(workers: int, kind: Kind, why: str, now: float) -> Decision:
    return Decision(workers, kind, why, History(changed_at=now))


def _loading(seen: Observation) -> str:
    return f"{seen.workers - seen.ready_workers} of {seen.workers} workers have not loaded"


def _limit(seen: Observation) -> str:
    known = seen.worker_bytes is not None and seen.available_bytes is not None
    return "memory for no more" if known else "one at a time, what it takes is not known"


def _waiting(seen: Observation) -> str:
    return f"{seen.queue_time_s:.2f} s in the queue, {seen.queued} waiting, {seen.in_work:.1f} in work"


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
