"""torchvision's networks: the same names and answers as torchvision, their checkpoints, and what is refused."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import segmentation
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.models.semantic import Semantic, SemanticConfig
from segserve.models.semantic.architecture import ARCHITECTURES, build_network
from segserve.models.semantic.checkpoint import (
    convert_torchvision,
    load_checkpoint,
    pascal_voc_labels,
    save_checkpoint,
)

from .patchwork import picture
from .semantic_models import CLASSES, SIZE, recalibrate


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    options: dict[str, Any] = {} if name.startswith("lraspp") else {"aux_loss": True}
    with torch.device("meta"):
        plain = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5, **options)
        own = build_network(SemanticConfig(CLASSES, name))
    wanted = {key: value.shape for key, value in plain.state_dict().items() if not key.startswith("aux_classifier.")}
    assert {key: value.shape for key, value in own.state_dict().items()} == wanted


def as_torchvision_does(image: np.ndarray) -> torch.Tensor:
    """The way of torchvision's own transforms for segmentation, from a picture to an input."""
    resized = TF.resize(Image.fromarray(image), list(SIZE), interpolation=InterpolationMode.BILINEAR)
    pixels = TF.convert_image_dtype(TF.pil_to_tensor(resized), torch.float)
    return TF.normalize(pixels, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("lraspp_mobilenet_v3_large", "weights.pth"),
        ("deeplabv3_mobilenet_v3_large", "training.pth"),
        ("fcn_resnet50", "weights.safetensors"),
    ],
)
def test_answers_are_torchvisions(tmp_path: Path, name: str, file: str) -> None:
    options: dict[str, Any] = {} if name.startswith("lraspp") else {"aux_loss": True}
    torch.manual_seed(1)
    plain = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5, **options)
    recalibrate(plain, 2)
    weights = plain.state_dict()
    if file.endswith(".safetensors"):
        save_file(weights, tmp_path / file)
    else:
        torch.save({"model": weights, "epoch": 3} if file == "training.pth" else weights, tmp_path / file)
    convert_torchvision(tmp_path / file, name, CLASSES, tmp_path / "checkpoint", SIZE)
    predictor = Semantic.from_folder(tmp_path / "checkpoint", device="cpu")
    assert predictor.classes == CLASSES
    images = [picture(seed, *size) for seed, size in enumerate([(71, 130), (48, 64), (301, 97)])]
    # One by one: batches round otherwise, and random networks make much of that.
    found = [predictor.logits([image])[0] for image in images]
    labels = []
    plain.to(memory_format=torch.channels_last)
    for image, logits in zip(images, found, strict=True):
        pixels = as_torchvision_does(image)
        torch.testing.assert_close(predictor.inputs([image])[0], pixels, atol=1e-6, rtol=0)
        with torch.inference_mode():
            wanted = plain(pixels[None].contiguous(memory_format=torch.channels_last))["out"][0]
        torch.testing.assert_close(torch.from_numpy(logits), wanted, atol=2e-5 * float(wanted.abs().max()), rtol=0)
        labels.append(wanted.argmax(dim=0).flatten())
    # A network that says the same of every pixel would show nothing.
    shares = torch.bincount(torch.cat(labels), minlength=5) / sum(map(len, labels))
    assert (shares > 0.02).sum() >= 2


def test_files_as_trainings_write_them(tmp_path: Path) -> None:
    name = "lraspp_mobilenet_v3_large"
    weights = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5).state_dict()
    in_parallel = {f"module.{key}": tensor for key, tensor in weights.items()}
    # As torchvision's references/segmentation/train.py.
    training = {"model": weights, "optimizer": {"state": {}}, "epoch": 3, "args": argparse.Namespace(lr=0.01)}
    torch.save(training, tmp_path / "model_3.pth")
    torch.save(in_parallel, tmp_path / "parallel.pth")
    save_file(in_parallel, tmp_path / "parallel.safetensors")
    for file in ("model_3.pth", "parallel.pth", "parallel.safetensors"):
        convert_torchvision(tmp_path / file, name, CLASSES, tmp_path / f"of_{file}", SIZE)
        found = load_file(tmp_path / f"of_{file}" / "model.safetensors")
        torch.testing.assert_close(found["classifier.low_classifier.bias"], weights["classifier.low_classifier.bias"])


def test_a_saved_checkpoint_is_loaded_again_and_half_is_half_as_large(tmp_path: Path) -> None:
    config = SemanticConfig(CLASSES, "lraspp_mobilenet_v3_large", (32, 48), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    network = build_network(config)
    save_checkpoint(tmp_path / "whole", config, network)
    save_checkpoint(tmp_path / "half", config, network, half=True)
    whole, half = load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "half")
    assert whole.network.config == half.network.config == config
    assert whole.preprocessing.input_size == (32, 48)
    for name, tensor in network.state_dict().items():
        assert torch.equal(whole.network.state_dict()[name], tensor)
        torch.testing.assert_close(half.network.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
    assert all(tensor.dtype != torch.float16 for tensor in half.network.state_dict().values())
    assert not whole.network.training
    sizes = [(tmp_path / kind / "model.safetensors").stat().st_size for kind in ("whole", "half")]
    assert sizes[1] < 0.55 * sizes[0]


def test_weights_of_21_classes_without_labels_are_pascal_vocs(tmp_path: Path) -> None:
    names = pascal_voc_labels()
    assert (len(names), names[0], names[15], names[-1]) == (21, "background", "person", "tvmonitor")
    name = "lraspp_mobilenet_v3_large"
    network = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    torch.save(network.state_dict(), tmp_path / "voc.pth")
    assert convert_torchvision(tmp_path / "voc.pth", name, None, tmp_path / "voc").classes == names
    with pytest.raises(InvalidRequestError, match="expected 21 labels, as the weights have 21 classes; came 5"):
        convert_torchvision(tmp_path / "voc.pth", name, CLASSES, tmp_path / "five")
    with pytest.raises(InvalidRequestError, match=r"voc.pth: expected weights of fcn_resnet50"):
        convert_torchvision(tmp_path / "voc.pth", "fcn_resnet50", None, tmp_path / "other")
    save_file(
        {key: value for key, value in network.state_dict().items() if "backbone.4" not in key},
        tmp_path / "f.safetensors",
    )
    with pytest.raises(InvalidRequestError, match=r"f.safetensors lacks tensors: backbone.4"):
        convert_torchvision(tmp_path / "f.safetensors", name, None, tmp_path / "other")
    assert not (tmp_path / "other").exists()


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.marker,)


def test_weights_that_run_code_are_refused_unrun(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"weight": Malicious(marker)}, tmp_path / "bad.pth")
    with pytest.raises(InvalidRequestError, match=r"bad.pth cannot be read as a state_dict"):
        convert_torchvision(tmp_path / "bad.pth", ARCHITECTURES[0], None, tmp_path / "out")
    assert not marker.exists()
    (tmp_path / "cut.pth").write_bytes((tmp_path / "bad.pth").read_bytes()[:100])
    with pytest.raises(InvalidRequestError, match=r"cut.pth cannot be read"):
        convert_torchvision(tmp_path / "cut.pth", ARCHITECTURES[0], None, tmp_path / "out")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InvalidRequestError, match=r"list.pth: expected a state_dict"):
        convert_torchvision(tmp_path / "list.pth", ARCHITECTURES[0], None, tmp_path / "out")
    with pytest.raises(NotFoundError, match=r"no file absent.pth"):
        convert_torchvision(tmp_path / "absent.pth", ARCHITECTURES[0], None, tmp_path / "out")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("model_type", "mask_rcnn", "expected model_type semantic, beit, .* came 'mask_rcnn'"),
        ("architecture", "unet", "architecture: expected one of lraspp_mobilenet_v3_large, .* came 'unet'"),
        ("classes", [], r"classes: expected a list of names, came \[\]"),
        ("classes", ["a", 3], "classes: expected a list of names"),
        ("classes", ["a", "a"], "'a' is there twice"),
        ("classes", ["a", "b"], "has misshapen tensors: classifier.*expected"),
        ("input_size", [0, 5], "input_size: expected 1 to 4096 pixels a side"),
        ("input_size", 512, r"input_size: expected \[height, width\] in pixels, came 512"),
        ("input_size", [True, 5], "input_size: expected"),
        ("mean", [0.5, 0.5], "mean: expected three numbers"),
        ("std", [0.5, 0.5, 0], "std above 0"),
        ("mean", [float("nan"), 0, 0], "expected finite numbers"),
        ("input_side", 5, "input_side is not known; known are classes, architecture"),
    ],
)
def test_broken_configurations_are_refused_with_the_field(tmp_path: Path, field: str, value: Any, reason: str) -> None:
    config = SemanticConfig(CLASSES, "lraspp_mobilenet_v3_large", SIZE)
    save_checkpoint(tmp_path, config, build_network(config))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict() | {field: value}), "utf-8")
    with pytest.raises(InvalidRequestError, match=reason):
        load_checkpoint(tmp_path)


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint folder absent"):
        load_checkpoint(tmp_path / "absent")
    with pytest.raises(NotFoundError, match=r"has no config.json"):
        load_checkpoint(tmp_path)
    config = SemanticConfig(CLASSES, "lraspp_mobilenet_v3_large", SIZE)
    save_checkpoint(tmp_path, config, build_network(config))
    weights = tmp_path / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-5])
    with pytest.raises(InvalidRequestError, match=r"model.safetensors cannot be read"):
        load_checkpoint(tmp_path)
    weights.unlink()
    with pytest.raises(NotFoundError, match=r"has no model.safetensors"):
        load_checkpoint(tmp_path)
    weights.write_bytes(content)
    assert load_file(weights).keys() == load_checkpoint(tmp_path).network.state_dict().keys()
