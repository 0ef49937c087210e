"""Small semantic models for tests: of torchvision and transformers with random weights, and one in both engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers as tf
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from segserve.models.semantic.architecture import SemanticConfig
from segserve.models.semantic.checkpoint import Checkpoint
from segserve.models.semantic.pictures import FixedSize

from .conftest import randomize

CLASSES = ("background", "red", "green", "blue", "gray")
SIZE = (48, 64)


def recalibrate(network: nn.Module, seed: int) -> nn.Module:
    """The network in evaluation mode with statistics of batch norm of its own.

    Without that, a network of torchvision with random weights says the same of every pixel.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        network.train()(torch.randn((4, 3, *SIZE), generator=generator))
    return network.eval()


def segformer() -> Any:
    config = tf.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 32], num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=16,
        num_labels=len(CLASSES),
    )  # fmt: skip
    return randomize(tf.SegformerForSemanticSegmentation(config), 3)


def mobilevit() -> Any:
    config = tf.MobileViTConfig(
        image_size=64, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 48], num_attention_heads=2,
        aspp_out_channels=16, num_labels=len(CLASSES),
    )  # fmt: skip
    model: Any = recalibrate(randomize(tf.MobileViTForSemanticSegmentation(config), 4), 4)
    # Without that, one class would win everywhere.
    with torch.no_grad():
        noise = torch.rand((4, 3, 64, 64), generator=torch.Generator().manual_seed(4))
        model.segmentation_head.classifier.convolution.bias -= model(noise).logits.mean(dim=(0, 2, 3))
    return model


def upernet() -> Any:
    backbone = tf.ConvNextConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = tf.UperNetConfig(
        backbone_config=backbone, hidden_size=16, auxiliary_channels=8, auxiliary_in_channels=16,
        num_labels=len(CLASSES),
    )  # fmt: skip
    return recalibrate(randomize(tf.UperNetForSemanticSegmentation(config), 5), 5)


_VISION = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 64,
    "patch_size": 8, "num_labels": len(CLASSES),
}  # fmt: skip


def beit() -> Any:
    config = tf.BeitConfig(**_VISION, out_indices=[0, 1, 2, 3], pool_scales=[1, 2], use_auxiliary_head=False)
    return randomize(tf.BeitForSemanticSegmentation(config), 1).eval()


def dpt() -> Any:
    config = tf.DPTConfig(
        **_VISION, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16
    )
    return randomize(tf.DPTForSemanticSegmentation(config), 1).eval()


def save_transformers(folder: Path, model: Any, processor: Any, classes: tuple[str, ...] = CLASSES) -> Path:
    """A checkpoint folder as save_pretrained writes it."""
    model.config.id2label = dict(enumerate(classes))
    model.config.label2id = {name: index for index, name in enumerate(classes)}
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class TwoConvolutions(nn.Module):
    """A network whose logits are half as large as its input."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, len(CLASSES), 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.7, generator=generator)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.second(self.first(pixel_values).relu())


def two_convolutions(size: tuple[int, int] = SIZE) -> Checkpoint:
    """A checkpoint of TwoConvolutions."""
    return Checkpoint(TwoConvolutions().eval(), CLASSES, FixedSize(SemanticConfig(CLASSES, input_size=size)))


def two_convolutions_onnx(size: tuple[int | str, int | str] = SIZE) -> onnx.ModelProto:
    """The same network as ONNX."""
    network = TwoConvolutions()
    tensors = [
        numpy_helper.from_array(np.ascontiguousarray(tensor.detach().numpy()), name)
        for name, tensor in network.state_dict().items()
    ]
    first = ["pixel_values", "first.weight", "first.bias"]
    nodes = [
        helper.make_node("Conv", first, ["hidden"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Conv", ["active", "second.weight", "second.bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two_convolutions",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, *size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CLASSES), "h", "w"])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
