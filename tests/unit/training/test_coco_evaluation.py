"""COCO scores: small cases whose AP is worked out by hand, and a random one against plain pycocotools.

AP reads the precision at the 101 recalls 0.00, 0.01 ... 1.00. With two true objects, the first one found covers
the 51 recalls up to 0.50, the second the other 50.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segserve.masks import area, bounding_box, encode_rle
from segserve.models.segmentation import Instance, Segmentation
from segserve.training.coco import Dataset, LabeledObject, LabeledPicture
from segserve.training.coco_evaluation import FoundObject, found_objects, score_dataset

SIDE = 60
CLASSES = ("chair", "table")


def rectangle(x: int, y: int, width: int = 10, height: int = 10) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y : y + height, x : x + width] = True
    return mask


def truth(mask: np.ndarray, index: int = 0, *, crowd: bool = False, ignore: bool = False) -> LabeledObject:
    box = tuple(float(side) for side in bounding_box(mask))
    return LabeledObject(class_index=index, box=box, segmentation=encode_rle(mask), crowd=crowd, ignore=ignore)


def found(mask: np.ndarray, score: float = 0.9, index: int = 0) -> FoundObject:
    return FoundObject(index, score, tuple(float(side) for side in bounding_box(mask)), encode_rle(mask))


def picture(number: int, *objects: LabeledObject) -> LabeledPicture:
    return LabeledPicture(id=number, path=Path(f"{number}.png"), width=SIDE, height=SIDE, objects=objects)


def dataset(*pictures: LabeledPicture) -> Dataset:
    return Dataset(classes=CLASSES, pictures=pictures, category_ids=(1, 2))


A, B, ELSEWHERE = rectangle(0, 0), rectangle(20, 20), rectangle(45, 45)


def test_the_truth_repeated_scores_one() -> None:
    scores = score_dataset(
        dataset(picture(7, truth(A), truth(B, 1)), picture(3, truth(B))),
        {7: [found(A), found(B, index=1)], 3: [found(B, 0.2)]},
    )
    assert (scores.mask_ap, scores.mask_ap50, scores.mask_ap75, scores.box_ap, scores.box_ap50) == pytest.approx(
        (1,) * 5
    )
    assert (scores.mask_ap_small, scores.mask_ap_medium, scores.mask_ap_large) == (pytest.approx(1), None, None)
    assert (scores.pictures, scores.instances) == (2, 3)
    assert {name: c.instances for name, c in scores.per_class.items()} == {"chair": 2, "table": 1}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        pytest.param([found(A, 0.9), found(B, 0.8)], 1.0, id="both"),
        pytest.param([found(A)], 51 / 101, id="one missed"),
        pytest.param([found(A, 0.9), found(A, 0.8), found(B, 0.7)], (51 + 50 * 2 / 3) / 101, id="a duplicate between"),
        pytest.param([found(A, 0.9), found(B, 0.8), found(A, 0.7)], 1.0, id="a duplicate last"),
        pytest.param([found(ELSEWHERE, 0.9), found(A, 0.8), found(B, 0.7)], 2 / 3, id="nothing there, yet the surest"),
        pytest.param([found(A, 0.8), found(B, 0.7), found(ELSEWHERE, 0.1)], 1.0, id="nothing there, unsure"),
        pytest.param([found(A, index=1), found(B, index=1)], 0.0, id="wrong class"),
        pytest.param([found(B, 0.1), found(A, 0.05)], 1.0, id="only the order of scores matters"),
        pytest.param([], 0.0, id="nothing"),
    ],
)
def test_each_mistake_costs_what_it_should(answers: list[FoundObject], expected: float) -> None:
    scores = score_dataset(dataset(picture(1, truth(A), truth(B))), {1: answers})
    assert scores.mask_ap == pytest.approx(expected)
    assert scores.box_ap == pytest.approx(expected)
    assert scores.per_class["chair"].mask_ap50 == pytest.approx(expected)
    assert scores.per_class["table"].mask_ap50 is None, "a class without truth has no AP, and lowers no mean"


def test_overlap_decides_which_thresholds_are_met() -> None:
    # 8 of the 10 columns: IoU 0.8 meets 0.50 ... 0.75 for certain, and 0.85, 0.90, 0.95 never.
    scores = score_dataset(dataset(picture(1, truth(A))), {1: [found(rectangle(0, 0, width=8))]})
    assert (scores.mask_ap50, scores.mask_ap75) == pytest.approx((1.0, 1.0))
    assert scores.mask_ap in (pytest.approx(0.6), pytest.approx(0.7))
    low = score_dataset(dataset(picture(1, truth(A))), {1: [found(rectangle(0, 0, width=6))]})
    assert (low.mask_ap50, low.mask_ap75) == pytest.approx((1.0, 0.0))


def test_masks_and_boxes_are_scored_apart() -> None:
    diagonal = np.zeros((SIDE, SIDE), bool)
    diagonal[np.arange(10), np.arange(10)] = True
    scores = score_dataset(dataset(picture(1, truth(A))), {1: [found(diagonal)]})
    assert (scores.mask_ap, scores.box_ap) == pytest.approx((0.0, 1.0))


class TestIgnored:
    def test_need_not_be_found(self) -> None:
        scores = score_dataset(dataset(picture(1, truth(A), truth(B, ignore=True))), {1: [found(A)]})
        assert (scores.mask_ap, scores.instances) == pytest.approx((1.0, 1))

    def test_found_is_no_error(self) -> None:
        answers = [found(B, 0.9), found(A, 0.8)]
        scores = score_dataset(dataset(picture(1, truth(A), truth(B, ignore=True))), {1: answers})
        assert (scores.mask_ap, scores.box_ap) == pytest.approx((1.0, 1.0))

    def test_counts_when_asked(self) -> None:
        truths = dataset(picture(1, truth(A), truth(B, ignore=True)))
        scores = score_dataset(truths, {1: [found(A)]}, counting_ignored=True)
        assert scores.mask_ap == pytest.approx(51 / 101)
        assert scores.instances == 2

    def test_a_part_of_it_is_an_error(self) -> None:
        """Unlike a part of a crowd: the ordinary IoU holds."""
        large, speck = rectangle(20, 20, 30, 30), rectangle(30, 30, 5, 5)
        answers = {1: [found(speck, 0.9), found(A, 0.8)]}
        assert score_dataset(
            dataset(picture(1, truth(A), truth(large, ignore=True))), answers
        ).mask_ap == pytest.approx(0.5)
        assert score_dataset(dataset(picture(1, truth(A), truth(large, crowd=True))), answers).mask_ap == pytest.approx(
            1.0
        )

    def test_crowds_take_any_number(self) -> None:
        crowd = rectangle(20, 20, 30, 30)
        parts = [found(rectangle(20 + 6 * n, 25, 5, 5), 0.9) for n in range(4)]
        for counting in (False, True):
            scores = score_dataset(
                dataset(picture(1, truth(A), truth(crowd, crowd=True))), {1: [*parts, found(A, 0.5)]},
                counting_ignored=counting,
            )  # fmt: skip
            assert (scores.mask_ap, scores.box_ap, scores.instances) == pytest.approx((1.0, 1.0, 1))


class TestNothingThere:
    def test_no_answers_at_all(self) -> None:
        scores = score_dataset(dataset(picture(1, truth(A)), picture(2)), {})
        assert (scores.mask_ap, scores.box_ap, scores.instances, scores.pictures) == (0.0, 0.0, 1, 2)

    def test_pictures_without_truth_count_against_what_is_found_in_them(self) -> None:
        scores = score_dataset(dataset(picture(1, truth(A)), picture(2)), {1: [found(A, 0.5)], 2: [found(B, 0.9)]})
        assert scores.mask_ap == pytest.approx(0.5)

    @pytest.mark.parametrize("pictures", [(), (picture(1),)], ids=["no pictures", "no truth"])
    def test_no_truth_gives_no_score(self, pictures: tuple[LabeledPicture, ...]) -> None:
        scores = score_dataset(dataset(*pictures), {1: [found(A)]} if pictures else {})
        assert scores.mask_ap is None
        assert scores.box_ap50 is None
        assert scores.per_class["chair"].mask_ap is None
        assert json.loads(json.dumps(scores.to_dict()))["mask_ap"] is None


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({2: [found(A)]}, "picture 2"),
        ({1: [found(A, index=2)]}, "class 2"),
        ({1: [FoundObject(0, 0.5, (0, 0, 5, 5), encode_rle(np.ones((5, 5), bool)))]}, r"\[5, 5\]"),
    ],
)
def test_answers_that_do_not_belong_are_refused(answers: dict[int, list[FoundObject]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_dataset(dataset(picture(1, truth(A))), answers)


def test_true_polygons_are_filled_as_coco_does() -> None:
    parts = [[20.0, 20, 30, 20, 30, 25, 20, 25], [20.0, 25, 30, 25, 30, 30, 20, 30]]
    item = LabeledObject(class_index=0, box=(20, 20, 30, 30), segmentation=parts, crowd=False, ignore=False)
    assert score_dataset(dataset(picture(1, item)), {1: [found(B)]}).mask_ap == pytest.approx(1.0)


def test_answers_of_a_predictor_are_matched_by_name() -> None:
    answer = Segmentation(SIDE, SIDE, [Instance.from_mask("table", 0.9, (0, 0, 10, 10), A)])
    answer.instances.append(Instance.from_mask("spaceship", 0.8, (0, 0, 10, 10), A))
    assert found_objects(answer, CLASSES) == [FoundObject(1, 0.9, (0, 0, 10, 10), encode_rle(A))]


def test_equals_plain_pycocotools_on_a_random_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths, answers = random_case(np.random.default_rng(5))
    ours = score_dataset(truths, answers)
    assert capsys.readouterr().out == "", "pycocotools prints its progress"
    masks = plain_scores(truths, answers, "segm", tmp_path)
    boxes = plain_scores(truths, answers, "bbox", tmp_path)
    assert [
        ours.mask_ap, ours.mask_ap50, ours.mask_ap75, ours.mask_ap_small, ours.mask_ap_medium, ours.mask_ap_large
    ] == masks[:6].tolist()  # fmt: skip
    assert [ours.box_ap, ours.box_ap50] == boxes[:2].tolist()
    assert all(0.05 < value < 0.95 for value in masks[:6]), "a case that tells nothing"


def random_case(rng: np.random.Generator) -> tuple[Dataset, dict[int, list[FoundObject]]]:
    """Pictures of 300 pixels with objects of all sizes, some of them crowds, and answers around and beside them."""
    side, pictures, answers = 300, [], {}
    for number in range(1, 13):
        objects, items = [], []
        for _ in range(rng.integers(0, 9)):
            mask, index = random_mask(rng, side), int(rng.integers(3))
            box = tuple(float(end) for end in bounding_box(mask))
            objects.append(LabeledObject(index, box, encode_rle(mask), bool(rng.random() < 0.1), False))
            for _ in range(rng.integers(0, 3)):
                near = np.roll(mask, tuple(rng.integers(-4, 5, 2)), (0, 1))
                label = index if rng.random() < 0.8 else int(rng.integers(3))
                where = tuple(float(end) for end in bounding_box(near))
                items.append(FoundObject(label, float(rng.random()), where, encode_rle(near)))
        pictures.append(LabeledPicture(number, Path(f"{number}.png"), side, side, tuple(objects)))
        answers[number] = items
    return Dataset(("chair", "table", "lamp"), tuple(pictures), (1, 2, 3)), answers


def random_mask(rng: np.random.Generator, side: int) -> np.ndarray:
    width, height = rng.choice([14, 60, 130], 2) + rng.integers(0, 12, 2)
    x, y = rng.integers(5, side - width - 5), rng.integers(5, side - height - 5)
    mask = np.zeros((side, side), bool)
    mask[y : y + height, x : x + width] = rng.random((height, width)) < 0.95
    return mask


def plain_scores(truths: Dataset, answers: dict[int, list[FoundObject]], kind: str, folder: Path) -> np.ndarray:
    """pycocotools' twelve figures, of the same case written to files."""
    annotations: list[dict[str, Any]] = []
    for item in truths.pictures:
        for thing in item.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": item.id,
                    "category_id": thing.class_index + 1,
                    "bbox": corner_and_size(thing.box),
                    "area": area(thing.segmentation),
                    "segmentation": thing.segmentation,
                    "iscrowd": int(thing.crowd),
                }
            )
    results: list[dict[str, Any]] = [
        {
            "image_id": number,
            "category_id": item.class_index + 1,
            "score": item.score,
            **({"segmentation": item.mask} if kind == "segm" else {"bbox": corner_and_size(item.box)}),
        }
        for number, items in answers.items()
        for item in items
    ]
    images = [{"id": item.id, "width": item.width, "height": item.height} for item in truths.pictures]
    categories = [{"id": number, "name": name} for number, name in enumerate(truths.classes, 1)]
    (folder / "truth.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories}), "utf-8"
    )
    (folder / "results.json").write_text(json.dumps(results), "utf-8")
    truth_file = COCO(str(folder / "truth.json"))
    evaluation = COCOeval(truth_file, truth_file.loadRes(str(folder / "results.json")), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return np.asarray(evaluation.stats)


def corner_and_size(box: tuple[float, float, float, float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]
