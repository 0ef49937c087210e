"""SAM 2's answers are those of transformers' own processor, model and post-processing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from segserve.models.sam2 import ClickPrompt, Sam2, Sam2Parameters, Target
from segserve.models.segmentation import Segmentation

from .patchwork import picture
from .sam2_checkpoints import processor, randomized, sam2_config, save_sam2

WIDE = picture(1, 45, 80)
TALL = picture(2, 90, 37)
CLICK = Target(((30.0, 20.5, 1),))
PAIR = Target(((30.0, 20.5, 1), (3.25, 40.0, 0)))
BOX = Target(box=(4.0, 5.5, 30.0, 33.0))
BOTH = Target(((12.0, 9.0, 1),), (4.0, 5.5, 30.0, 33.0))


@dataclass
class Reference:
    """transformers, as its documentation uses it."""

    model: Any
    processor: Any

    @torch.no_grad()
    def ask(self, image: np.ndarray, targets: list[Target], multimask: bool) -> tuple[np.ndarray, ...]:
        """Masks (N, M, H, W), scores (N, M) and logits (N, M, h, w) of targets that have the same parts."""
        prompt: dict[str, Any] = {}
        if targets[0].points:
            prompt["input_points"] = [[[list(point[:2]) for point in each.points] for each in targets]]
            prompt["input_labels"] = [[[point[2] for point in each.points] for each in targets]]
        if targets[0].box is not None:
            prompt["input_boxes"] = [[list(each.box or ()) for each in targets]]
        inputs = self.processor(images=image, return_tensors="pt", **prompt)
        sizes = inputs.pop("original_sizes")
        if targets[0].mask is not None:
            inputs["input_masks"] = torch.from_numpy(targets[0].mask)[None, None]
        output = self.model(**inputs, multimask_output=multimask)
        masks = self.processor.post_process_masks(output.pred_masks, sizes)[0]
        return masks.numpy(), output.iou_scores[0].numpy(), output.pred_masks[0].numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sam2(tmp_path_factory.mktemp("sam2") / "checkpoint", seed=3)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference(tf.Sam2Model.from_pretrained(folder).eval(), tf.Sam2Processor.from_pretrained(folder))


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Sam2:
    return Sam2.from_folder(folder, device="cpu")


def prompt(*targets: Target, multimask: bool | None = None) -> ClickPrompt:
    return ClickPrompt(targets, Sam2Parameters(multimask=multimask, low_res=True))


def assert_same(found: Segmentation, expected: tuple[np.ndarray, ...]) -> None:
    """The same masks of each object, best first. Masks without a pixel are left out."""
    masks, scores, logits = expected
    for index in range(len(masks)):
        answered = [each for each in found.instances if each.object == index]
        order = [place for place in np.argsort(-scores[index], kind="stable") if masks[index, place].any()]
        assert len(answered) == len(order)
        for instance, place in zip(answered, order, strict=True):
            assert instance.score == pytest.approx(float(scores[index, place]), abs=1e-5)
            assert instance.low_res is not None
            np.testing.assert_allclose(instance.low_res, logits[index, place], atol=2e-4)
            # A pixel whose logit is next to zero may fall either way.
            assert np.count_nonzero(instance.mask != masks[index, place]) <= 0.001 * instance.mask.size


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize(
    "targets",
    [
        [CLICK],
        [PAIR],
        [BOX],
        [BOTH],
        [CLICK, Target(((5.0, 40.0, 1),)), Target(((36.0, 1.0, 0),))],
        [BOX, Target(box=(0.0, 0.0, 37.0, 45.0))],
        [BOTH, Target(((20.0, 30.0, 0),), (1.0, 1.0, 36.0, 44.0))],
    ],
    ids=["point", "points", "box", "point and box", "three points", "two boxes", "two of both"],
)
@pytest.mark.parametrize("image", [WIDE, TALL], ids=["wide", "tall"])
def test_masks_scores_and_logits(
    predictor: Sam2, reference: Reference, image: np.ndarray, targets: list[Target], multimask: bool
) -> None:
    expected = reference.ask(image, targets, multimask)
    assert expected[0].any() and not expected[0].all(), "the case must outline something, or it proves nothing"
    assert_same(predictor.predict([image], [prompt(*targets, multimask=multimask)])[0], expected)


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("with_points", [True, False])
def test_an_earlier_mask_is_corrected(
    predictor: Sam2, reference: Reference, with_points: bool, multimask: bool
) -> None:
    earlier = reference.ask(WIDE, [CLICK], False)[2][0, 0]
    target = Target(PAIR.points if with_points else (), mask=earlier)
    expected = reference.ask(WIDE, [target], multimask)
    assert_same(predictor.predict([WIDE], [prompt(target, multimask=multimask)])[0], expected)
    plain = reference.ask(WIDE, [PAIR], multimask)
    assert np.abs(expected[2] - plain[2]).max() > 0.01, "the mask must matter, or the case proves nothing"


def test_objects_of_all_kinds_are_answered_as_each_alone(predictor: Sam2, reference: Reference) -> None:
    earlier = reference.ask(WIDE, [CLICK], False)[2][0, 0]
    other_click = Target(((7.0, 7.0, 1),))
    targets = [CLICK, BOX, PAIR, BOTH, Target(PAIR.points, mask=earlier), other_click, Target(mask=earlier)]
    found = predictor.predict([WIDE], [prompt(*targets)])[0]
    assert {each.object for each in found.instances} == set(range(7))
    for index, target in enumerate(targets):
        # By default a single point without anything else is answered with three masks, all else with one.
        expected = reference.ask(WIDE, [target], multimask=target in (CLICK, other_click))
        own = [each for each in found.instances if each.object == index]
        assert {each.label for each in own} == {f"object {index + 1}"}
        for each in own:
            object.__setattr__(each, "object", 0)
        assert_same(Segmentation(found.width, found.height, own), expected)


def test_instances_come_by_falling_score(predictor: Sam2) -> None:
    found = predictor.predict([WIDE], [prompt(CLICK, BOX, BOTH, multimask=True)])[0].instances
    scores = [each.score for each in found]
    assert len(scores) > 4 and scores == sorted(scores, reverse=True)


def test_a_video_checkpoint_has_the_model_for_pictures(tmp_path: Path, folder: Path) -> None:
    single = sam2_config()
    video = tf.Sam2VideoConfig(
        vision_config=single.vision_config, prompt_encoder_config=single.prompt_encoder_config.to_dict(),
        mask_decoder_config=single.mask_decoder_config.to_dict(), image_size=64, memory_attention_hidden_size=32,
        memory_attention_num_layers=1, memory_attention_feed_forward_hidden_size=32, memory_encoder_hidden_size=32,
        memory_encoder_output_channels=16, memory_fuser_embed_dim=32, memory_fuser_num_layers=1,
        memory_fuser_intermediate_dim=32, mask_downsampler_embed_dim=32,
        memory_attention_rope_feat_sizes=[4, 4], memory_attention_num_attention_heads=1,
    )  # fmt: skip
    whole = randomized(tf.Sam2VideoModel(video), 3)
    whole.save_pretrained(tmp_path / "video")
    # As on the hub: an older transformers wrote one file for each processor, and names the video model's.
    prepare = processor().image_processor.to_dict() | {"image_processor_type": "Sam2ImageProcessorFast"}
    named = {"target_size": 64, "point_pad_value": -10}
    video_too = prepare | {"video_processor_type": "Sam2VideoVideoProcessor"}
    files = {"preprocessor_config": prepare, "processor_config": named, "video_preprocessor_config": video_too}
    for name, content in files.items():
        (tmp_path / "video" / f"{name}.json").write_text(
            json.dumps(content | {"processor_class": "Sam2VideoProcessor"})
        )
    pictures = tf.Sam2Model(single).eval()
    pictures.load_state_dict({name: whole.state_dict()[name] for name in pictures.state_dict()})
    expected = Reference(pictures, processor()).ask(WIDE, [CLICK], multimask=True)
    assert expected[0].any() and not expected[0].all()
    found = Sam2.from_folder(tmp_path / "video", device="cpu").predict([WIDE], [prompt(CLICK)])[0]
    assert_same(found, expected)
