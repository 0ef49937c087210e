"""The learning-rate schedule."""

from itertools import pairwise

import pytest

from segserve.training.schedule import Schedule

SCHEDULE = Schedule(peak=1.0, warmup=10, decay=0.5, floor=0.1)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.1),  # first of ten warm-up steps
        (4, 0.5),
        (9, 1.0),
        (50, 1.0),  # exactly half is left: the decay begins here, still at the peak
        (75, 0.55),  # middle of the half cosine: mean of peak and floor
        (100, 0.1),
        (500, 0.1),  # beyond the end it stays at the floor
    ],
)
def test_rate_at_known_steps(step: int, expected: float) -> None:
    assert SCHEDULE.rate(step, 100) == pytest.approx(expected)


def test_it_never_rises_after_the_warmup() -> None:
    rates = [SCHEDULE.rate(step, 100) for step in range(10, 101)]
    assert all(later <= earlier for earlier, later in pairwise(rates))


def test_a_shorter_run_decays_from_the_same_plateau() -> None:
    long, short = SCHEDULE.rate(60, 200), SCHEDULE.rate(60, 80)
    assert long == 1.0
    assert 0.1 < short < 1.0


def test_without_warmup_the_first_step_has_the_peak() -> None:
    assert Schedule(peak=2.0, warmup=0).rate(0, 10) == 2.0


@pytest.mark.parametrize(("step", "steps"), [(0, 0), (-1, 10), (3, -5)])
def test_impossible_steps_are_refused(step: int, steps: int) -> None:
    with pytest.raises(ValueError, match=f"step={step}"):
        SCHEDULE.rate(step, steps)
