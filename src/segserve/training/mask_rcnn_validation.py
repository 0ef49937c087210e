"""A Mask R-CNN's average precision on annotated pictures, and what its answers look like."""

from __future__ import annotations

from collections.abc import Callable

from segserve.imaging import Rgb
from segserve.models.device import Placement
from segserve.models.mask_rcnn import MaskRcnn, MaskRcnnParameters
from segserve.models.mask_rcnn.network import MaskRcnnNetwork
from segserve.models.segmentation import Segmentation
from segserve.render import Drawing
from segserve.training.coco import Dataset, LabeledPicture, read_picture
from segserve.training.coco_evaluation import CocoScores, FoundObject, found_objects, score_dataset
from segserve.training.mask_rcnn_samples import SampleRow, sample_sheet, truth_drawings

SAMPLES = 6
SHOWN_FROM = 0.5
"""Least score of what a sample shows."""


def validate(
    network: MaskRcnnNetwork,
    placement: Placement,
    dataset: Dataset,
    done: Callable[[], None] | None = None,
) -> tuple[CocoScores, Rgb]:
    """COCO's scores, and the first pictures with their truth and what was found beside each other.

    Args:
        network: its classes are the dataset's.
        done: called after each picture, for a progress bar.
    """
    predictor = MaskRcnn(network, placement)
    found: dict[int, list[FoundObject]] = {}
    rows: list[SampleRow] = []
    for picture in dataset.pictures:
        image = read_picture(picture)
        answer = predictor.predict([image], [MaskRcnnParameters()])[0]
        found[picture.id] = found_objects(answer, dataset.classes)
        if len(rows) < SAMPLES:
            rows.append(_sample(image, picture, answer, dataset.classes))
        if done is not None:
            done()
    return score_dataset(dataset, found), sample_sheet(rows, labels=dataset.classes)


def _sample(image: Rgb, picture: LabeledPicture, answer: Segmentation, classes: tuple[str, ...]) -> SampleRow:
    found = [Drawing(each.label, each.score, each.box, each.mask) for each in answer.instances]
    return SampleRow(image, truth_drawings(picture, classes), [each for each in found if each.score >= SHOWN_FROM])
