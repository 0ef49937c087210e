"""The predictor as a whole: batches, thresholds, duplicates, odd pictures, refinement."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segserve import boxes as box_geometry
from segserve import masks as mask_geometry
from segserve.errors import InvalidPromptError, InvalidRequestError, NotFoundError
from segserve.models import box_segmenter
from segserve.models.grounded_sam import GroundedSam
from segserve.models.segmentation import Segmentation
from segserve.models.text_prompt import GroundedSamParameters, TextPrompt

from .patchwork import picture

LOW = GroundedSamParameters(box_threshold=0.4)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, detectors: dict[str, Path], segmenters: dict[str, Path]) -> Path:
    root = tmp_path_factory.mktemp("grounded_sam")
    shutil.copytree(detectors["aspect"], root / "grounding_dino")
    shutil.copytree(segmenters["sam"], root / "sam")
    return root


@pytest.fixture(scope="session")
def predictor(folder: Path) -> GroundedSam:
    return GroundedSam.from_folder(folder, device="cpu")


def ask(predictor: GroundedSam, text: str, image: Any = None, **parameters: Any) -> Segmentation:
    shown = picture(0, 60, 80) if image is None else image
    prompt = TextPrompt.from_text(text, GroundedSamParameters(**({"box_threshold": 0.4} | parameters)))
    return predictor.predict([shown], [prompt])[0]


def assert_same(first: Segmentation, second: Segmentation) -> None:
    assert (first.width, first.height) == (second.width, second.height)
    assert [each.label for each in first.instances] == [each.label for each in second.instances]
    for one, other in zip(first.instances, second.instances, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-3)
        assert one.box == pytest.approx(other.box, abs=1)
        assert mask_geometry.iou(one.mask, other.mask) >= 0.999


def test_an_answer_does_not_depend_on_its_neighbors(predictor: GroundedSam) -> None:
    images = [picture(0, 60, 80), picture(1, 90, 64), picture(2, 60, 80), picture(3, 33, 200), picture(4, 60, 80)]
    prompts = [
        TextPrompt.from_text("sofa. red chair. floor", LOW),
        TextPrompt.from_text("lamp", GroundedSamParameters(box_threshold=0.3, nms_iou=0.5)),
        TextPrompt.from_text("wall. ceiling. window. door. picture. plant. bed.", GroundedSamParameters(0.6)),
        TextPrompt.from_text("диван", LOW),
        TextPrompt.from_text("green t-shirt of a dog", GroundedSamParameters(0.5, max_instances=3)),
    ]
    together = predictor.predict(images, prompts)
    assert [len(each.instances) > 0 for each in together] == [True, True, True, False, True]
    for image, prompt, answer in zip(images, prompts, together, strict=True):
        assert_same(answer, predictor.predict([image], [prompt])[0])
    for prompt, answer in zip(prompts, together, strict=True):
        scores = [instance.score for instance in answer.instances]
        assert scores == sorted(scores, reverse=True)
        assert all(score > prompt.parameters.box_threshold for score in scores)
        assert {instance.label for instance in answer.instances} <= set(prompt.phrases)
        assert len(scores) <= prompt.parameters.max_instances


def test_each_item_has_its_own_thresholds(predictor: GroundedSam) -> None:
    image = picture(0, 60, 80)
    prompts = [
        TextPrompt.from_text("sofa. red chair. floor", GroundedSamParameters(box_threshold=threshold))
        for threshold in (0.3, 0.7, 1.0)
    ]
    low, high, none = (answer.instances for answer in predictor.predict([image] * 3, prompts))
    assert len(low) > len(high) > len(none) == 0


def test_boxes_lie_within_the_picture_and_masks_have_its_size(predictor: GroundedSam) -> None:
    answer = ask(predictor, "sofa. red chair. floor")
    assert answer.width == 80 and answer.height == 60
    for instance in answer.instances:
        x0, y0, x1, y1 = instance.box
        assert 0 <= x0 < x1 <= 80 and 0 <= y0 < y1 <= 60
        assert instance.mask.shape == (60, 80)
        assert instance.area == instance.mask.sum()


def test_the_best_instances_are_kept(predictor: GroundedSam) -> None:
    everything = ask(predictor, "sofa. red chair. floor").instances
    assert ask(predictor, "sofa. red chair. floor", max_instances=2).instances == everything[:2]


@pytest.mark.parametrize("text", ["диван", "沙发. 椅子", "🛋", "xyzzy"])
def test_another_script_is_answered_with_nothing(predictor: GroundedSam, text: str) -> None:
    assert ask(predictor, text, box_threshold=0.0).instances == []


@pytest.mark.parametrize(("text", "problem"), [("?", "punctuation only"), ("red " * 60, "at most 48 tokens")])
def test_prompts_that_cannot_be_read_are_refused(predictor: GroundedSam, text: str, problem: str) -> None:
    prompt = TextPrompt.from_text(text, LOW)
    with pytest.raises(InvalidPromptError, match=problem):
        predictor.check(prompt)
    with pytest.raises(InvalidPromptError, match=problem):
        predictor.predict([picture(0, 60, 80)], [prompt])


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (5, 2000), (1, 3000), (2500, 2)])
def test_tiny_and_thin_pictures(predictor: GroundedSam, size: tuple[int, int]) -> None:
    answer = ask(predictor, "sofa. red chair. floor", picture(5, *size), box_threshold=0.2, refine=True)
    assert (answer.height, answer.width) == size
    assert answer.instances
    for instance in answer.instances:
        x0, y0, x1, y1 = instance.box
        assert 0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]
        assert instance.mask.shape == size


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_are_not_taken_for_colors(predictor: GroundedSam, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """A picture of one or three rows looks like one whose channels come first."""
    image = picture(6, rows, 32)
    pixels, _ = predictor.detector._preprocess(image)
    assert pixels.shape == (3, 128 * rows // 32, 128)
    seen: list[tuple[int, int]] = []
    enlarge = predictor.segmenter._enlarge
    monkeypatch.setattr(
        predictor.segmenter, "_enlarge", lambda *arguments: (seen.append(arguments[2]), enlarge(*arguments))[1]
    )
    predictor.segmenter.segment([image], [np.array([[0, 0, 20, rows]], dtype=np.float32)], [False])
    assert seen == [(64 * rows // 32, 64)]


def test_refined_masks_are_the_plain_ones_refined(predictor: GroundedSam) -> None:
    image = picture(0, 60, 80)
    plain = ask(predictor, "sofa. red chair", image)
    for refine in (True, "polygon"):
        refined = ask(predictor, "sofa. red chair", image, refine=refine)
        assert any(a.rle != b.rle for a, b in zip(plain.instances, refined.instances, strict=True))
        for before, after in zip(plain.instances, refined.instances, strict=True):
            assert np.array_equal(after.mask, mask_geometry.refine(before.mask, polygon=refine == "polygon"))


def test_only_pictures_with_detections_are_encoded_and_each_is_decoded_once(
    predictor: GroundedSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = predictor.segmenter._model
    encoded: list[int] = []
    decoded: list[int] = []
    encode, decode = model.get_image_embeddings, model.mask_decoder.forward

    def spy_encode(pixels: Any) -> Any:
        encoded.append(len(pixels))
        return encode(pixels)

    def spy_decode(*positional: Any, **named: Any) -> Any:
        decoded.append(named["sparse_prompt_embeddings"].shape[1])
        return decode(*positional, **named)

    monkeypatch.setattr(model, "get_image_embeddings", spy_encode)
    monkeypatch.setattr(model.mask_decoder, "forward", spy_decode)
    prompts = [TextPrompt.from_text(text, LOW) for text in ("sofa. floor", "диван", "red chair")]
    answers = predictor.predict([picture(seed, 60, 80) for seed in range(3)], prompts)
    assert encoded == [2]
    assert decoded == [len(answers[0].instances), len(answers[2].instances)]
    assert min(decoded) > 1


def test_masks_do_not_depend_on_how_they_are_portioned(predictor: GroundedSam, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(0, 120, 160)
    whole = ask(predictor, "sofa. red chair. floor", image)
    assert len(whole.instances) > 4
    enlarged: list[int] = []
    enlarge = box_segmenter.BoxSegmenter._enlarge

    def spy(self: Any, *arguments: Any) -> Any:
        for masks in enlarge(self, *arguments):
            enlarged.append(len(masks))
            yield masks

    monkeypatch.setattr(box_segmenter.BoxSegmenter, "_enlarge", spy)
    monkeypatch.setattr(box_segmenter, "ENLARGING_BYTES", 2 * 4 * 120 * 160)
    monkeypatch.setattr(box_segmenter, "MAX_BOXES_AT_ONCE", 3)
    assert_same(whole, ask(predictor, "sofa. red chair. floor", image))
    assert max(enlarged) == 2 and sum(enlarged) == len(whole.instances)


def test_as_many_prompts_as_pictures(predictor: GroundedSam) -> None:
    with pytest.raises(InvalidRequestError, match="expected 2, one a picture, came 1"):
        predictor.predict([picture(0, 8, 8)] * 2, [TextPrompt(("sofa",))])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(predictor: GroundedSam, image: Any) -> None:
    with pytest.raises(InvalidRequestError, match="expected H x W x 3 uint8"):
        predictor.predict([image], [TextPrompt(("sofa",))])


def test_a_mirrored_view_is_a_picture(predictor: GroundedSam) -> None:
    image = picture(0, 60, 80)[:, ::-1]
    assert_same(ask(predictor, "sofa. floor", image), ask(predictor, "sofa. floor", image.copy()))


def test_nothing_to_do(predictor: GroundedSam) -> None:
    assert predictor.predict([], []) == []


def test_warming_up_runs_both_models(predictor: GroundedSam, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for name, model in (("detector", predictor.detector._model), ("segmenter", predictor.segmenter._model)):
        forward = model.forward
        monkeypatch.setattr(
            model, "forward", lambda *a, name=name, forward=forward, **k: (ran.append(name), forward(*a, **k))[1]
        )
    predictor.warm_up()
    assert {"detector", "segmenter"} <= set(ran)


def test_lower_precision_gives_nearly_the_same_answer(folder: Path, predictor: GroundedSam) -> None:
    rough = GroundedSam.from_folder(folder, device="cpu", dtype="bfloat16")
    image, prompt = picture(0, 60, 80), TextPrompt.from_text("sofa. red chair. floor", LOW)
    fine_boxes, rough_boxes = (each.detector.detect([image], [prompt])[0].boxes for each in (predictor, rough))
    assert rough_boxes.dtype == np.float32
    assert not np.array_equal(rough_boxes, fine_boxes)
    best = box_geometry.iou_matrix(fine_boxes[:5], rough_boxes).max(axis=1)
    assert np.mean(best > 0.7) >= 0.8
    boxes = [fine_boxes[:3]]
    fine_masks, rough_masks = (each.segmenter.segment([image], boxes, [False])[0].rles for each in (predictor, rough))
    for one, other in zip(fine_masks, rough_masks, strict=True):
        assert mask_geometry.iou(mask_geometry.decode_rle(one), mask_geometry.decode_rle(other)) > 0.9


def test_a_folder_without_one_of_the_models(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "grounding_dino", tmp_path / "grounding_dino")
    with pytest.raises(NotFoundError, match="no checkpoint folder sam"):
        GroundedSam.from_folder(tmp_path, device="cpu")
    with pytest.raises(NotFoundError, match="no checkpoint folder grounding_dino"):
        GroundedSam.from_folder(tmp_path / "nowhere", device="cpu")
