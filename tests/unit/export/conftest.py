"""Small semantic checkpoints of both kinds, and one that was exported by the command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers as tf
from torch import nn

from segserve.cli import main
from segserve.models.semantic.architecture import SemanticConfig, build_network
from segserve.models.semantic.checkpoint import save_checkpoint
from segserve.training.scenes.files import write_scenes

CLASSES = ("wall", "floor", "sofa", "lamp", "rug")
SIZE = (64, 96)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "scenes"
    write_scenes(folder, 600_004_000, 5, (96, 128))
    return folder


@pytest.fixture(scope="session")
def torchvision_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LR-ASPP of random weights whose statistics are those of noise: without them it says the same of every pixel."""
    torch.manual_seed(3)
    config = SemanticConfig(CLASSES, "lraspp_mobilenet_v3_large", SIZE)
    network = calibrated(build_network(config))
    folder = tmp_path_factory.mktemp("torchvision") / "model"
    save_checkpoint(folder, config, network)
    return folder


@pytest.fixture(scope="session")
def transformers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SegFormer of one block a stage, whose logits have a quarter of the input's height and width."""
    torch.manual_seed(4)
    config = tf.SegformerConfig(
        num_labels=len(CLASSES), hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16, id2label=dict(enumerate(CLASSES)), label2id={name: n for n, name in enumerate(CLASSES)},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("transformers") / "model"
    model = tf.SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        model.decode_head.classifier.weight.mul_(100)  # random weights make hardly a difference
    model.save_pretrained(folder)
    tf.SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def exported_folder(torchvision_folder: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The torchvision checkpoint with the model.onnx that the command has made of it; not to be changed."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(torchvision_folder, folder)
    assert main(["export-onnx", "semantic", "--weights", str(folder), "--pictures", str(scenes / "images")]) == 0
    return folder


def calibrated(network: nn.Module) -> nn.Module:
    """With batch statistics of some noise instead of none."""
    network.train()
    with torch.no_grad():
        for _ in range(6):
            network(torch.randn(4, 3, *SIZE))
    return network.eval()
