"""Checkpoint folders of semantic models, of two kinds: segserve's own of torchvision networks, and transformers'."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.models.checkpoints import load_model, model_type
from segserve.models.labels import check_labels
from segserve.models.mask_rcnn.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load_tensors, write_checkpoint
from segserve.models.semantic.architecture import MODEL_TYPE, SemanticConfig, build_network
from segserve.models.semantic.pictures import FixedSize, Preprocessing, ProcessorPictures

ONNX_FILE = "model.onnx"
PROCESSOR_FILE = "preprocessor_config.json"

TRANSFORMERS = {
    "beit": "BeitForSemanticSegmentation",
    "data2vec-vision": "Data2VecVisionForSemanticSegmentation",
    "dpt": "DPTForSemanticSegmentation",
    "mobilenet_v2": "MobileNetV2ForSemanticSegmentation",
    "mobilevit": "MobileViTForSemanticSegmentation",
    "mobilevitv2": "MobileViTV2ForSemanticSegmentation",
    "segformer": "SegformerForSemanticSegmentation",
    "upernet": "UperNetForSemanticSegmentation",
}
"""``model_type`` of a transformers checkpoint's config.json, and the class that runs it."""

MODEL_TYPES = (MODEL_TYPE, *TRANSFORMERS)
"""``model_type`` of every config.json that load_checkpoint takes."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds.

    Attributes:
        network: float32, on the CPU, in evaluation mode; N x 3 x H x W to logits N x C x h x w.
        classes: the labels, by class.
        preprocessing: from pictures to the network's input.
    """

    network: nn.Module
    classes: tuple[str, ...]
    preprocessing: Preprocessing


class TransformersNetwork(nn.Module):
    """A semantic model of transformers that returns its logits alone, at the size that it makes them.

    Args:
        model: one of TRANSFORMERS.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits, N x C x h x w, of normalized pictures, N x 3 x H x W."""
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits


def load_checkpoint(folder: Path) -> Checkpoint:
    """The network of a checkpoint folder of either kind, its labels and its preprocessing.

    Raises:
        NotFoundError: no such folder, or a file is missing from it.
        InvalidRequestError: a checkpoint of another model, or a broken one.
    """
    kind = model_type(folder)
    if kind in TRANSFORMERS:
        return _load_transformers(folder)
    if kind != MODEL_TYPE:
        raise InvalidRequestError(
            f"{folder.name}/{CONFIG_FILE}: expected model_type {', '.join(MODEL_TYPES)}, came {kind!r}. "
            "Give a checkpoint of a semantic model."
        )
    values = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    try:
        config = SemanticConfig.from_dict(values)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{folder.name}/{error.message}") from error
    if not (folder / WEIGHTS_FILE).is_file():
        raise NotFoundError(f"{folder.name} has no {WEIGHTS_FILE}: it is not a checkpoint folder of a semantic model.")
    network = build_network(config)
    load_tensors(network, read_tensors(folder / WEIGHTS_FILE), f"{folder.name}/{WEIGHTS_FILE}")
    return Checkpoint(network.eval(), config.classes, FixedSize(config))


def save_checkpoint(folder: Path, config: SemanticConfig, network: nn.Module, half: bool = False) -> None:
    """Write a torchvision network into a folder, which is made if need be.

    Args:
        network: build_network's, or one with the same names.
        half: store float16, for the file's size; networks are always loaded as float32.
    """
    write_checkpoint(folder, config.to_dict(), network, half=half)


def convert_torchvision(
    weights: Path,
    architecture: str,
    labels: Sequence[str] | None,
    folder: Path,
    input_size: tuple[int, int] = (512, 512),
) -> SemanticConfig:
    """Write the checkpoint folder of weights that torchvision, or a training with it, has saved.

    Args:
        weights: a state_dict as .pth (read with weights_only, so that no code of it runs) or .safetensors.
        architecture: one of ARCHITECTURES.
        labels: of the classes, in the weights' order; None: Pascal VOC's, which torchvision's own weights have.
        folder: is made if need be.
        input_size: (height, width) in pixels.

    Raises:
        NotFoundError: no such file.
        InvalidRequestError: not weights of the architecture, or another number of classes than labels.
    """
    tensors = {name: tensor for name, tensor in read_tensors(weights).items() if not name.startswith("aux_classifier.")}
    count = _class_count(tensors, architecture, weights.name)
    if labels is None and count != len(pascal_voc_labels()):
        raise InvalidRequestError(f"labels: {weights.name} has {count} classes; name them, one label a class.")
    names = pascal_voc_labels() if labels is None else check_labels(labels, "labels", count)
    config = SemanticConfig(names, architecture, input_size)
    network = build_network(config)
    load_tensors(network, tensors, weights.name)
    save_checkpoint(folder, config, network)
    return config


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pth file that holds a state_dict; on the CPU.

    Raises:
        NotFoundError: no such file.
        InvalidRequestError: not such a file, a broken one, or one with more than tensors.
    """
    if not file.is_file():
        raise NotFoundError(f"There is no file {file.name}.")
    if file.suffix == ".safetensors":
        try:
            return _plain_names(load_file(file))
        except (SafetensorError, OSError) as error:
            raise InvalidRequestError(f"{file.name} cannot be read: {error}.") from error
    try:
        # torchvision's training script puts its arguments beside the weights: a bag of values, which runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # Pickles fail with whatever their opcodes lead to.
        raise InvalidRequestError(
            f"{file.name} cannot be read as a state_dict: it is broken, or holds more than tensors."
        ) from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]  # as torchvision's own training script saves it
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise InvalidRequestError(f"{file.name}: expected a state_dict, names with tensors.")
    return _plain_names(content)


def pascal_voc_labels() -> tuple[str, ...]:
    """Pascal VOC's 21 classes as torchvision's weights have them; the background is ``background``."""
    from torchvision.models.segmentation import DeepLabV3_MobileNet_V3_Large_Weights as Weights

    names = Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    return tuple("background" if name == "__background__" else name for name in names)


def _plain_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that training in parallel gives them."""
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _class_count(tensors: dict[str, Tensor], architecture: str, name: str) -> int:
    """How many classes weights tell apart: the channels of the classifier's last bias."""
    lists = [key for key in tensors if key.startswith("classifier.") and key.endswith(".bias")]
    last = "classifier.low_classifier.bias" if architecture.startswith("lraspp") else "classifier.4.bias"
    if last not in lists:
        raise InvalidRequestError(f"{name}: expected weights of {architecture}; they have no {last}.")
    return int(tensors[last].shape[0])


def _load_transformers(folder: Path) -> Checkpoint:
    model = load_model(folder, TRANSFORMERS)
    if not (folder / PROCESSOR_FILE).is_file():
        raise NotFoundError(f"{folder.name} has no {PROCESSOR_FILE}, which says how pictures are resized.")
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        pictures = ProcessorPictures(processor)
        # Settings that do not go together are told when a picture is prepared, not when they are read.
        pictures(np.zeros((48, 64, 3), np.uint8))
    except Exception as error:
        raise InvalidRequestError(f"{folder.name}/{PROCESSOR_FILE} cannot be loaded: {str(error)[:200]}") from error
    config = model.config
    names = _distinct([str(config.id2label[index]) for index in range(config.num_labels)])
    return Checkpoint(TransformersNetwork(model), names, pictures)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes, the later of equal ones with their class's number: pixel fractions go by name."""
    found: list[str] = []
    for index, name in enumerate(names):
        found.append(f"{name} {index}" if name in found else name)
    return check_labels(found, "config.json: id2label")
