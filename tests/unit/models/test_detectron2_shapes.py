"""Networks of other shapes than the golden one: their tensors' names, their way through files, their arithmetic.

There are no recorded answers for them. The names are written out here as detectron2 has them; the backbones are
compared with torchvision's, which were written independently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models as tv

from segserve.models.device import choose_placement
from segserve.models.mask_rcnn import Architecture, MaskRcnn, MaskRcnnParameters
from segserve.models.mask_rcnn.architecture import Norm, ResNetShape
from segserve.models.mask_rcnn.detectron2_checkpoint import convert
from segserve.models.mask_rcnn.detectron2_config import read_config
from segserve.models.mask_rcnn.network import MaskRcnnNetwork
from segserve.models.mask_rcnn.resnet import ResNet

from .detectron2_files import (
    SMALL_ARCHITECTURE,
    random_network,
    tensors_of,
    write_config,
    write_pkl,
    write_pth,
)
from .golden import as_tuples

A = SMALL_ARCHITECTURE
assert not isinstance(A.backbone, str)

RES, FPN, RPN, HEADS, BOX, MASK = (
    f"MODEL.{section}" for section in ("RESNETS", "FPN", "RPN", "ROI_HEADS", "ROI_BOX_HEAD", "ROI_MASK_HEAD")
)
BOTTOM_UP = "backbone.bottom_up."

GROUP_NORMS: dict[str, Any] = {
    f"{RES}.NORM": "GN",
    f"{RES}.STRIDE_IN_1X1": False,
    f"{RES}.STEM_OUT_CHANNELS": 32,
    f"{RES}.RES2_OUT_CHANNELS": 64,
    f"{RES}.WIDTH_PER_GROUP": 32,
    f"{FPN}.NORM": "GN",
    f"{FPN}.OUT_CHANNELS": 32,
    f"{BOX}.NAME": "FastRCNNConvFCHead",
    f"{BOX}.NUM_CONV": 2,
    f"{BOX}.NUM_FC": 1,
    f"{BOX}.CONV_DIM": 32,
    f"{BOX}.NORM": "GN",
    f"{MASK}.CONV_DIM": 32,
    f"{MASK}.NORM": "GN",
}
AGNOSTIC: dict[str, Any] = {f"{BOX}.CLS_AGNOSTIC_BBOX_REG": True, f"{MASK}.CLS_AGNOSTIC_MASK": True}

CASES: dict[str, tuple[dict[str, Any], Architecture, dict[str, tuple[int, ...]]]] = {
    "R-101": (
        {f"{RES}.DEPTH": 101},
        replace(A, backbone=replace(A.backbone, depth=101)),
        {
            f"{BOTTOM_UP}res4.22.conv3.weight": (64, 32, 1, 1),
            f"{BOTTOM_UP}res4.22.conv3.norm.running_var": (64,),
            f"{BOTTOM_UP}res5.0.shortcut.weight": (128, 64, 1, 1),
            f"{BOTTOM_UP}res5.0.shortcut.norm.weight": (128,),
        },
    ),
    "ResNeXt-101 in 32 groups": (
        {
            f"{RES}.DEPTH": 101,
            f"{RES}.NUM_GROUPS": 32,
            f"{RES}.WIDTH_PER_GROUP": 2,
            f"{RES}.STRIDE_IN_1X1": False,
        },
        replace(A, backbone=replace(A.backbone, depth=101, groups=32, width_per_group=2, stride_in_1x1=False)),
        {f"{BOTTOM_UP}res2.0.conv1.weight": (64, 8, 1, 1), f"{BOTTOM_UP}res2.0.conv2.weight": (64, 2, 3, 3)},
    ),
    "R-18": (
        {f"{RES}.DEPTH": 18, f"{RES}.RES2_OUT_CHANNELS": 64, f"{RES}.NORM": "BN", f"{RES}.STEM_OUT_CHANNELS": 64},
        replace(A, backbone=ResNetShape(depth=18, res2_channels=64, width_per_group=8, norm="BN")),
        {
            f"{BOTTOM_UP}res2.1.conv2.weight": (64, 64, 3, 3),
            f"{BOTTOM_UP}res3.0.shortcut.weight": (128, 64, 1, 1),
            f"{BOTTOM_UP}res5.1.conv2.norm.running_mean": (512,),
        },
    ),
    "group norms everywhere": (
        GROUP_NORMS,
        replace(
            A,
            backbone=replace(
                A.backbone, norm="GN", stride_in_1x1=False, stem_channels=32, res2_channels=64, width_per_group=32
            ),
            pyramid_norm="GN",
            pyramid_channels=32,
            box_head=replace(A.box_head, convolutions=2, layers=1, conv_channels=32, norm="GN"),
            mask_head=replace(A.mask_head, conv_channels=32, norm="GN"),
        ),
        {
            f"{BOTTOM_UP}stem.conv1.norm.weight": (32,),
            "backbone.fpn_lateral5.norm.bias": (32,),
            "backbone.fpn_output2.norm.weight": (32,),
            "roi_heads.box_head.conv2.norm.weight": (32,),
            "roi_heads.box_head.fc1.weight": (32, 32 * 7 * 7),
            "roi_heads.mask_head.mask_fcn4.norm.bias": (32,),
            "roi_heads.mask_head.deconv.bias": (32,),
        },
    ),
    "layer norms in the pyramid, none in the backbone": (
        {f"{FPN}.NORM": "LN", f"{RES}.NORM": ""},
        replace(A, pyramid_norm="LN", backbone=replace(A.backbone, norm="")),
        {"backbone.fpn_lateral2.norm.weight": (16,), f"{BOTTOM_UP}stem.conv1.weight": (8, 3, 7, 7)},
    ),
    "class agnostic": (
        AGNOSTIC,
        replace(
            A,
            box_head=replace(A.box_head, class_agnostic=True),
            mask_head=replace(A.mask_head, class_agnostic=True),
        ),
        {
            "roi_heads.box_predictor.cls_score.weight": (4, 32),
            "roi_heads.box_predictor.bbox_pred.weight": (4, 32),
            "roi_heads.mask_head.predictor.weight": (1, 16, 1, 1),
        },
    ),
    "several convolutions before the proposals": (
        {f"{RPN}.CONV_DIMS": [24, -1], "MODEL.ANCHOR_GENERATOR.SIZES": [[16, 48]]},
        replace(A, proposals=replace(A.proposals, channels=(24, 24), anchor_sizes=((16.0, 48.0),) * 5)),
        {
            "proposal_generator.rpn_head.conv.conv0.weight": (24, 16, 3, 3),
            "proposal_generator.rpn_head.conv.conv1.bias": (24,),
            "proposal_generator.rpn_head.objectness_logits.weight": (6, 24, 1, 1),
            "proposal_generator.rpn_head.anchor_deltas.weight": (24, 24, 1, 1),
        },
    ),
    "one wide convolution before the proposals": (
        {f"{RPN}.CONV_DIMS": [24]},
        replace(A, proposals=replace(A.proposals, channels=(24,))),
        {"proposal_generator.rpn_head.conv.weight": (24, 16, 3, 3)},
    ),
    "convolutions alone in the box head": (
        {f"{BOX}.NUM_CONV": 1, f"{BOX}.NUM_FC": 0, f"{BOX}.CONV_DIM": 4},
        replace(A, box_head=replace(A.box_head, convolutions=1, layers=0, conv_channels=4)),
        {"roi_heads.box_predictor.cls_score.weight": (4, 4 * 7 * 7)},
    ),
    "no convolutions in the mask head": (
        {f"{MASK}.NUM_CONV": 0},
        replace(A, mask_head=replace(A.mask_head, convolutions=0)),
        {"roi_heads.mask_head.deconv.weight": (16, 16, 2, 2)},
    ),
    "the older alignment, other pixels": (
        {
            f"{BOX}.POOLER_TYPE": "ROIAlign",
            f"{MASK}.POOLER_TYPE": "ROIAlign",
            f"{BOX}.POOLER_SAMPLING_RATIO": 2,
            "INPUT.FORMAT": "RGB",
            "MODEL.PIXEL_STD": [58.0, 57.0, 56.0],
            "MODEL.ANCHOR_GENERATOR.OFFSET": 0.5,
        },
        replace(
            A,
            box_head=replace(A.box_head, aligned=False, sampling_ratio=2),
            mask_head=replace(A.mask_head, aligned=False),
            input=replace(A.input, channel_order="RGB", pixel_std=(58.0, 57.0, 56.0)),
            proposals=replace(A.proposals, anchor_offset=0.5),
        ),
        {"roi_heads.box_head.fc1.weight": (32, 16 * 7 * 7)},
    ),
}


def pictures() -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    generator = np.random.default_rng(3)
    blocks = [generator.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((6, 8), (9, 5))]
    return [np.kron(block, np.ones((16, 16, 1), np.uint8)) for block in blocks]


def answers(model: MaskRcnn) -> list[list[tuple[Any, ...]]]:
    images = pictures()
    return [as_tuples(each) for each in model.predict(images, [MaskRcnnParameters()] * len(images))]


@pytest.mark.parametrize("case", CASES)
def test_a_network_answers_the_same_through_detectron2s_files(tmp_path: Path, case: str) -> None:
    changes, architecture, names = CASES[case]
    network = random_network(architecture)
    tensors = tensors_of(network)
    for name, shape in names.items():
        assert tuple(tensors[name].shape) == shape, name
    expected = answers(MaskRcnn(network, choose_placement("cpu")))
    assert all(len(each) == 10 for each in expected), "the comparison is of something"
    config = write_config(tmp_path, changes)
    for weights in (write_pth(tmp_path / "weights.pth", tensors), write_pkl(tmp_path / "weights.pkl", tensors)):
        folder = convert(weights, config, None, tmp_path / weights.suffix.strip("."))
        assert answers(MaskRcnn.from_folder(folder, device="cpu")) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {f"{RES}.STRIDE_IN_1X1": False},
        {f"{BOX}.POOLER_TYPE": "ROIAlign"},
        {f"{MASK}.POOLER_TYPE": "ROIAlign"},
        {f"{BOX}.POOLER_SAMPLING_RATIO": 1},
        {"INPUT.FORMAT": "RGB"},
        {"INPUT.MIN_SIZE_TEST": 80},
        {"MODEL.PIXEL_STD": [58.0, 57.0, 56.0]},
        {"MODEL.PIXEL_MEAN": [0.0, 0.0, 0.0]},
        {"MODEL.ANCHOR_GENERATOR.OFFSET": 0.5},
        {"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[2.0, 1.0, 0.5]]},
        {f"{BOX}.BBOX_REG_WEIGHTS": [5.0, 5.0, 5.0, 5.0]},
        {f"{RPN}.BBOX_REG_WEIGHTS": [2.0, 2.0, 2.0, 2.0]},
        {f"{RPN}.POST_NMS_TOPK_TEST": 3},
        {f"{HEADS}.SCORE_THRESH_TEST": 0.9},
        {"TEST.DETECTIONS_PER_IMAGE": 2},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_settings_that_no_tensor_shows_reach_the_answer(tmp_path: Path, changes: dict[str, Any]) -> None:
    """With the same weights."""
    weights = write_pth(tmp_path / "weights.pth", tensors_of(random_network(A)))
    one = convert(weights, write_config(tmp_path), None, tmp_path / "one")
    other = convert(weights, write_config(tmp_path, changes), None, tmp_path / "other")
    assert answers(MaskRcnn.from_folder(one, device="cpu")) != answers(MaskRcnn.from_folder(other, device="cpu"))


def test_a_picture_without_a_single_proposal() -> None:
    """As weights of a training that diverged have it."""
    network = random_network(A)
    for tensor in network.proposal_generator.rpn_head.anchor_deltas.state_dict().values():
        tensor.fill_(float("nan"))
    assert answers(MaskRcnn(network, choose_placement("cpu"))) == [[], []]


# ---- the backbones against torchvision's


def load_from_torchvision(network: ResNet, reference: nn.Module) -> None:
    """Tensor by tensor, by hand: torchvision calls the stages layer1 … layer4 and the norms bn1 ….."""
    renamed = {}
    for given, tensor in reference.state_dict().items():
        if given.startswith("fc."):
            continue
        name = given
        for old, new in (
            *((f"layer{stage}.", f"res{stage + 1}.") for stage in (1, 2, 3, 4)),
            ("downsample.0.", "shortcut."),
            ("downsample.1.", "shortcut.norm."),
            *((f"bn{number}.", f"conv{number}.norm.") for number in (1, 2, 3)),
        ):
            name = name.replace(old, new)
        renamed[name if name.startswith("res") else f"stem.{name}"] = tensor
    wanted = network.state_dict()
    needed = {name: tensor for name, tensor in renamed.items() if name in wanted}
    assert needed.keys() == wanted.keys()
    network.load_state_dict(needed)


def features_of_torchvision(reference: tv.ResNet, images: Tensor) -> list[Tensor]:
    features = reference.maxpool(F.relu(reference.bn1(reference.conv1(images))))
    found = []
    for stage in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
        features = stage(features)
        found.append(features)
    return found


REFERENCES: dict[str, tuple[Callable[[], tv.ResNet], ResNetShape]] = {
    "R-18": (tv.resnet18, ResNetShape(depth=18, res2_channels=64)),
    "R-34": (tv.resnet34, ResNetShape(depth=34, res2_channels=64)),
    "R-50": (tv.resnet50, ResNetShape(depth=50)),
    "R-101": (tv.resnet101, ResNetShape(depth=101)),
    "ResNeXt-50 32x4d": (tv.resnext50_32x4d, ResNetShape(depth=50, groups=32, width_per_group=4)),
    "ResNeXt-101 32x8d": (tv.resnext101_32x8d, ResNetShape(depth=101, groups=32, width_per_group=8)),
}


@pytest.mark.parametrize(("name", "norm"), [*((name, "BN") for name in REFERENCES), ("R-50", "FrozenBN")])
def test_the_backbone_computes_what_torchvisions_does(name: str, norm: Norm) -> None:
    make, shape = REFERENCES[name]
    compare_backbones(make(), replace(shape, norm=norm, stride_in_1x1=False))


@pytest.mark.parametrize("name", ["R-50", "ResNeXt-50 32x4d"])
def test_the_stride_in_the_first_convolution(name: str) -> None:
    make, shape = REFERENCES[name]
    reference = make()
    for stage in (reference.layer2, reference.layer3, reference.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    compare_backbones(reference, replace(shape, norm="BN", stride_in_1x1=True))


def compare_backbones(reference: tv.ResNet, shape: ResNetShape) -> None:
    generator = torch.Generator().manual_seed(1)
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    network = ResNet(shape).eval()
    load_from_torchvision(network, reference)
    images = torch.randn((2, 3, 64, 96), generator=generator)
    with torch.inference_mode():
        expected = features_of_torchvision(reference.eval(), images)
        found = network(images)
    assert network.channels == [each.shape[1] for each in expected]
    for level, wanted in zip(found, expected, strict=True):
        assert level.shape == wanted.shape
        torch.testing.assert_close(level, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_the_zoos_configuration_has_the_zoos_shapes(tmp_path: Path) -> None:
    """Mask R-CNN X-101 32x8d FPN of the model zoo, by the numbers of its files."""
    changes = {
        f"{RES}.DEPTH": 101,
        f"{RES}.NUM_GROUPS": 32,
        f"{RES}.WIDTH_PER_GROUP": 8,
        f"{RES}.STRIDE_IN_1X1": False,
        f"{RES}.STEM_OUT_CHANNELS": 64,
        f"{RES}.RES2_OUT_CHANNELS": 256,
        f"{FPN}.OUT_CHANNELS": 256,
        f"{HEADS}.NUM_CLASSES": 80,
        f"{BOX}.FC_DIM": 1024,
        f"{MASK}.CONV_DIM": 256,
    }
    with torch.device("meta"):
        network = MaskRcnnNetwork(read_config(write_config(tmp_path, changes)))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(107_000_000, rel=0.02)
    assert shapes[f"{BOTTOM_UP}res4.22.conv2.weight"] == (1024, 32, 3, 3)
    assert shapes["roi_heads.box_head.fc1.weight"] == (1024, 12544)
    assert shapes["roi_heads.box_predictor.cls_score.weight"] == (81, 1024)
    assert shapes["roi_heads.box_predictor.bbox_pred.weight"] == (320, 1024)
    assert shapes["roi_heads.mask_head.predictor.weight"] == (80, 256, 1, 1)
