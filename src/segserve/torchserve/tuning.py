"""Which workers, batch sizes and batch delays to try for a model, what came of each, and which was best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from segserve.closed_loop import LOST, Load
from segserve.errors import InvalidRequestError

SAME = 0.03
"""Throughputs that differ by less than this part are taken as equal: turns on one machine differ by as much."""


@dataclass(frozen=True, order=True)
class Setting:
    """How a model is served. batch_delay_ms: how long a worker waits for a batch to fill."""

    workers: int
    batch_size: int
    batch_delay_ms: int


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker. rss: resident; pss: the same with what it shares with others divided among them."""

    rss: int
    pss: int


@dataclass(frozen=True)
class Trial:
    """One setting and what was measured; every number None where the service did not come up.

    Attributes:
        throughput: answers a second.
        p50_ms, p95_ms, p99_ms: latency of the answers, by nearest rank.
        answers: that were counted.
        errors: requests that were not answered with 200, by status; "lost" got no answer.
        worker_rss, worker_pss: bytes of the largest worker after the load, resident and proportional.
        ready_rss, ready_pss: the same before it, when the workers had just loaded.
        cached: part of the answers whose embedding the workers had kept, in [0, 1]; None: no such cache.
        problem: why it did not come up, or None.
    """

    setting: Setting
    throughput: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    answers: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    worker_rss: int | None = None
    worker_pss: int | None = None
    ready_rss: int | None = None
    ready_pss: int | None = None
    cached: float | None = None
    problem: str | None = None

    @property
    def sound(self) -> bool:
        """Whether it answered, and answered everything."""
        return self.answers > 0 and not self.errors and self.problem is None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self.setting), **{name: value for name, value in asdict(self).items() if name != "setting"}}


def settings_to_try(workers: Sequence[int], batch_sizes: Sequence[int], delays_ms: Sequence[int]) -> list[Setting]:
    """Every combination, once. A batch of one never waits to be filled: it is tried with a delay of 1 ms only.

    Raises:
        InvalidRequestError: nothing to try, or a number below 1.
    """
    for name, values in (("workers", workers), ("batch sizes", batch_sizes), ("batch delays", delays_ms)):
        if not values or min(values) < 1:
            raise InvalidRequestError(f"Expected {name} of at least 1, came {list(values) or 'none'}.")
    combined = product(workers, batch_sizes, delays_ms)
    return list(dict.fromkeys(Setting(w, size, delay if size > 1 else 1) for w, size, delay in combined))


def trial_of(
    setting: Setting, load: Load, before: Sequence[Memory], after: Sequence[Memory], cached: float | None = None
) -> Trial:
    """What a load showed. before, after: of each worker whose memory could be read."""
    p50, p95, p99 = (None if (value := load.percentile(percent)) is None else 1000 * value for percent in (50, 95, 99))
    errors = {("lost" if status == LOST else str(status)): n for status, n in load.statuses.items() if status != 200}
    return Trial(
        setting,
        load.throughput,
        p50,
        p95,
        p99,
        len(load.latencies),
        errors,
        worker_rss=max((each.rss for each in after), default=None),
        worker_pss=max((each.pss for each in after), default=None),
        ready_rss=max((each.rss for each in before), default=None),
        ready_pss=max((each.pss for each in before), default=None),
        cached=cached,
    )


def best_trial(trials: Sequence[Trial], target_ms: float | None = None) -> Trial | None:
    """The sound trial with the highest throughput whose p95 is within the target; None where there is none.

    Of those that are about as fast (SAME) the one with fewest workers, then the lowest p95.
    """
    fitting = [trial for trial in trials if trial.sound and (target_ms is None or _p95(trial) <= target_ms)]
    if not fitting:
        return None
    least = (1 - SAME) * max(trial.throughput or 0.0 for trial in fitting)
    as_fast = [trial for trial in fitting if (trial.throughput or 0.0) >= least]
    return min(as_fast, key=lambda trial: (trial.setting.workers, _p95(trial)))


def how_to_use(model: str, kind: str | None, profile: str, setting: Setting) -> list[str]:
    """The command line and the yaml lines that serve a model so."""
    yaml = (
        f"  {profile}: {{workers: {setting.workers}, batch_size: {setting.batch_size}, "
        f"batch_delay_ms: {setting.batch_delay_ms}}}"
    )
    return [
        f"segserve serve --models {model} --workers {setting.workers} --batch-size {setting.batch_size} "
        f"--batch-delay {setting.batch_delay_ms}",
        f"# or for good, in handlers/{kind or model}.yaml, and build the archive again:",
        "profiles:",
        yaml,
    ]


def _p95(trial: Trial) -> float:
    return float("inf") if trial.p95_ms is None else trial.p95_ms
