"""Average precision of found instances, as COCO defines it (Lin et al., 2014), computed by pycocotools.

    scores = score_dataset(dataset, {picture.id: found_objects(answer, dataset.classes), ...})
    scores.mask_ap50, scores.per_class["chair"].mask_ap

AP is the mean over the classes that have truth and, unless a threshold is named (AP50, AP75), over the IoU thresholds
0.50, 0.55 ... 0.95. Of one picture and class, the best 100 objects count.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from segserve.masks import Rle
from segserve.models.segmentation import Segmentation
from segserve.training.coco import Dataset, rasterized

_Entries = tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]]
"""True and found objects, as pycocotools has them."""

MOST_OBJECTS = 100
"""Objects of one class in one picture that count, the best first; COCO's own limit."""

SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""COCO's ranges of an object's area, in square pixels, both ends included."""


@dataclass(frozen=True)
class FoundObject:
    """One object that a model found.

    Attributes:
        class_index: into the dataset's classes.
        score: 0..1; only the order matters.
        box: (x0, y0, x1, y1) in pixels, ends exclusive.
        mask: COCO compressed run-length encoding, as large as the picture.
    """

    class_index: int
    score: float
    box: tuple[float, float, float, float]
    mask: Rle


@dataclass(frozen=True)
class ClassScores:
    """One class; APs in 0..1, None where it has no truth that counts. instances: how many true ones count."""

    mask_ap: float | None
    mask_ap50: float | None
    box_ap: float | None
    box_ap50: float | None
    instances: int

    def to_dict(self) -> dict[str, float | int | None]:
        """For JSON; APs to four digits."""
        return {name: _rounded(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class CocoScores:
    """APs in 0..1, None where there is no truth that counts; the sizes are those of the true objects' masks.

    Attributes:
        pictures: how many were scored, those without truth included.
        instances: how many true objects count.
    """

    mask_ap: float | None
    mask_ap50: float | None
    mask_ap75: float | None
    mask_ap_small: float | None
    mask_ap_medium: float | None
    mask_ap_large: float | None
    box_ap: float | None
    box_ap50: float | None
    per_class: dict[str, ClassScores]
    pictures: int
    instances: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON; APs to four digits, ``per_class`` by name."""
        figures: dict[str, Any] = {name: _rounded(value) for name, value in vars(self).items() if name != "per_class"}
        return {**figures, "per_class": {name: scores.to_dict() for name, scores in self.per_class.items()}}


def found_objects(answer: Segmentation, classes: Sequence[str]) -> list[FoundObject]:
    """A predictor's answer in a dataset's classes; instances of labels that the dataset does not know are left out."""
    index = {name: number for number, name in enumerate(classes)}
    return [
        FoundObject(index[instance.label], instance.score, instance.box, instance.rle)
        for instance in answer.instances
        if instance.label in index
    ]


def score_dataset(
    dataset: Dataset, found: Mapping[int, Sequence[FoundObject]], *, counting_ignored: bool = False
) -> CocoScores:
    """The AP of what was found in a dataset's pictures.

    True objects marked ``ignore`` count neither way: they need not be found, and one that is found is no error.
    Crowd regions count neither way either, and take any number of objects that lie within them.

    Args:
        dataset: the truth.
        found: by id of the picture; pictures left out have nothing found in them.
        counting_ignored: score objects marked ``ignore`` like the others.

    Raises:
        ValueError: a picture id or class index that the dataset has not, or a mask of another size than its picture.
    """
    _check(dataset, found)
    truth = _true_entries(dataset, counting_ignored)
    mask_precision = _precision("segm", dataset, SIZES.values(), (truth, _found_entries(found, "segm")))
    box_precision = _precision("bbox", dataset, [SIZES["all"]], (truth, _found_entries(found, "bbox")))
    counts = np.bincount(
        [entry["category_id"] for entry in truth if not entry["ignore"]], minlength=len(dataset.classes)
    )
    every, small, medium, large = (mask_precision[..., place] for place in range(len(SIZES)))
    boxes = box_precision[..., 0]
    per_class = {
        name: ClassScores(
            mask_ap=_mean(every[:, :, index]),
            mask_ap50=_mean(every[0, :, index]),
            box_ap=_mean(boxes[:, :, index]),
            box_ap50=_mean(boxes[0, :, index]),
            instances=int(counts[index]),
        )
        for index, name in enumerate(dataset.classes)
    }
    return CocoScores(
        mask_ap=_mean(every),
        mask_ap50=_mean(every[0]),
        mask_ap75=_mean(every[5]),
        mask_ap_small=_mean(small),
        mask_ap_medium=_mean(medium),
        mask_ap_large=_mean(large),
        box_ap=_mean(boxes),
        box_ap50=_mean(boxes[0]),
        per_class=per_class,
        pictures=len(dataset.pictures),
        instances=int(counts.sum()),
    )


class _Evaluation(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """pycocotools' evaluation of entries that are at hand, without its index of a file.

    Its own ``_prepare`` overwrites an object's ``ignore`` with ``iscrowd``. The matching itself keeps the two apart:
    ``ignore`` says that an object counts neither way, ``iscrowd`` that its IoU is the share of the found object that
    lies within it. An object that is merely too small or hidden must be met by the ordinary IoU, or every speck found
    somewhere on it would be excused; so the entries go in as they are.
    """

    def __init__(self, kind: str, dataset: Dataset, sizes: Iterable[tuple[float, float]], entries: _Entries) -> None:
        super().__init__(iouType=kind)
        self.params.imgIds = sorted(picture.id for picture in dataset.pictures)
        self.params.catIds = list(range(len(dataset.classes)))
        self.params.maxDets = [MOST_OBJECTS]
        self.params.areaRng = [list(size) for size in sizes]
        self._entries = entries

    def _prepare(self) -> None:
        self._gts, self._dts = (_by_picture_and_class(entries) for entries in self._entries)


def _precision(
    kind: str, dataset: Dataset, sizes: Collection[tuple[float, float]], entries: _Entries
) -> NDArray[np.float64]:
    """Precision by IoU threshold (10), recall (101), class and size; -1 where there is no truth."""
    if not dataset.pictures or not dataset.classes:
        return np.full((10, 101, len(dataset.classes), len(sizes)), -1.0)
    evaluation = _Evaluation(kind, dataset, sizes, entries)
    with redirect_stdout(io.StringIO()):  # it prints its progress
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"][..., 0], dtype=np.float64)


def _check(dataset: Dataset, found: Mapping[int, Sequence[FoundObject]]) -> None:
    sizes = {picture.id: [picture.height, picture.width] for picture in dataset.pictures}
    for picture, objects in found.items():
        if picture not in sizes:
            raise ValueError(f"picture {picture} is not in the dataset")
        for item in objects:
            if not 0 <= item.class_index < len(dataset.classes):
                raise ValueError(f"picture {picture}: class {item.class_index} of {len(dataset.classes)} classes")
            if list(item.mask["size"]) != sizes[picture]:
                raise ValueError(f"picture {picture}: a mask of {item.mask['size']} for a picture of {sizes[picture]}")


def _true_entries(dataset: Dataset, counting_ignored: bool) -> list[dict[str, Any]]:
    """True objects as pycocotools' annotations. Ids begin with 1: to its matching, 0 means unmatched."""
    entries: list[dict[str, Any]] = []
    for picture in dataset.pictures:
        for item in picture.objects:
            given = item.segmentation
            rle = rasterized(given, picture.height, picture.width) if isinstance(given, list) else given
            mask = _as_bytes(rle)
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": picture.id,
                    "category_id": item.class_index,
                    "bbox": _corner_and_size(item.box),
                    "segmentation": mask,
                    "area": float(coco_mask.area(mask)),
                    "iscrowd": int(item.crowd),
                    "ignore": int(item.crowd or (item.ignore and not counting_ignored)),
                }
            )
    return entries


def _found_entries(found: Mapping[int, Sequence[FoundObject]], kind: str) -> list[dict[str, Any]]:
    """Found objects as pycocotools' results; the area, by which sizes go, is that of the mask or of the box."""
    entries: list[dict[str, Any]] = []
    for picture, objects in found.items():
        for item in objects:
            mask = _as_bytes(item.mask)
            box = _corner_and_size(item.box)
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": picture,
                    "category_id": item.class_index,
                    "bbox": box,
                    "segmentation": mask,
                    "area": float(coco_mask.area(mask)) if kind == "segm" else box[2] * box[3],
                    "score": float(item.score),
                }
            )
    return entries


def _as_bytes(rle: Rle) -> dict[str, Any]:
    """A compressed RLE as pycocotools takes it."""
    return {"size": rle["size"], "counts": rle["counts"].encode("ascii")}


def _by_picture_and_class(entries: Iterable[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    groups: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        groups[entry["image_id"], entry["category_id"]].append(entry)
    return groups


def _corner_and_size(box: Sequence[float]) -> list[float]:
    x0, y0, x1, y1 = (float(side) for side in box)
    return [x0, y0, x1 - x0, y1 - y0]


def _mean(precision: NDArray[np.float64]) -> float | None:
    known = precision[precision > -1]
    return float(np.mean(known)) if known.size else None


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
