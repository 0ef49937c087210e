"""The semantic predictor: engines and sizes mixed in a batch, and what it refuses."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from segserve.errors import InvalidRequestError, TooLargeError
from segserve.models.device import choose_placement
from segserve.models.semantic import Semantic, SemanticConfig, SemanticParameters
from segserve.models.semantic.architecture import build_network
from segserve.models.semantic.checkpoint import save_checkpoint
from segserve.models.semantic.onnx_engine import OnnxEngine

from .patchwork import picture
from .semantic_models import CLASSES, SIZE, two_convolutions, two_convolutions_onnx


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Semantic:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    path.write_bytes(two_convolutions_onnx().SerializeToString())
    engine = OnnxEngine(path, classes=len(CLASSES), input_size=SIZE, threads=1)
    return Semantic(two_convolutions(), choose_placement("cpu"), engine)


@pytest.fixture(scope="module")
def torch_alone() -> Semantic:
    return Semantic(two_convolutions(), choose_placement("cpu"))


def test_both_engines_answer_the_same(both: Semantic) -> None:
    assert both.engines == ("torch", "onnx")
    images = [picture(seed, *size) for seed, size in enumerate([(97, 31), (48, 64), (160, 201)])]
    for image in images:
        for output in ("label_map", "logits", "probabilities"):
            ours, theirs = both.predict(
                [image] * 2, [SemanticParameters("torch", output), SemanticParameters("onnx", output)]
            )
            assert (ours.labels == theirs.labels).mean() > 0.999
            assert len(np.unique(ours.labels)) >= 3
            if output != "label_map":
                assert np.abs(ours.scores - theirs.scores).max() < 1e-4
    assert np.abs(both.logits(images, "torch")[0] - both.logits(images, "onnx")[0]).max() < 1e-4


def test_a_batch_of_everything_gives_the_answers_of_each_alone(both: Semantic) -> None:
    sizes = [(61, 97), (33, 20), (48, 64)]
    asked = [
        SemanticParameters(*each)
        for each in product(("torch", "onnx"), ("label_map", "logits", "probabilities"), ("original", "model"))
    ]
    images = [picture(index, *sizes[index % 3]) for index in range(len(asked) + 9)]
    prompts = [asked[index % len(asked)] for index in range(len(images))]
    together = both.predict(images, prompts)
    for image, prompt, answer in zip(images, prompts, together, strict=True):
        alone = both.predict([image], [prompt])[0]
        size = image.shape[:2] if prompt.size == "original" else SIZE
        assert (answer.height, answer.width) == image.shape[:2]
        assert answer.labels.shape == alone.labels.shape == size
        assert (answer.labels == alone.labels).mean() > 0.999
        assert answer.classes == CLASSES
        if prompt.output == "label_map":
            assert answer.scores is None
        else:
            assert answer.scores.shape == (len(CLASSES), *size)
            assert np.abs(answer.scores - alone.scores).max() < 1e-4
            assert (answer.scores.argmax(axis=0) == answer.labels).mean() > 0.999
        if prompt.output == "probabilities":
            assert np.allclose(answer.scores.sum(axis=0), 1, atol=1e-5)


def test_no_pictures_have_no_answers(both: Semantic) -> None:
    assert both.predict([], []) == []


def test_warming_up_runs_every_engine(both: Semantic, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    run = both._run
    monkeypatch.setattr(both, "_run", lambda pixels, engine: ran.append(engine) or run(pixels, engine))
    both.warm_up()
    assert ran == ["torch", "onnx"]


def test_an_engine_that_is_not_there_is_refused(torch_alone: Semantic) -> None:
    assert torch_alone.engines == ("torch",)
    torch_alone.warm_up()
    with pytest.raises(InvalidRequestError, match=r"parameters.engine: 'onnx' is not there; this checkpoint has torch"):
        torch_alone.predict([picture(0, 9, 9)], [SemanticParameters("onnx")])
    with pytest.raises(InvalidRequestError, match="'onnx' is not there"):
        Semantic(two_convolutions(), choose_placement("cpu"), None, SemanticParameters("onnx"))


def test_a_folder_with_an_onnx_file_has_both_engines(tmp_path: Path) -> None:
    config = SemanticConfig(CLASSES, "lraspp_mobilenet_v3_large", SIZE)
    save_checkpoint(tmp_path, config, build_network(config))
    with pytest.raises(InvalidRequestError, match=r"'onnx' is not there.* export-onnx"):
        Semantic.from_folder(tmp_path, device="cpu", engine="onnx")
    with pytest.raises(InvalidRequestError, match="engine: expected torch, onnx, came 'tensorrt'"):
        Semantic.from_folder(tmp_path, device="cpu", engine="tensorrt")
    file = tmp_path / "model.onnx"
    file.write_bytes(two_convolutions_onnx().SerializeToString())
    predictor = Semantic.from_folder(tmp_path, device="cpu", engine="onnx", threads=1)
    assert predictor.engines == ("torch", "onnx")
    assert predictor.defaults.engine == "onnx"
    image = picture(5, 40, 50)
    assert np.array_equal(predictor.logits([image])[0], predictor.logits([image], "onnx")[0])
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(InvalidRequestError, match="truncated"):
        Semantic.from_folder(tmp_path, device="cpu")
    file.unlink()
    file.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidRequestError, match=r"no file model.onnx"):
        Semantic.from_folder(tmp_path, device="cpu")


def test_too_many_scores_are_refused_before_anything_runs(
    torch_alone: Semantic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the network ran")

    monkeypatch.setattr(torch_alone, "_run", fail)
    with pytest.raises(TooLargeError, match="5 classes for 1500 x 1400 pixels"):
        torch_alone.predict([np.zeros((1400, 1500, 3), np.uint8)], [SemanticParameters(output="probabilities")])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(torch_alone: Semantic, image: np.ndarray) -> None:
    with pytest.raises(InvalidRequestError, match="image: expected H x W x 3 uint8"):
        torch_alone.predict([image], [SemanticParameters()])


def test_as_many_prompts_as_pictures(torch_alone: Semantic) -> None:
    with pytest.raises(InvalidRequestError, match="prompts: expected 2, one a picture, came 1"):
        torch_alone.predict([picture(0, 9, 9)] * 2, [SemanticParameters()])


def test_pictures_that_are_views_are_taken(torch_alone: Semantic) -> None:
    image = picture(7, 40, 60)
    whole = torch_alone.predict([np.ascontiguousarray(image[::-1, ::2])], [SemanticParameters()])[0]
    view = image[::-1, ::2]
    view.flags.writeable = False
    assert (torch_alone.predict([view], [SemanticParameters()])[0].labels == whole.labels).all()


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32(torch_alone: Semantic) -> None:
    low = Semantic(two_convolutions(), choose_placement("cpu", "bfloat16"))
    image = picture(8, 48, 64)
    rough, exact = low.logits([image])[0], torch_alone.logits([image])[0]
    assert rough.dtype == np.float32
    assert 1e-5 < np.abs(rough - exact).max() < 0.2
    assert torch.is_inference_mode_enabled() is False
