"""detectron2's recorded answers, and whether other answers agree with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from segserve import masks
from segserve.imaging import ImageLimits, Rgb, decode
from segserve.models.segmentation import Instance, Segmentation

FOLDER = Path(__file__).parents[2] / "data" / "detectron2"
WEIGHTS = FOLDER / "model_final.pth"
CONFIG = FOLDER / "config.yaml"
LABELS = ("disc", "box", "triangle")


@dataclass(frozen=True)
class Golden:
    """A picture and the instances that detectron2 found in it."""

    name: str
    image: Rgb
    instances: list[dict[str, Any]]


@cache
def golden() -> tuple[Golden, ...]:
    """All of them."""
    content = json.loads((FOLDER / "expected.json").read_text("utf-8"))
    assert tuple(content["classes"]) == LABELS
    return tuple(
        Golden(
            each["image"], decode((FOLDER / "images" / each["image"]).read_bytes(), ImageLimits()), each["instances"]
        )
        for each in content["images"]
    )


@dataclass(frozen=True)
class Difference:
    """The largest differences: of scores, of box coordinates in pixels, and the least mask IoU."""

    score: float
    box: float
    mask_iou: float


def difference(expected: Golden, answer: Segmentation, least_score: float = 0.1) -> Difference:
    """How far an answer is from detectron2's, instances matched one to one; fails when they cannot be."""
    assert (answer.height, answer.width) == expected.image.shape[:2]
    wanted = [each for each in expected.instances if each["score"] >= least_score]
    left = list(answer.instances)
    score = box = 0.0
    mask_iou = 1.0
    for each in wanted:
        same = [one for one in left if one.label == LABELS[each["category_id"]]]
        assert same, f"{expected.name}: no answer for {each}"
        match = max(same, key=lambda one: box_iou(one.box, each["box"]))
        left.remove(match)
        score = max(score, abs(match.score - each["score"]))
        box = max(box, *(abs(a - b) for a, b in zip(match.box, each["box"], strict=True)))
        mask_iou = min(mask_iou, masks.iou(match.mask, masks.decode_rle(each["mask"])))
    unmatched = [(one.label, one.score, one.box) for one in left if one.score >= least_score]
    assert not unmatched, f"{expected.name}: detectron2 did not find {unmatched}"
    return Difference(score, box, mask_iou)


def box_iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (first, second)]
    return shared / (sum(areas) - shared)


def as_tuples(answer: Segmentation) -> list[tuple[Any, ...]]:
    """An answer's instances with everything that they hold."""
    return [_as_tuple(each) for each in answer.instances]


def _as_tuple(instance: Instance) -> tuple[Any, ...]:
    return instance.label, instance.score, instance.box, instance.rle["counts"]
