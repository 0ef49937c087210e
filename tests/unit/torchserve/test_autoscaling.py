"""The decision how many workers a model should have: examples, and properties over all observations."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segserve.errors import InvalidRequestError
from segserve.torchserve.autoscaling import Decision, History, Observation, ScalingPolicy, decide, memory_allows

MIB = 2**20
POLICY = ScalingPolicy(1, 4, target_s=1.0, grow_after=2, shrink_after=3, grow_pause_s=10, shrink_pause_s=60)
ROOM = {"worker_bytes": 100 * MIB, "available_bytes": 9000 * MIB}
BUSY = Observation(workers=2, ready_workers=2, queued=9, queue_time_s=3.0, in_work=2.0, **ROOM)
QUIET = Observation(workers=2, ready_workers=2)
LATER = 1000.0

policies = st.builds(
    lambda fewest, more, **rest: ScalingPolicy(fewest, fewest + more, **rest),
    st.integers(1, 5),
    st.integers(0, 8),
    target_s=st.floats(0.01, 60),
    quiet=st.floats(0, 0.9),
    headroom=st.floats(0.1, 1),
    grow_after=st.integers(1, 4),
    shrink_after=st.integers(1, 4),
    grow_pause_s=st.floats(0, 100),
    shrink_pause_s=st.floats(0, 100),
    reserve_bytes=st.integers(0, 1000 * MIB),
)
observations = st.builds(
    lambda workers, loading, **rest: Observation(workers, max(0, workers - loading), **rest),
    st.integers(0, 16),
    st.integers(0, 3),
    queued=st.integers(0, 200),
    queue_time_s=st.floats(0, 200),
    in_work=st.floats(0, 20),
    batch_size=st.integers(1, 8),
    worker_bytes=st.none() | st.integers(1 * MIB, 4000 * MIB),
    available_bytes=st.none() | st.integers(0, 20000 * MIB),
)
histories = st.builds(History, st.integers(0, 6), st.integers(0, 6), st.floats(-1e4, LATER) | st.just(-math.inf))


@pytest.mark.parametrize(
    ("seen", "history", "workers", "kind"),
    [
        (BUSY, History(busy=0), 2, "hold"),
        (BUSY, History(busy=1), 4, "grow"),
        (replace(BUSY, queue_time_s=1.2), History(busy=1), 3, "grow"),
        (BUSY, History(busy=1, changed_at=LATER - 5), 2, "hold"),
        (replace(BUSY, ready_workers=1), History(busy=5, changed_at=LATER - 299), 2, "loading"),
        (replace(BUSY, ready_workers=1), History(busy=5, changed_at=LATER - 301), 4, "grow"),
        (replace(BUSY, workers=4, ready_workers=4), History(busy=5), 4, "hold"),
        (replace(BUSY, queue_time_s=0.9), History(busy=5), 2, "hold"),
        (QUIET, History(quiet=1), 2, "hold"),
        (QUIET, History(quiet=2), 1, "shrink"),
        (QUIET, History(quiet=2, changed_at=LATER - 30), 2, "hold"),
        (replace(QUIET, in_work=0.9), History(quiet=9), 2, "hold"),
        (replace(QUIET, in_work=0.9, batch_size=4), History(quiet=9), 1, "shrink"),
        (replace(QUIET, workers=1, ready_workers=1), History(quiet=9), 1, "hold"),
        (replace(QUIET, ready_workers=1), History(quiet=9), 2, "loading"),
        (Observation(0, 0), History(), 1, "restore"),
        (Observation(6, 6), History(), 4, "restore"),
    ],
)
def test_decisions(seen: Observation, history: History, workers: int, kind: str):
    decision = decide(POLICY, seen, history, LATER)
    assert (decision.workers, decision.kind) == (workers, kind), decision.why


def test_memory_limits_growth_and_the_reason_says_so():
    roomy = replace(BUSY, worker_bytes=1000 * MIB, available_bytes=1600 * MIB)
    assert decide(POLICY, roomy, History(busy=1), LATER).workers == 3
    tight = replace(roomy, available_bytes=1500 * MIB)
    decision = decide(POLICY, tight, History(busy=1), LATER)
    assert (decision.workers, decision.kind) == (2, "no room")
    assert "1500 MiB are available, 1512 MiB needed" in decision.why
    # Another worker still loads: what it will take is not free.
    assert memory_allows(POLICY, replace(roomy, ready_workers=1), 4) == 2
    unknown = replace(BUSY, available_bytes=None)
    assert decide(POLICY, unknown, History(busy=1), LATER).workers == 3


@settings(max_examples=60, deadline=None)
@given(policies, observations, histories)
def test_always_between_minimum_and_maximum(policy: ScalingPolicy, seen: Observation, history: History):
    wanted = decide(policy, seen, history, LATER).workers
    assert wanted <= policy.maximum or wanted == seen.workers == policy.maximum
    # Short of the minimum only where memory is short, or its need unknown; never by a decision to have fewer.
    assert wanted >= min(policy.minimum, seen.workers)
    if seen.workers >= policy.minimum:
        assert wanted >= policy.minimum


@settings(max_examples=60, deadline=None)
@given(policies, observations, histories)
def test_grows_only_with_room_and_only_while_requests_wait(policy: ScalingPolicy, seen: Observation, history: History):
    decision = decide(policy, seen, history, LATER)
    more = decision.workers - seen.workers
    if more <= 0:
        return
    assert seen.queue_time_s > policy.target_s or seen.workers < policy.minimum
    assert decision.workers <= max(2 * seen.workers, seen.workers + 1, policy.minimum)
    if seen.worker_bytes is None or seen.available_bytes is None:
        assert more == 1
    elif seen.workers > 0:
        assert (more * seen.worker_bytes) + seen.loading_bytes + policy.reserve_bytes <= seen.available_bytes


@settings(max_examples=60, deadline=None)
@given(policies, observations, histories)
def test_shrinks_by_one_only_when_quiet(policy: ScalingPolicy, seen: Observation, history: History):
    decision = decide(policy, seen, history, LATER)
    if decision.workers < seen.workers <= policy.maximum:
        assert decision.workers == seen.workers - 1 == seen.ready_workers - 1
        assert seen.queue_time_s <= policy.quiet * policy.target_s
        assert seen.in_work <= policy.headroom * decision.workers * seen.batch_size


@settings(max_examples=60, deadline=None)
@given(policies, observations, histories, st.floats(0, 99))
def test_nothing_changes_within_the_cool_down(
    policy: ScalingPolicy, seen: Observation, history: History, elapsed: float
):
    if not policy.minimum <= seen.workers <= policy.maximum:
        return
    decision = decide(policy, seen, replace(history, changed_at=LATER - elapsed), LATER)
    if elapsed < policy.grow_pause_s:
        assert decision.workers <= seen.workers
    if elapsed < policy.shrink_pause_s:
        assert decision.workers >= seen.workers


@settings(max_examples=60, deadline=None)
@given(policies, observations, histories, st.floats(0, 200))
def test_a_longer_wait_never_means_fewer_workers(
    policy: ScalingPolicy, seen: Observation, history: History, longer: float
):
    now = decide(policy, seen, history, LATER)
    then = decide(policy, replace(seen, queue_time_s=seen.queue_time_s + longer), history, LATER)
    # A streak of quiet looks that becomes busy starts to be counted anew, so only the direction is promised.
    assert then.workers >= min(now.workers, seen.workers) or seen.workers > policy.maximum


def simulated(policy: ScalingPolicy, busy: float, steps: int, interval_s: float = 5.0) -> list[Decision]:
    """A model whose requests keep ``busy`` workers at work: with fewer than that the queue grows without end."""
    history, workers, waiting, decisions = History(), policy.minimum, 0.0, []
    for step in range(steps):
        waiting = max(0.0, waiting + (busy - workers) * interval_s)
        seen = Observation(workers, workers, round(waiting), waiting / workers, min(busy + waiting, workers))
        decision = decide(policy, seen, history, step * interval_s)
        history, workers = decision.history, decision.workers
        decisions.append(decision)
    return decisions


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 8), st.floats(0, 16))
def test_a_steady_load_ends_at_a_steady_number_of_workers(fewest: int, more: int, busy: float):
    policy = ScalingPolicy(fewest, fewest + more, shrink_after=2, shrink_pause_s=20)
    workers = [decision.workers for decision in simulated(policy, busy, 240)]
    settled = workers[-60:]
    assert len(set(settled)) == 1, settled
    # As many as the load needs, and no more than headroom asks for.
    assert settled[0] >= min(policy.maximum, math.ceil(busy))
    assert settled[0] <= max(policy.minimum, math.ceil(busy / policy.headroom) + 1)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"minimum": 0}, "min 0"),
        ({"minimum": 3, "maximum": 2}, "max 2"),
        ({"target_s": 0.0}, "target"),
        ({"target_s": math.nan}, "target"),
        ({"quiet": 1.0}, "quiet"),
        ({"headroom": 0.0}, "headroom"),
        ({"grow_after": 0}, "grow after"),
        ({"shrink_pause_s": -1.0}, "cool-down"),
        ({"reserve_bytes": -1}, "reserve"),
    ],
)
def test_a_policy_that_cannot_be_meant(wrong: dict[str, float], named: str):
    with pytest.raises(InvalidRequestError, match=named):
        ScalingPolicy(**{"minimum": 1, "maximum": 4, **wrong})
