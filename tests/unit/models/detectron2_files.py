"""Configurations and weights as detectron2 writes them, small."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from segserve.models.mask_rcnn.architecture import (
    Architecture,
    BoxHeadShape,
    InputShape,
    MaskHeadShape,
    ProposalShape,
    ResNetShape,
)
from segserve.models.mask_rcnn.network import MaskRcnnNetwork

SMALL: dict[str, Any] = {
    "VERSION": 2,
    "INPUT": {"MIN_SIZE_TEST": 96, "MAX_SIZE_TEST": 160},
    "MODEL": {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "MASK_ON": True,
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
        "RESNETS": {
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
            "STEM_OUT_CHANNELS": 8,
            "RES2_OUT_CHANNELS": 16,
            "WIDTH_PER_GROUP": 8,
        },
        "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"], "OUT_CHANNELS": 16},
        "ANCHOR_GENERATOR": {"SIZES": [[16], [32], [64], [128], [256]]},
        "RPN": {
            "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
            "PRE_NMS_TOPK_TEST": 50,
            "POST_NMS_TOPK_TEST": 30,
        },
        "ROI_HEADS": {
            "NAME": "StandardROIHeads",
            "IN_FEATURES": ["p2", "p3", "p4", "p5"],
            "NUM_CLASSES": 3,
            "SCORE_THRESH_TEST": 0.01,
        },
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "FC_DIM": 32, "POOLER_RESOLUTION": 7},
        "ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 4, "CONV_DIM": 16},
    },
    "TEST": {"DETECTIONS_PER_IMAGE": 10},
}
"""A partial configuration: whatever it leaves out has detectron2's defaults."""

SMALL_ARCHITECTURE = Architecture(
    classes=("class 0", "class 1", "class 2"),
    backbone=ResNetShape(
        depth=50,
        stem_channels=8,
        res2_channels=16,
        groups=1,
        width_per_group=8,
        stride_in_1x1=True,
        norm="FrozenBN",
    ),
    pyramid_channels=16,
    input=InputShape(96, 160, "BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)),
    proposals=ProposalShape(
        anchor_sizes=((16.0,), (32.0,), (64.0,), (128.0,), (256.0,)),
        pre_nms=50,
        post_nms=30,
    ),
    box_head=BoxHeadShape(layer_channels=32, score_threshold=0.01, max_instances=10),
    mask_head=MaskHeadShape(conv_channels=16),
)
"""The same by hand."""


def changed(changes: dict[str, Any], base: dict[str, Any] = SMALL) -> dict[str, Any]:
    """The configuration with settings replaced, by their dotted names."""
    tree = copy.deepcopy(base)
    for name, value in changes.items():
        node = tree
        *sections, key = name.split(".")
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = value
    return tree


def write_config(folder: Path, changes: dict[str, Any] | None = None, name: str = "config.yaml") -> Path:
    """The small configuration with changes, as a file."""
    file = folder / name
    file.write_text(yaml.safe_dump(changed(changes or {})), "utf-8")
    return file


def random_network(architecture: Architecture, seed: int = 0) -> MaskRcnnNetwork:
    """A network that finds something, and in which every tensor matters."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MaskRcnnNetwork(architecture).eval()
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                if name.endswith(("running_var", "norm.weight")):
                    tensor.uniform_(0.5, 1.5)
                elif name.endswith(("running_mean", "bias")):
                    tensor.normal_(0, 0.1)
                elif tensor.dim() > 1:
                    tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5)
            state = network.state_dict()
            for name in (
                "proposal_generator.rpn_head.anchor_deltas.weight",
                "roi_heads.box_predictor.bbox_pred.weight",
            ):
                state[name].mul_(0.1)
            if not architecture.pyramid_norm:
                # Features of about one, as a trained network has them, so that boxes stay in the picture.
                spread = network.backbone(torch.randn(1, 3, 96, 128) * 60)["p2"].std()
                for level in (2, 3, 4, 5):
                    state[f"backbone.fpn_output{level}.weight"].div_(spread)
    return network


def tensors_of(network: MaskRcnnNetwork) -> dict[str, Tensor]:
    """A copy of the network's tensors."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def write_pth(file: Path, tensors: dict[str, Tensor], **beside: Any) -> Path:
    """As detectron2's checkpointer writes them."""
    torch.save({"model": tensors, **beside}, file)
    return file


def write_pkl(file: Path, tensors: dict[str, Tensor], protocol: int = 2, **beside: Any) -> Path:
    """As in detectron2's model zoo: NumPy arrays, pickled."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    file.write_bytes(pickle.dumps({"model": arrays, "__author__": "a test", **beside}, protocol=protocol))
    return file
