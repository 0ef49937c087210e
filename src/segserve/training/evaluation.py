"""Accuracy of text-prompted segmentation against the exact truth of generated scenes.

Each scene is asked about twice, each time with one prompt that mixes what is there with what is not:

* ``named``: the phrase of every object ("red chair", "window", "floor"), two categories that are not in the picture,
  a wrong color of a category that is ("blue chair"), and a word that has nothing to do with rooms;
* ``category``: the plain categories that are in the picture, and three that are not.

A found instance is right when its box overlaps an unclaimed true instance of its phrase by IoU >= 0.5; claims go by
descending score. Instances marked ``ignore`` count neither way: they need not be found, and finding them is no error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segserve import boxes, masks
from segserve.training.scenes import CATEGORIES, COLORED, COLORS

MATCH_IOU = 0.5
UNRELATED = ("dog", "car", "bicycle", "cat", "person", "tree", "laptop", "bottle")


class TrueInstance(Protocol):
    """One object of a scene, as the truth has it."""

    @property
    def category(self) -> str: ...
    @property
    def phrase(self) -> str: ...
    @property
    def ignore(self) -> bool: ...
    @property
    def box(self) -> Sequence[float]: ...
    @property
    def mask(self) -> masks.Mask: ...


class TrueScene(Protocol):
    """One picture with its truth."""

    @property
    def seed(self) -> int: ...
    @property
    def image(self) -> NDArray[np.uint8]: ...
    @property
    def instances(self) -> Sequence[TrueInstance]: ...


class FoundInstance(Protocol):
    """One object as a model found it; the label is the phrase that it answers."""

    @property
    def label(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def box(self) -> Sequence[float]: ...
    @property
    def mask(self) -> masks.Mask: ...


Segmenter = Callable[[NDArray[np.uint8], str], Sequence[FoundInstance]]
"""(image H x W x 3 RGB uint8, text prompt) -> what was found."""


@dataclass(frozen=True)
class Question:
    """A prompt for a scene. present and absent are its phrases; order is how they are asked."""

    present: tuple[str, ...]
    absent: tuple[str, ...]
    order: tuple[str, ...]

    @property
    def text(self) -> str:
        return ". ".join(self.order) + "."


@dataclass
class Tally:
    """Counts, and the mask IoU of every match."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0
    absent_asked: int = 0
    absent_answered: int = 0
    mask_ious: list[float] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.true_positives += other.true_positives
        self.false_positives += other.false_positives
        self.false_negatives += other.false_negatives
        self.absent_asked += other.absent_asked
        self.absent_answered += other.absent_answered
        self.mask_ious += other.mask_ious

    def metrics(self) -> dict[str, float | int]:
        """recall, precision, absent_silent (share of absent phrases answered with nothing), mean_mask_iou, n."""
        wanted = self.true_positives + self.false_negatives
        given = self.true_positives + self.false_positives
        figures: dict[str, float | int] = {"instances": wanted}
        if wanted:
            figures["recall"] = round(self.true_positives / wanted, 4)
        if given:
            figures["precision"] = round(self.true_positives / given, 4)
        if self.absent_asked:
            figures["absent_asked"] = self.absent_asked
            figures["absent_silent"] = round(1 - self.absent_answered / self.absent_asked, 4)
        if self.mask_ious:
            figures["mean_mask_iou"] = round(float(np.mean(self.mask_ious)), 4)
        return figures


def named_question(scene: TrueScene) -> Question:
    """The phrases of a scene's objects, mixed with four kinds of phrases that fit nothing in it."""
    rng = np.random.default_rng((scene.seed, 11))
    present = _distinct(instance.phrase for instance in scene.instances if not instance.ignore)
    there = {instance.category for instance in scene.instances}
    missing = [category for category in CATEGORIES if category not in there]
    absent = [str(word) for word in rng.choice(missing, size=min(2, len(missing)), replace=False)]
    absent += _wrong_colors(scene, rng)[:1]
    absent.append(str(rng.choice(UNRELATED)))
    return _question(present, absent, rng)


def category_question(scene: TrueScene) -> Question:
    """The plain categories of a scene's objects, mixed with three that are not in it."""
    rng = np.random.default_rng((scene.seed, 12))
    present = _distinct(instance.category for instance in scene.instances if not instance.ignore)
    there = {instance.category for instance in scene.instances}
    missing = [category for category in CATEGORIES if category not in there]
    absent = [str(word) for word in rng.choice(missing, size=min(3, len(missing)), replace=False)]
    return _question(present, absent, rng)


QUESTIONS: dict[str, Callable[[TrueScene], Question]] = {"named": named_question, "category": category_question}


def score_answer(scene: TrueScene, question: Question, found: Sequence[FoundInstance]) -> dict[str, Tally]:
    """Tallies of one answer by category of the phrase; absent phrases are tallied under ``absent``."""
    tallies: dict[str, Tally] = {}
    for phrase in question.present:
        answers = [instance for instance in found if instance.label == phrase]
        truth = [instance for instance in scene.instances if phrase in (instance.phrase, instance.category)]
        tallies.setdefault(phrase.split()[-1], Tally()).add(_match(truth, answers))
    absent = tallies.setdefault("absent", Tally())
    answered = {instance.label for instance in found}
    for phrase in question.absent:
        absent.absent_asked += 1
        absent.absent_answered += phrase in answered
    return tallies


def evaluate(scenes: Iterable[TrueScene], segment: Segmenter, done: Callable[[], None] | None = None) -> dict[str, Any]:
    """Metrics over scenes, pooled and by kind of question and category.

    Args:
        scenes: pictures with their truth.
        segment: the model; called once for each question.
        done: called after each scene, for a progress bar.
    """
    kinds = {kind: Tally() for kind in QUESTIONS}
    categories: dict[str, Tally] = {}
    count = 0
    for scene in scenes:
        for kind, ask in QUESTIONS.items():
            question = ask(scene)
            for category, tally in score_answer(scene, question, segment(scene.image, question.text)).items():
                kinds[kind].add(tally)
                categories.setdefault(category, Tally()).add(tally)
        count += 1
        if done:
            done()
    overall = Tally()
    for tally in kinds.values():
        overall.add(tally)
    return {
        "scenes": count,
        "overall": overall.metrics(),
        "by_question": {kind: tally.metrics() for kind, tally in kinds.items()},
        "by_category": {name: categories[name].metrics() for name in CATEGORIES if name in categories},
    }


def _match(truth: Sequence[TrueInstance], answers: Sequence[FoundInstance]) -> Tally:
    tally = Tally(false_negatives=sum(not instance.ignore for instance in truth))
    if not truth or not answers:
        tally.false_positives = len(answers)
        return tally
    ranked = sorted(answers, key=lambda answer: -answer.score)
    ious = boxes.iou_matrix(np.array([a.box for a in ranked], float), np.array([t.box for t in truth], float))
    free = np.ones(len(truth), bool)
    for answer, row in zip(ranked, ious, strict=True):
        index = int(np.argmax(np.where(free, row, -1.0)))
        if free[index] and row[index] >= MATCH_IOU:
            free[index] = False
            if not truth[index].ignore:
                tally.true_positives += 1
                tally.false_negatives -= 1
                tally.mask_ious.append(masks.iou(answer.mask, truth[index].mask))
        elif not any(row[j] >= MATCH_IOU and instance.ignore for j, instance in enumerate(truth)):
            tally.false_positives += 1
    return tally


def _wrong_colors(scene: TrueScene, rng: np.random.Generator) -> list[str]:
    """Phrases such as "blue chair" for pictures that have chairs, but no blue one; in random order."""
    there = {instance.phrase for instance in scene.instances}
    categories = {instance.category for instance in scene.instances if instance.category in COLORED}
    wrong = [f"{color} {name}" for name in sorted(categories) for color in COLORS if f"{color} {name}" not in there]
    return [str(phrase) for phrase in rng.permutation(wrong)] if wrong else []


def _question(present: Sequence[str], absent: Sequence[str], rng: np.random.Generator) -> Question:
    order = [str(phrase) for phrase in rng.permutation([*present, *absent])]
    return Question(tuple(present), tuple(absent), tuple(order))


def _distinct(phrases: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(phrases))


def summary(metrics: dict[str, Any]) -> list[tuple[str, dict[str, float | int]]]:
    """Rows (name, figures) for a table: overall, then each kind of question, then each category."""
    rows = [("all", metrics["overall"])]
    rows += list(metrics["by_question"].items())
    rows += list(metrics["by_category"].items())
    return rows
