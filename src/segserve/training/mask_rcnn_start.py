"""What a Mask R-CNN's training starts from: random weights, a backbone's, or another Mask R-CNN's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from segserve.errors import InvalidRequestError
from segserve.models.mask_rcnn.architecture import (
    Architecture,
    BoxHeadShape,
    InputShape,
    MaskHeadShape,
    Norm,
    ProposalShape,
    ResNetShape,
)
from segserve.models.mask_rcnn.checkpoint import load_checkpoint
from segserve.models.mask_rcnn.detectron2_checkpoint import network_from_detectron2, read_tensors
from segserve.models.mask_rcnn.network import MaskRcnnNetwork

Backbone = Literal["resnet50", "resnet101", "mobilenet_v3_large"]
BACKBONES: tuple[Backbone, ...] = ("resnet50", "resnet101", "mobilenet_v3_large")

_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_STD = (58.395, 57.12, 57.375)
_CLASS_ROWS = {
    "roi_heads.box_predictor.cls_score": 1,
    "roi_heads.box_predictor.bbox_pred": 4,
    "roi_heads.mask_head.predictor": 1,
}
"""Layers with rows for each class, and how many."""


def new_architecture(
    classes: tuple[str, ...],
    backbone: Backbone = "resnet50",
    *,
    channels: int = 256,
    box_channels: int = 1024,
    min_size: int = 800,
    max_size: int = 1333,
    frozen_norm: bool = False,
) -> Architecture:
    """A Mask R-CNN for these classes.

    Args:
        channels: of the pyramid and the mask head.
        box_channels: of the box head's layers.
        min_size, max_size: of the input, in pixels; see InputShape. Anchors of 32 to 512 pixels at 800, of half that
            at 400 and below.
        frozen_norm: the backbone's batch norms keep their statistics, as is usual with pretrained ones.
    """
    smallest = 32.0 * min(1.0, max(0.5, min_size / 800))
    norm: Norm = "FrozenBN" if frozen_norm else "BN"
    depth = {"resnet50": 50, "resnet101": 101}.get(backbone)
    return Architecture(
        classes=classes,
        backbone="mobilenet_v3_large" if depth is None else ResNetShape(depth, stride_in_1x1=False, norm=norm),
        pyramid_channels=channels,
        input=InputShape(min_size, max_size, "RGB", _IMAGENET_MEAN, _IMAGENET_STD),
        proposals=ProposalShape(anchor_sizes=tuple((smallest * 2**level,) for level in range(5))),
        box_head=BoxHeadShape(sampling_ratio=2, layer_channels=box_channels),
        mask_head=MaskHeadShape(sampling_ratio=2, conv_channels=channels),
    )


def network_for(wanted: Architecture, weights: Path | None, config: Path | None) -> MaskRcnnNetwork:
    """The network that training starts from.

    Args:
        wanted: its shape and classes. A Mask R-CNN's own shape replaces it, all but the classes.
        weights: None for random ones; a folder of ``segserve train``; a checkpoint of detectron2, with config; or the
            weights of a torchvision classification model of the same backbone (ResNet or MobileNet, ``.pth``).
        config: detectron2's, if weights are.

    Raises:
        NotFoundError, InvalidRequestError: the weights cannot be read or belong to something else.
    """
    if weights is None:
        return MaskRcnnNetwork(wanted)
    if weights.is_dir():
        return with_classes(load_checkpoint(weights), wanted.classes)
    if config is not None:
        return with_classes(network_from_detectron2(weights, config, None), wanted.classes)
    return _with_backbone(wanted, read_tensors(weights), weights.name)


def with_classes(network: MaskRcnnNetwork, classes: tuple[str, ...]) -> MaskRcnnNetwork:
    """The network for other classes. Those that it knows by name keep their weights, the others start at random."""
    known = network.architecture.classes
    if known == classes:
        return network
    changed = MaskRcnnNetwork(network.architecture.with_classes(classes))
    old, new = network.state_dict(), changed.state_dict()
    for name, tensor in old.items():
        layer, _, _ = name.rpartition(".")
        if layer not in _CLASS_ROWS or tensor.shape[0] == _CLASS_ROWS[layer] != len(known) * _CLASS_ROWS[layer]:
            new[name] = tensor
            continue
        rows = _CLASS_ROWS[layer]
        for position, label in enumerate(classes):
            if label in known:
                source = known.index(label)
                new[name][position * rows : (position + 1) * rows] = tensor[source * rows : (source + 1) * rows]
        if layer.endswith("cls_score"):
            new[name][-1] = tensor[-1]  # the background
    changed.load_state_dict(new)
    return changed


def _with_backbone(wanted: Architecture, tensors: dict[str, Tensor], where: str) -> MaskRcnnNetwork:
    """A new network whose backbone has the weights of a torchvision classification model."""
    resnet = isinstance(wanted.backbone, ResNetShape)
    if isinstance(wanted.backbone, ResNetShape):
        wanted = replace(wanted, backbone=replace(wanted.backbone, norm="FrozenBN"))
    network = MaskRcnnNetwork(wanted)
    renamed = {_detectron2_name(name) if resnet else name: tensor for name, tensor in tensors.items()}
    own = network.backbone.bottom_up.state_dict()
    missing = [
        name
        for name, tensor in own.items()
        if not name.endswith("num_batches_tracked") and (name not in renamed or renamed[name].shape != tensor.shape)
    ]
    if missing:
        kind = f"ResNet-{wanted.backbone.depth}" if isinstance(wanted.backbone, ResNetShape) else wanted.backbone
        raise InvalidRequestError(
            f"{where}: no weights of a {kind} ({len(missing)} tensors differ, e.g. {missing[0]}). Give a folder of "
            "segserve train, a detectron2 checkpoint with --config, or a torchvision classification checkpoint of "
            "the same --backbone."
        )
    network.backbone.bottom_up.load_state_dict({name: renamed[name] for name in own if name in renamed}, strict=False)
    return network


def _detectron2_name(name: str) -> str:
    """torchvision's name of a ResNet's tensor as detectron2 has it: layer1.0.bn2.bias is res2.0.conv2.norm.bias."""
    parts = name.split(".")
    if parts[0] in ("conv1", "bn1"):
        parts = ["stem", *parts]
    elif parts[0].startswith("layer"):
        parts[0] = f"res{int(parts[0].removeprefix('layer')) + 1}"
    text = ".".join(parts)
    text = text.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    for number in (1, 2, 3):
        text = text.replace(f"bn{number}", f"conv{number}.norm")
    return text


def keep_statistics(network: torch.nn.Module) -> None:
    """Put the batch norms of a network in training into evaluation mode: small batches would spoil what they know."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
