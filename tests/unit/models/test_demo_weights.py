"""The demo checkpoint on generated rooms: the answers of transformers, whatever else is in the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import transformers as tf
from numpy.typing import NDArray

from segserve import masks as mask_geometry
from segserve.models.device import choose_placement
from segserve.models.grounded_sam import GroundedSam
from segserve.models.text_detector import TextDetector
from segserve.models.text_prompt import GroundedSamParameters, TextPrompt
from segserve.training.scenes import make_scene

from .test_parity import Reference, assert_same_boxes, prompt

SEEDS = range(700_000_000, 700_000_006)
EVERYTHING = (
    *("wall", "floor", "ceiling", "sofa", "chair", "table", "lamp", "rug", "window", "door", "picture", "plant", "bed"),
)


@pytest.fixture(scope="module")
def rooms() -> list[NDArray[np.uint8]]:
    return [make_scene(seed).image for seed in SEEDS]


@pytest.fixture(scope="module")
def predictor(demo_folder: Path) -> GroundedSam:
    return GroundedSam.from_folder(demo_folder, device="cpu")


def test_boxes_are_those_of_transformers(demo_folder: Path, rooms: list[NDArray[np.uint8]]) -> None:
    """Separators counted as transformers counts them: a trained model does not let them decide."""
    reference = Reference.load(demo_folder / "grounding_dino", tf.GroundingDinoForObjectDetection)
    detector = TextDetector.from_folder(demo_folder / "grounding_dino", choose_placement("cpu"))
    prompts = [prompt(0.3, *EVERYTHING[: 3 + 2 * index]) for index in range(len(rooms))]
    together = detector.detect(rooms, prompts)
    for image, wanted, in_batch in zip(rooms, prompts, together, strict=True):
        height, width = image.shape[:2]
        expected = reference.detect(image, wanted, ignore_separators=False)
        assert_same_boxes(in_batch, expected, width, height)
    assert sum(len(each.boxes) for each in together) > 2 * len(rooms)


def test_masks_are_those_of_transformers(
    demo_folder: Path, predictor: GroundedSam, rooms: list[NDArray[np.uint8]]
) -> None:
    reference = Reference.load(demo_folder / "sam", tf.SamModel)
    wanted = TextPrompt(EVERYTHING)
    for image in rooms[:2]:
        found = predictor.predict([image], [wanted])[0].instances
        boxes = np.array([instance.box for instance in found], dtype=np.float32)
        expected = reference.masks(image, boxes)
        assert len(found) > 1
        for instance, mask in zip(found, expected, strict=True):
            assert mask_geometry.iou(instance.mask, mask) >= 0.999


def test_a_mixed_batch_answers_each_prompt_as_if_alone(predictor: GroundedSam, rooms: list[NDArray[np.uint8]]) -> None:
    texts = ["floor", "wall. ceiling.", "sofa. chair. table. lamp", ". ".join(EVERYTHING), "диван", "red chair. chair"]
    prompts = [
        TextPrompt.from_text(text, GroundedSamParameters(box_threshold=0.25 + 0.02 * index))
        for index, text in enumerate(texts)
    ]
    together = predictor.predict(rooms, prompts)
    for image, wanted, answer in zip(rooms, prompts, together, strict=True):
        alone = predictor.predict([image], [wanted])[0]
        assert [each.label for each in answer.instances] == [each.label for each in alone.instances]
        for one, other in zip(answer.instances, alone.instances, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-3)
            assert one.box == pytest.approx(other.box, abs=1)
            assert mask_geometry.iou(one.mask, other.mask) >= 0.999
