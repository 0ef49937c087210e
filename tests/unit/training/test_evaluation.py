"""Evaluation: an answer that repeats the truth scores 1, and each kind of mistake costs what it should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from segserve.masks import Mask
from segserve.training import evaluation
from segserve.training.scenes import make_scene


@dataclass(frozen=True)
class Truth:
    category: str
    phrase: str
    ignore: bool
    box: tuple[float, float, float, float]
    mask: Mask


@dataclass(frozen=True)
class Found:
    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: Mask


@dataclass(frozen=True)
class TruthScene:
    seed: int
    image: np.ndarray
    instances: tuple[Truth, ...]


def generated(seed: int) -> TruthScene:
    scene = make_scene(seed, (120, 160))
    truth = [Truth(o.category, o.phrase, o.ignore, o.box, scene.mask(o)) for o in scene.objects]
    return TruthScene(seed, scene.image, tuple(truth))


def square(x: int, y: int, side: int = 10) -> tuple[tuple[float, float, float, float], Mask]:
    mask = np.zeros((60, 60), bool)
    mask[y : y + side, x : x + side] = True
    return (x, y, x + side, y + side), mask


def truth(phrase: str, x: int, y: int, ignore: bool = False) -> Truth:
    box, mask = square(x, y)
    return Truth(phrase.rsplit(maxsplit=1)[-1], phrase, ignore, box, mask)


def found(label: str, x: int, y: int, score: float = 0.9) -> Found:
    return Found(label, score, *square(x, y))


ROOM = TruthScene(
    3,
    np.zeros((60, 60, 3), np.uint8),
    (
        truth("red chair", 0, 0),
        truth("blue chair", 20, 0),
        truth("window", 40, 0),
        truth("window", 40, 40, ignore=True),
    ),
)
ASKED = evaluation.Question(
    present=("red chair", "window"), absent=("dog", "blue chair"), order=("red chair", "window", "dog", "blue chair")
)
RIGHT = (found("red chair", 0, 0), found("window", 40, 0))


def figures(answer: Sequence[Found]) -> dict[str, float | int]:
    total = evaluation.Tally()
    for tally in evaluation.score_answer(ROOM, ASKED, answer).values():
        total.add(tally)
    return total.metrics()


@pytest.mark.parametrize(
    ("answer", "recall", "precision", "silent"),
    [
        (RIGHT, 1.0, 1.0, 1.0),
        (RIGHT[:1], 0.5, 1.0, 1.0),
        ((), 0.0, None, 1.0),
        ((*RIGHT, found("red chair", 20, 0)), 1.0, 2 / 3, 1.0),
        ((*RIGHT, found("red chair", 1, 0, 0.5)), 1.0, 2 / 3, 1.0),
        ((*RIGHT, found("window", 40, 40)), 1.0, 1.0, 1.0),
        ((*RIGHT, found("dog", 5, 5)), 1.0, 1.0, 0.5),
        ((*RIGHT, found("dog", 5, 5), found("blue chair", 0, 0)), 1.0, 1.0, 0.0),
        ((found("red chair", 6, 0), found("window", 40, 0)), 0.5, 0.5, 1.0),
    ],
    ids=["right", "missed", "nothing", "wrong place", "twice", "ignored", "absent", "two absent", "shifted"],
)
def test_each_mistake_costs_what_it_should(
    answer: Sequence[Found], recall: float, precision: float | None, silent: float
) -> None:
    got = figures(answer)
    assert got["instances"] == 2
    assert got["recall"] == pytest.approx(recall, abs=1e-4)
    assert got.get("precision") == (None if precision is None else pytest.approx(precision, abs=1e-4))
    assert got["absent_silent"] == silent and got["absent_asked"] == 2


def test_mask_iou_is_of_the_masks_not_the_boxes() -> None:
    half = replace(RIGHT[0], mask=RIGHT[0].mask & (np.arange(60) < 5)[None])
    assert figures([half])["mean_mask_iou"] == 0.5


def test_a_plain_category_takes_all_colors() -> None:
    question = evaluation.Question(("chair",), (), ("chair",))
    tallies = evaluation.score_answer(ROOM, question, [found("chair", 0, 0), found("chair", 20, 0)])
    assert (tallies["chair"].true_positives, tallies["chair"].false_negatives) == (2, 0)


@pytest.mark.parametrize("seed", range(40))
def test_questions_are_about_the_scene(seed: int) -> None:
    scene = generated(seed)
    there = {i.phrase for i in scene.instances} | {i.category for i in scene.instances}
    for ask in evaluation.QUESTIONS.values():
        question = ask(scene)
        assert set(question.present) <= there and question.present
        assert not set(question.absent) & there and question.absent
        assert sorted(question.order) == sorted([*question.present, *question.absent])
        assert question == ask(scene)
        assert len(question.text) <= 256


def test_wrong_colors_are_asked() -> None:
    absent = [phrase for seed in range(20) for phrase in evaluation.named_question(generated(seed)).absent]
    assert sum(" " in phrase for phrase in absent) >= 10


def test_repeating_the_truth_scores_one_and_silence_scores_nothing() -> None:
    scenes = [generated(seed) for seed in range(6)]
    by_image = {id(scene.image): scene for scene in scenes}

    def oracle(image: np.ndarray, text: str) -> list[Found]:
        wanted = [phrase.strip() for phrase in text.split(".") if phrase.strip()]
        return [
            Found(phrase, 1.0, instance.box, instance.mask)
            for instance in by_image[id(image)].instances
            for phrase in (instance.phrase, instance.category)
            if phrase in wanted and not (phrase == instance.phrase == instance.category and wanted.count(phrase) > 1)
        ]

    seen: list[None] = []
    metrics = evaluation.evaluate(scenes, oracle, lambda: seen.append(None))
    assert len(seen) == metrics["scenes"] == 6
    overall = metrics["overall"]
    assert overall["recall"] == overall["absent_silent"] == overall["mean_mask_iou"] == 1.0
    silent = evaluation.evaluate(scenes, lambda image, text: [])["overall"]
    assert silent["recall"] == 0 and "precision" not in silent and silent["absent_silent"] == 1.0
    assert {"floor", "wall"} <= set(metrics["by_category"])
