"""Mean IoU on label maps small enough to be counted by hand, and on scenes."""

from pathlib import Path

import numpy as np
import pytest

from segserve.errors import InvalidRequestError
from segserve.models.segmentation import LabelMap
from segserve.training.scenes import CATEGORIES
from segserve.training.scenes.files import read_scenes, write_scenes
from segserve.training.semantic_batches import IGNORED
from segserve.training.semantic_evaluation import PixelCounts, evaluate_semantic, ignored_pixels, summary

CLASSES = ("wall", "floor", "lamp")


def answer(labels: list[list[int]], classes: tuple[str, ...] = CLASSES) -> LabelMap:
    array = np.array(labels, np.uint8)
    return LabelMap(array.shape[1], array.shape[0], array, classes)


def test_iou_is_summed_over_pictures_before_it_is_divided() -> None:
    counts = PixelCounts(CLASSES)
    counts.add(np.array([[0, 0, 1, 1]], np.uint8), answer([[0, 1, 1, 1]]))
    counts.add(np.array([[1]], np.uint8), answer([[0]]))
    # wall: 1 right of 2 true and 2 given; floor: 2 right of 3 true and 3 given.
    assert counts.iou() == {"wall": 1 / 3, "floor": 2 / 4, "lamp": None}
    assert counts.mean_iou() == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert counts.accuracy() == pytest.approx(3 / 5)
    figures = counts.figures()
    assert figures["floor"] == {"iou": 0.5, "recall": 0.6667, "precision": 0.6667, "pixels": 3}
    assert figures["lamp"] == {"iou": None, "recall": None, "precision": None, "pixels": 0}


def test_a_class_that_is_only_answered_counts_as_nothing_right() -> None:
    counts = PixelCounts(CLASSES)
    counts.add(np.array([[0, 0]], np.uint8), answer([[0, 2]]))
    assert counts.iou() == {"wall": 0.5, "floor": None, "lamp": 0.0}
    assert counts.mean_iou() == 0.25


def test_ignored_pixels_are_out() -> None:
    counts = PixelCounts(CLASSES)
    counts.add(np.array([[0, IGNORED, IGNORED]], np.uint8), answer([[0, 1, 2]]))
    assert counts.iou() == {"wall": 1.0, "floor": None, "lamp": None}


def test_classes_are_matched_by_name_and_unknown_ones_are_wrong() -> None:
    counts = PixelCounts(CLASSES)
    counts.add(np.array([[0, 1, 2]], np.uint8), answer([[1, 0, 2]], ("floor", "wall", "zebra")))
    assert counts.iou() == {"wall": 1.0, "floor": 1.0, "lamp": 0.0}
    assert counts.accuracy() == pytest.approx(2 / 3)


def test_answers_that_cannot_be_scored_are_refused() -> None:
    counts = PixelCounts(CLASSES)
    with pytest.raises(InvalidRequestError, match=r"has zebra; they have wall, floor, lamp"):
        counts.add(np.array([[0]], np.uint8), answer([[0]], ("zebra",)))
    with pytest.raises(ValueError, match="picture's"):
        counts.add(np.array([[0]], np.uint8), answer([[0, 0]]))


def test_without_pictures_there_is_no_mean() -> None:
    assert PixelCounts(CLASSES).mean_iou() is None and PixelCounts(CLASSES).accuracy() is None


def test_scenes_are_scored_against_their_semantic_maps_without_ignored_objects(tmp_path: Path) -> None:
    write_scenes(tmp_path, 600_000_730, 3)
    scenes = list(read_scenes(tmp_path))
    truth = {scene.image.tobytes(): scene for scene in scenes}
    done: list[None] = []

    def predict(image: np.ndarray) -> LabelMap:
        scene = truth[image.tobytes()]
        # Nonsense where an object is ignored must change nothing.
        labels = np.where(ignored_pixels(scene), CATEGORIES.index("bed"), scene.semantic).astype(np.uint8)
        return LabelMap(image.shape[1], image.shape[0], labels, CATEGORIES)

    metrics = evaluate_semantic(scenes, predict, lambda: done.append(None))
    assert len(done) == metrics["scenes"] == 3
    pixels = sum(int((~ignored_pixels(scene)).sum()) for scene in scenes)
    assert metrics["overall"] == {"mean_iou": 1.0, "pixel_accuracy": 1.0, "pixels": pixels}
    assert metrics["by_category"]["wall"]["pixels"] > 0
    rows = dict(summary(metrics))
    assert list(rows) == ["all", *CATEGORIES]
    assert rows["all"]["iou"] == rows["wall"]["iou"] == 1.0


def test_ignored_pixels_are_those_of_ignored_objects(tmp_path: Path) -> None:
    write_scenes(tmp_path, 600_000_730, 12)
    found = 0
    for scene in read_scenes(tmp_path):
        area = sum(int(each.mask.sum()) for each in scene.instances if each.ignore)
        assert int(ignored_pixels(scene).sum()) == area
        found += area
    assert found > 0
