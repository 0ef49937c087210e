"""Accuracy of click- and box-prompted segmentation against the exact truth of generated scenes.

Every object of a scene that is not marked ``ignore`` is asked for on its own:

* ``click``: one click on its most interior point. The answer with the highest predicted IoU counts;
  ``best_of_three`` is the best of the three answers instead, which shows what choosing costs;
* ``box``: its true box;
* ``second_click``: the first click and one that corrects the counted answer (see ``clicks.corrective_click``);
  ``second_click_with_mask`` sends that answer's low-resolution logits along.

The objects whose first answer is poor (IoU < 0.8), which people correct, are summed up on their own too.

All figures are mean mask IoUs. An object without an answer counts as 0; one that needs no correction keeps its IoU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segserve import masks
from segserve.imaging import Rgb
from segserve.masks import Mask
from segserve.training.clicks import Click, corrective_click, first_click
from segserve.training.scenes import CATEGORIES
from segserve.training.scenes.files import StoredInstance, StoredScene

POOR_IOU = 0.8
FIGURES = ("click", "best_of_three", "box", "second_click", "second_click_with_mask")


@dataclass(frozen=True)
class AskedObject:
    """What the model is told of one object: clicks, its box (x0, y0, x1, y1), the logits of an earlier answer."""

    clicks: tuple[Click, ...] = ()
    box: tuple[int, int, int, int] | None = None
    logits: NDArray[np.float32] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class FoundMask:
    """One answer: (H, W) bool mask, predicted IoU, and low-resolution logits."""

    mask: Mask
    score: float
    logits: NDArray[np.float32] | None


ClickModel = Callable[[Rgb, Sequence[AskedObject]], list[list[FoundMask]]]
"""A picture and the objects to outline in it; answers each object with any number of masks."""


def evaluate_clicks(
    scenes: Iterable[StoredScene], outline: ClickModel, done: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Mean IoUs over all objects of the scenes, over those with a poor first answer, and by category.

    Args:
        scenes: pictures with their truth.
        outline: the model; called four times a scene.
        done: called after each scene, for a progress bar.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    count = 0
    for scene in scenes:
        wanted = [instance for instance in scene.instances if not instance.ignore]
        for instance, figures in zip(wanted, _score_scene(scene.image, wanted, outline), strict=True):
            rows.setdefault(instance.category, []).append(figures)
        count += 1
        if done:
            done()
    everything = [figures for category in rows.values() for figures in category]
    return {
        "scenes": count,
        "overall": _means(everything),
        "poor_first_answer": _means([figures for figures in everything if figures["click"] < POOR_IOU]),
        "by_category": {name: _means(rows[name]) for name in CATEGORIES if name in rows},
    }


def summary(metrics: dict[str, Any]) -> list[tuple[str, dict[str, float | int]]]:
    """Rows (name, figures) for a table: overall, the objects with a poor first answer, then each category."""
    poor = (f"click below {POOR_IOU}", metrics["poor_first_answer"])
    return [("all", metrics["overall"]), poor, *metrics["by_category"].items()]


def _score_scene(image: Rgb, wanted: Sequence[StoredInstance], outline: ClickModel) -> list[dict[str, float]]:
    """The FIGURES of each wanted object."""
    if not wanted:
        return []
    truths = [instance.mask for instance in wanted]
    asked = [AskedObject((first_click(truth),)) for truth in truths]
    answers = outline(image, asked)
    clicked = [_chosen(found, image) for found in answers]
    boxed = [_chosen(found, image) for found in outline(image, [AskedObject(box=each.box) for each in wanted])]
    corrections = [corrective_click(found.mask, truth) for found, truth in zip(clicked, truths, strict=True)]
    unseen = _correct(image, asked, corrections, clicked, outline, with_logits=False)
    seen = _correct(image, asked, corrections, clicked, outline, with_logits=True)
    return [
        {
            "click": masks.iou(clicked[index].mask, truth),
            "best_of_three": max((masks.iou(found.mask, truth) for found in answers[index]), default=0.0),
            "box": masks.iou(boxed[index].mask, truth),
            "second_click": masks.iou(unseen[index].mask, truth),
            "second_click_with_mask": masks.iou(seen[index].mask, truth),
        }
        for index, truth in enumerate(truths)
    ]


def _correct(
    image: Rgb,
    asked: Sequence[AskedObject],
    corrections: Sequence[Click | None],
    before: Sequence[FoundMask],
    outline: ClickModel,
    *,
    with_logits: bool,
) -> list[FoundMask]:
    """The answers after the corrective clicks; where there is none, the answer before it."""
    after = list(before)
    objects, indices = [], []
    for index, click in enumerate(corrections):
        if click is not None:
            logits = before[index].logits if with_logits else None
            objects.append(AskedObject((*asked[index].clicks, click), logits=logits))
            indices.append(index)
    if objects:
        for index, found in zip(indices, outline(image, objects), strict=True):
            after[index] = _chosen(found, image)
    return after


def _chosen(found: Sequence[FoundMask], image: Rgb) -> FoundMask:
    """The answer that is served when one is asked for: that of the highest score; an empty mask where there is none."""
    nothing = FoundMask(np.zeros(image.shape[:2], bool), 0.0, None)
    return max(found, key=lambda each: each.score, default=nothing)


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float | int]:
    figures: dict[str, float | int] = {"objects": len(rows)}
    if rows:
        figures.update({name: round(float(np.mean([row[name] for row in rows])), 4) for name in FIGURES})
    return figures
