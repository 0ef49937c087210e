"""COCO average precision of a model of fixed classes on annotated pictures, in the form of ``metrics.json``.

Objects marked ``ignore``, too small or too hidden to be asked for, count neither way; the same figures with every
object counted stand beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from segserve.errors import InvalidRequestError
from segserve.imaging import Rgb
from segserve.models.segmentation import Segmentation
from segserve.training.coco import Dataset, read_picture
from segserve.training.coco_evaluation import MOST_OBJECTS, CocoScores, FoundObject, found_objects, score_dataset

SCORE_THRESHOLD = 0.05
"""With which a model is asked: AP is made of the doubtful answers too. detectron2 evaluates with the same."""


def evaluate_instances(
    dataset: Dataset,
    classes: Sequence[str] | None,
    predict: Callable[[Rgb], Segmentation],
    done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The figures of a model's answers, one picture at a time.

    Args:
        dataset: the pictures and their truth.
        classes: the model's, where they are known; those that the dataset lacks are not scored.
        predict: asks the model with SCORE_THRESHOLD, for MOST_OBJECTS at most.
        done: called after each picture, for a progress bar.

    Raises:
        InvalidRequestError: the model has none of the dataset's classes, or a picture cannot be read.
    """
    if classes is not None and not set(classes) & set(dataset.classes):
        raise InvalidRequestError(
            f"The model has none of the pictures' classes: it has {_listed(classes)}; they have "
            f"{_listed(dataset.classes)}."
        )
    found: dict[int, list[FoundObject]] = {}
    for picture in dataset.pictures:
        found[picture.id] = found_objects(predict(read_picture(picture)), dataset.classes)
        done()
    scores = score_dataset(dataset, found)
    figures = scores.to_dict()["per_class"]
    return {
        "scenes": len(dataset.pictures),
        "parameters": {"score_threshold": SCORE_THRESHOLD, "max_instances": MOST_OBJECTS},
        "overall": _overall(scores),
        "by_category": {name: figures[name] for name in dataset.classes if figures[name]["instances"]},
        "counting_ignored": _overall(score_dataset(dataset, found, counting_ignored=True)),
    }


def summary(metrics: dict[str, Any]) -> list[tuple[str, dict[str, float | int | None]]]:
    """Rows (name, figures) for a table: overall, each category, and overall with every object counted."""
    return [
        ("all", metrics["overall"]),
        *metrics["by_category"].items(),
        ("all, ignored ones counted", metrics["counting_ignored"]),
    ]


def _overall(scores: CocoScores) -> dict[str, float | int | None]:
    return {name: value for name, value in scores.to_dict().items() if name not in ("per_class", "pictures")}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
