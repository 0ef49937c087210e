"""Mean IoU of a semantic model on generated scenes, in the form of ``metrics.json``.

Intersections and unions are summed by class over all scenes before they are divided, at each picture's own size.
Pixels of objects marked ``ignore``, too small or too hidden to be asked for, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segserve.errors import InvalidRequestError
from segserve.imaging import Rgb
from segserve.models.segmentation import LabelMap
from segserve.training.scenes import CATEGORIES
from segserve.training.scenes.files import StoredScene
from segserve.training.semantic_batches import IGNORED, scored_labels

Counts = NDArray[np.int64]


class PixelCounts:
    """How often pixels of each class were given each class, over all pictures counted so far.

    Args:
        classes: the truth's, by the indices of its label maps.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        # The last column counts pixels given a class that the truth does not know.
        self.counts: Counts = np.zeros((len(self.classes), len(self.classes) + 1), np.int64)

    def add(self, truth: NDArray[np.uint8], answer: LabelMap) -> None:
        """Count one picture.

        Args:
            truth: (H, W) class indices, IGNORED where pixels do not count.
            answer: the model's, at the picture's size; its classes are matched to the truth's by name.

        Raises:
            InvalidRequestError: the answer's classes have nothing in common with the truth's.
            ValueError: the answer has another size than the picture.
        """
        if answer.labels.shape != truth.shape:
            raise ValueError(f"label map: expected the picture's {truth.shape}, got {answer.labels.shape}")
        if not set(answer.classes) & set(self.classes):
            raise InvalidRequestError(
                f"The model has none of the scenes' classes: it has {_listed(answer.classes)}; they have "
                f"{_listed(self.classes)}."
            )
        unknown = len(self.classes)
        known = {name: index for index, name in enumerate(self.classes)}
        index_of = np.array([known.get(name, unknown) for name in answer.classes], np.int64)
        counted = truth != IGNORED
        pairs = truth[counted].astype(np.int64) * (unknown + 1) + index_of[answer.labels[counted]]
        self.counts += np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape)

    def iou(self) -> dict[str, float | None]:
        """Intersection over union by class; None for a class that neither the truth nor an answer had."""
        right = self.counts.diagonal()
        union = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) - right
        return {name: _share(right[index], union[index]) for index, name in enumerate(self.classes)}

    def mean_iou(self) -> float | None:
        """The mean of ``iou`` over the classes that have one."""
        values = [value for value in self.iou().values() if value is not None]
        return sum(values) / len(values) if values else None

    def figures(self) -> dict[str, dict[str, float | int | None]]:
        """By class: ``iou``, ``recall`` and ``precision`` of its pixels, and its true ``pixels``."""
        right, true, given = self.counts.diagonal(), self.counts.sum(axis=1), self.counts[:, :-1].sum(axis=0)
        return {
            name: {
                "iou": _rounded(value),
                "recall": _rounded(_share(right[index], true[index])),
                "precision": _rounded(_share(right[index], given[index])),
                "pixels": int(true[index]),
            }
            for index, (name, value) in enumerate(self.iou().items())
        }

    def accuracy(self) -> float | None:
        """Share of all pixels that were given their class."""
        return _share(self.counts.diagonal().sum(), self.counts.sum())


def evaluate_semantic(
    scenes: Iterable[StoredScene], predict: Callable[[Rgb], LabelMap], done: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The figures of a model's answers, one picture at a time.

    Args:
        scenes: the pictures and their truth.
        predict: asks the model for a label map at the picture's size.
        done: called after each picture, for a progress bar.

    Raises:
        InvalidRequestError: the model has none of the scenes' classes, or a scene cannot be read.
    """
    counts, pictures = PixelCounts(CATEGORIES), 0
    for scene in scenes:
        counts.add(scored_labels(scene.semantic, ignored_pixels(scene)), predict(scene.image))
        pictures += 1
        done()
    return {
        "scenes": pictures,
        "overall": {
            "mean_iou": _rounded(counts.mean_iou()),
            "pixel_accuracy": _rounded(counts.accuracy()),
            "pixels": int(counts.counts.sum()),
        },
        "by_category": counts.figures(),
    }


def ignored_pixels(scene: StoredScene) -> NDArray[np.bool_]:
    """(H, W): the visible pixels of the objects that are not to be scored."""
    ignored = np.zeros(scene.semantic.shape, bool)
    for each in scene.instances:
        if each.ignore:
            ignored |= each.mask
    return ignored


def summary(metrics: dict[str, Any]) -> list[tuple[str, dict[str, float | int | None]]]:
    """Rows (name, figures) for a table: overall, then each class."""
    overall = metrics["overall"]
    accuracy = overall["pixel_accuracy"]
    return [
        ("all", {"iou": overall["mean_iou"], "recall": accuracy, "precision": accuracy, "pixels": overall["pixels"]}),
        *metrics["by_category"].items(),
    ]


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
