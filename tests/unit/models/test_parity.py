"""Same answers as transformers' own processors and post-processing, one by one and in mixed batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from segserve import boxes as box_geometry
from segserve import masks as mask_geometry
from segserve.models.box_segmenter import BoxSegmenter
from segserve.models.device import choose_placement
from segserve.models.text_detector import Detections, TextDetector
from segserve.models.text_prompt import GroundedSamParameters, TextPrompt

from .patchwork import picture

CPU = choose_placement("cpu", "float32")
FULL_STOP = 1012
SEPARATORS = (101, 102, FULL_STOP)


def prompt(box_threshold: float, *phrases: str) -> TextPrompt:
    """No phrases with shared words, no duplicates removed: transformers has no notion of either."""
    return TextPrompt(phrases, GroundedSamParameters(box_threshold, nms_iou=1))


CASES = [
    (picture(0, 60, 80), prompt(0.4, "sofa", "red chair", "floor")),
    (picture(1, 120, 70), prompt(0.55, "lamp")),
    (picture(2, 60, 80), prompt(0.5, "wall", "ceiling", "t-shirt", "window", "green plant")),
    (picture(3, 33, 200), prompt(0.3, "bed", "door")),
]


@dataclass
class Reference:
    """transformers' own way: processor, model, post-processing, for one picture."""

    model: Any
    processor: Any

    @classmethod
    def load(cls, folder: Path, kind: Any) -> Reference:
        return cls(kind.from_pretrained(folder, dtype="float32").eval(), tf.AutoProcessor.from_pretrained(folder))

    @torch.no_grad()
    def detect(self, image: np.ndarray, wanted: TextPrompt, *, ignore_separators: bool) -> dict[str, Any]:
        inputs = self.processor(images=image, text=[list(wanted.phrases)], return_tensors="pt")
        output = self.model(**inputs)
        token_ids = inputs["input_ids"][0]
        if ignore_separators:
            marks = torch.isin(token_ids, torch.tensor(SEPARATORS))
            output.logits[..., : len(marks)][..., marks] = -torch.inf
        threshold = wanted.parameters.box_threshold
        found = self.processor.post_process_grounded_object_detection(
            output, inputs["input_ids"], threshold=threshold, target_sizes=[image.shape[:2]]
        )[0]
        best, token = output.logits[0].sigmoid().max(dim=-1)
        phrase_of_token = (token_ids == FULL_STOP).cumsum(0)
        found["best"] = [wanted.phrases[phrase_of_token[index]] for index in token[best > threshold]]
        return dict(found)

    @torch.no_grad()
    def masks(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        inputs = self.processor(images=image, input_boxes=[boxes.tolist()], return_tensors="pt")
        output = self.model(**inputs, multimask_output=False)
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        return self.processor.post_process_masks(output.pred_masks, *sizes)[0][:, 0].numpy()


def assert_same_boxes(found: Detections, expected: dict[str, Any], width: int, height: int) -> None:
    order = np.argsort(-expected["scores"].numpy(), kind="stable")
    boxes = box_geometry.clip(expected["boxes"].numpy()[order], width, height)
    assert len(found.boxes) == len(boxes)
    assert np.abs(found.scores - expected["scores"].numpy()[order]).max(initial=0) <= 1e-4
    assert np.abs(found.boxes - boxes).max(initial=0) <= 0.5
    assert found.labels == [expected["best"][index] for index in order]


@pytest.mark.parametrize("name", ["square", "aspect", "padded", "mm"])
def test_detections_are_those_of_transformers(detectors: dict[str, Path], name: str) -> None:
    kind = tf.MMGroundingDinoForObjectDetection if name == "mm" else tf.GroundingDinoForObjectDetection
    reference = Reference.load(detectors[name], kind)
    detector = TextDetector.from_folder(detectors[name], CPU)
    images, prompts = [image for image, _ in CASES], [wanted for _, wanted in CASES]
    together = detector.detect(images, prompts)
    for image, wanted, in_batch in zip(images, prompts, together, strict=True):
        expected = reference.detect(image, wanted, ignore_separators=True)
        assert len(expected["scores"]), "the case must find something, or it proves nothing"
        height, width = image.shape[:2]
        assert_same_boxes(detector.detect([image], [wanted])[0], expected, width, height)
        assert_same_boxes(in_batch, expected, width, height)


@pytest.mark.parametrize("kind", ["sam", "sam_hq"])
def test_masks_are_those_of_transformers(segmenters: dict[str, Path], kind: str) -> None:
    reference = Reference.load(segmenters[kind], tf.SamModel if kind == "sam" else tf.SamHQModel)
    segmenter = BoxSegmenter.from_folder(segmenters[kind], CPU)
    images = [image for image, _ in CASES]
    boxes = [
        np.array([[5, 5, 40, 50], [20.5, 10.25, 79, 59]], dtype=np.float32),
        np.array([[0, 0, 70, 120]], dtype=np.float32),
        np.zeros((0, 4), dtype=np.float32),
        np.array([[100, 2, 180, 30], [0, 0, 20, 33], [30, 10, 90, 20]], dtype=np.float32),
    ]
    together = segmenter.segment(images, boxes, [False] * 4)
    assert [len(each.rles) for each in together] == [2, 1, 0, 3]
    for image, each, in_batch in zip(images, boxes, together, strict=True):
        if not len(each):
            continue
        alone = segmenter.segment([image], [each], [False])[0]
        expected = reference.masks(image, each)
        assert expected.any() and not expected.all()
        for mask, first, second in zip(expected, alone.rles, in_batch.rles, strict=True):
            assert mask_geometry.iou(mask_geometry.decode_rle(first), mask) >= 0.999
            assert mask_geometry.iou(mask_geometry.decode_rle(second), mask) >= 0.999
