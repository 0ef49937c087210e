"""Bad checkpoint folders, each with its own error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from segserve.errors import InvalidRequestError, NotFoundError, SegserveError
from segserve.models.checkpoints import DETECTORS, SEGMENTERS, load_model, load_processor


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8") and None


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def drop_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["mask_decoder.iou_token.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (shutil.rmtree, NotFoundError, "no checkpoint folder copy"),
        (remove("config.json"), NotFoundError, "no config.json"),
        (write("config.json", "{"), InvalidRequestError, "not JSON"),
        (write("config.json", "[]"), InvalidRequestError, "expected a JSON object"),
        (write("config.json", "{}"), InvalidRequestError, "expected model_type sam or sam_hq, came None"),
        (remove("model.safetensors"), NotFoundError, "no \\*.safetensors file"),
        (pickle_weights, NotFoundError, "Pickled weights"),
        (drop_a_tensor, InvalidRequestError, "lack 1 tensors \\(mask_decoder.iou_token.weight\\)"),
        (truncate, InvalidRequestError, "cannot be loaded"),
    ],
)
def test_damaged_checkpoints(
    segmenters: dict[str, Path],
    tmp_path: Path,
    damage: Callable[[Path], None],
    error: type[SegserveError],
    message: str,
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(segmenters["sam"], copy)
    load_model(copy, SEGMENTERS)
    damage(copy)
    with pytest.raises(error, match=message) as raised:
        load_model(copy, SEGMENTERS)
    assert str(tmp_path) not in raised.value.message


def test_a_checkpoint_of_another_model(segmenters: dict[str, Path]) -> None:
    with pytest.raises(InvalidRequestError, match="type grounding-dino or mm-grounding-dino, came 'sam'"):
        load_model(segmenters["sam"], DETECTORS)


def test_weights_stay_float32_and_ready_to_evaluate(segmenters: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "half"
    shutil.copytree(segmenters["sam"], copy)
    halves = {name: tensor.half() for name, tensor in load_file(copy / "model.safetensors").items()}
    save_file(halves, copy / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps(config | {"dtype": "float16"}), encoding="utf-8")
    model = load_model(copy, SEGMENTERS)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training


def test_a_checkpoint_without_its_processor_files(detectors: dict[str, Path], tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(detectors["square"] / name, tmp_path / name)
    with pytest.raises(InvalidRequestError, match="processor files"):
        load_processor(tmp_path)
