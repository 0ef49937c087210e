"""What segserve tune tries, how it judges, and what it prints."""

from __future__ import annotations

import json

import pytest

from segserve.cli.tuning_table import row
from segserve.closed_loop import LOST, Load
from segserve.errors import InvalidRequestError
from segserve.torchserve.tuning import Memory, Setting, Trial, best_trial, how_to_use, settings_to_try, trial_of


def trial(workers: int, size: int, throughput: float, p95: float, **rest: object) -> Trial:
    return Trial(Setting(workers, size, 10), throughput, p95 / 2, p95, p95 * 2, 100, **rest)


SLOW, FAST, FASTER = trial(1, 1, 10, 100), trial(1, 4, 20, 300), trial(2, 4, 30, 500)


@pytest.mark.parametrize(
    ("trials", "target", "best"),
    [
        ([SLOW, FAST, FASTER], None, FASTER),
        ([SLOW, FAST, FASTER], 499.9, FAST),
        ([SLOW, FAST, FASTER], 100, SLOW),
        ([SLOW, FAST, FASTER], 99, None),
        ([], None, None),
        # What refused requests, or never came up, is not best however fast the rest was.
        ([FAST, trial(2, 4, 90, 10, errors={"429": 1})], None, FAST),
        ([Trial(Setting(1, 1, 1), problem="it ended")], None, None),
        # As fast as it gets within the scatter: fewer workers, then the shorter wait.
        ([trial(2, 1, 30.5, 90), trial(1, 8, 30, 95), trial(1, 4, 30, 92)], None, trial(1, 4, 30, 92)),
    ],
)
def test_the_best(trials: list[Trial], target: float | None, best: Trial | None):
    assert best_trial(trials, target) == best


def test_every_combination_once_and_single_images_without_a_delay():
    assert settings_to_try([1, 2], [1, 4], [5, 50]) == [
        Setting(1, 1, 1),
        Setting(1, 4, 5),
        Setting(1, 4, 50),
        Setting(2, 1, 1),
        Setting(2, 4, 5),
        Setting(2, 4, 50),
    ]
    for wrong in (([], [1], [1]), ([1], [0], [1]), ([1], [1], [-1])):
        with pytest.raises(InvalidRequestError):
            settings_to_try(*wrong)


def test_a_load_becomes_a_trial_and_a_row():
    load = Load(2.0, (0.1, 0.2, 0.3, 0.4), {200: 5, 429: 2, LOST: 1})
    after = [Memory(5 * 2**20, 3), Memory(7 * 2**20, 4)]
    made = trial_of(Setting(2, 4, 10), load, [Memory(2, 1)], after, 0.5)
    assert (made.throughput, made.answers, made.errors) == (2.0, 4, {"429": 2, "lost": 1})
    assert (made.p50_ms, made.worker_rss, made.worker_pss, made.sound) == (300.0, 7 * 2**20, 4, False)
    assert (made.ready_rss, made.ready_pss, made.cached) == (2, 1, 0.5)
    assert row(made, star=True) == ["*", "2", "4", "10", "2.00", "300", "400", "400", "2 x 429, 1 x lost", "7"]
    assert json.loads(json.dumps(made.to_dict()))["batch_delay_ms"] == 10
    failed = Trial(Setting(1, 1, 1), problem="it ended")
    assert row(failed, star=False) == ["", "1", "1", "1", "–", "–", "–", "–", "not ready", "–"]


def test_what_to_use_is_a_command_line_and_valid_yaml():
    import yaml

    from segserve.cli import build_parser
    from segserve.torchserve.profiles import Profile, profile_of

    command, _, *lines = how_to_use("streets", "semantic", "gpu", Setting(2, 8, 15))
    options = build_parser().parse_args(command.split()[1:])
    assert (options.models, options.workers, options.batch_size, options.batch_delay) == ("streets", 2, 8, 15)
    assert profile_of(yaml.safe_load("\n".join(lines)), "gpu") == Profile(2, 8, 15)
