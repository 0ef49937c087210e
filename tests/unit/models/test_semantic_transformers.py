"""Semantic models of transformers: the answers are those of transformers' own processing, on pictures of odd sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from segserve.errors import InvalidRequestError, NotFoundError, TooLargeError
from segserve.models.semantic import Semantic, SemanticParameters
from segserve.models.semantic.checkpoint import load_checkpoint

from .patchwork import picture
from .semantic_models import CLASSES, beit, dpt, mobilevit, save_transformers, segformer, upernet

SIZES = [(61, 97), (200, 33), (64, 64), (1, 40), (3, 3)]

PROCESSORS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "segformer": (segformer, lambda: tf.SegformerImageProcessor(size={"height": 64, "width": 96})),
    "mobilevit": (
        mobilevit,
        lambda: tf.MobileViTImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 48, "width": 48}),
    ),
    "upernet": (upernet, lambda: tf.SegformerImageProcessor(size={"height": 96, "width": 64}, do_reduce_labels=True)),
    "beit": (beit, lambda: tf.BeitImageProcessor(size={"height": 64, "width": 64}, do_reduce_labels=True)),
    "dpt": (dpt, lambda: tf.DPTImageProcessor(size={"height": 64, "width": 64}, ensure_multiple_of=32)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("semantic")
    return {kind: save_transformers(root / kind, make(), own()) for kind, (make, own) in PROCESSORS.items()}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_answers_are_those_of_transformers(folders: dict[str, Path], kind: str) -> None:
    predictor = Semantic.from_folder(folders[kind], device="cpu")
    assert predictor.classes == CLASSES
    images = [picture(seed, *size) for seed, size in enumerate(SIZES)]
    found = predictor.predict(images, [SemanticParameters(output="logits")] * len(images))
    model = tf.AutoModelForSemanticSegmentation.from_pretrained(folders[kind]).eval()
    processor = tf.AutoImageProcessor.from_pretrained(folders[kind])
    seen = np.zeros(len(CLASSES))
    for image, answer in zip(images, found, strict=True):
        inputs = processor(image, return_tensors="pt", do_center_crop=False, input_data_format="channels_last")
        with torch.inference_mode():
            output = model(**inputs)
        wanted = processor.post_process_semantic_segmentation(output, target_sizes=[image.shape[:2]])[0].numpy()
        scale = float(output.logits.abs().max())
        scores = torch.nn.functional.interpolate(output.logits, size=image.shape[:2], mode="bilinear")[0].numpy()
        assert answer.labels.shape == image.shape[:2]
        assert np.abs(answer.scores - scores).max() < 1e-5 * scale
        # Rounding may turn pixels whose two best classes are equal.
        two_best = np.sort(scores, axis=0)[-2:]
        clear = two_best[1] - two_best[0] > 1e-5 * scale
        assert (answer.labels == wanted)[clear].all()
        assert clear.mean() > 0.99
        seen += np.bincount(wanted.ravel(), minlength=len(CLASSES)) / wanted.size
    assert (seen > 0.05).sum() >= 2


def test_model_size_is_that_of_the_input_not_of_the_logits(folders: dict[str, Path]) -> None:
    predictor = Semantic.from_folder(folders["segformer"], device="cpu")
    image = picture(1, 50, 40)
    answer = predictor.predict([image], [SemanticParameters(output="probabilities", size="model")])[0]
    assert answer.labels.shape == (64, 96)
    assert answer.scores.shape == (len(CLASSES), 64, 96)
    assert predictor.logits([image])[0].shape == (len(CLASSES), 64, 96)
    with torch.inference_mode():
        assert predictor.network(predictor.inputs([image])[0][None]).shape == (1, len(CLASSES), 16, 24)


def test_without_a_center_crop_the_borders_have_an_answer_of_their_own(folders: dict[str, Path]) -> None:
    predictor = Semantic.from_folder(folders["mobilevit"], device="cpu")
    assert predictor.preprocessing.input_size is None
    image = picture(2, 64, 160)
    other = image.copy()
    other[:, 140:] = 255 - other[:, 140:]
    first, second = predictor.logits([image, other])
    assert first.shape == (len(CLASSES), 64, 160)
    # The processor's own crop would see the columns 56 to 104 only.
    assert np.abs(first - second)[:, :, 150:].max() > 1e-3


def test_pictures_of_several_input_sizes_in_one_batch_have_their_own_answers(folders: dict[str, Path]) -> None:
    predictor = Semantic.from_folder(folders["mobilevit"], device="cpu")
    images = [picture(seed, *size) for seed, size in enumerate([(70, 90), (90, 70), (70, 90), (64, 64)])]
    together = predictor.logits(images)
    for image, logits in zip(images, together, strict=True):
        alone = predictor.logits([image])[0]
        assert alone.shape == logits.shape
        assert np.abs(alone - logits).max() < 1e-5 * np.abs(alone).max()


def test_pictures_far_longer_than_wide_are_answered_or_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    predictor = Semantic.from_folder(folders["mobilevit"], device="cpu")
    answer = predictor.predict([picture(3, 1, 4000)], [SemanticParameters()])[0]
    assert answer.labels.shape == (1, 4000)
    unsized = save_transformers(tmp_path / "unsized", segformer(), tf.SegformerImageProcessor(do_resize=False))
    predictor = Semantic.from_folder(unsized, device="cpu")
    assert predictor.logits([picture(4, 40, 72)])[0].shape == (len(CLASSES), 40, 72)
    with pytest.raises(TooLargeError, match="becomes an input of 2100 x 2000 pixels"):
        predictor.predict([np.zeros((2000, 2100, 3), np.uint8)], [SemanticParameters()])


def test_classes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    processor = tf.SegformerImageProcessor(size={"height": 64, "width": 64})
    save_transformers(tmp_path, segformer(), processor, ("wall", "screen", "door", "screen", "screen"))
    assert load_checkpoint(tmp_path).classes == ("wall", "screen", "door", "screen 3", "screen 4")


def test_a_processor_that_can_prepare_no_picture_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    save_transformers(tmp_path, dpt(), tf.DPTImageProcessor(size={"shortest_edge": 64}))
    with pytest.raises(InvalidRequestError, match=r"preprocessor_config.json cannot be loaded"):
        load_checkpoint(tmp_path)


def test_other_models_and_incomplete_folders_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    save_transformers(tmp_path, segformer(), tf.SegformerImageProcessor())
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(NotFoundError, match=r"has no preprocessor_config.json, which says how pictures are resized"):
        load_checkpoint(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "NoSuchProcessor"}', "utf-8")
    with pytest.raises(InvalidRequestError, match=r"preprocessor_config.json cannot be loaded"):
        load_checkpoint(tmp_path)
    config = json.loads((folders["segformer"] / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "maskformer"}), "utf-8")
    with pytest.raises(InvalidRequestError, match=r"expected model_type semantic, .* came 'maskformer'"):
        load_checkpoint(tmp_path)
