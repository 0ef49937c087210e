"""A Mask R-CNN's architecture from detectron2's configuration (Wu et al., 2019).

Every setting that an answer depends on is either represented or refused by its name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

from segserve.models.labels import check_labels, coco_labels
from segserve.models.mask_rcnn.architecture import (
    Architecture,
    BoxHeadShape,
    InputShape,
    MaskHeadShape,
    Norm,
    ProposalShape,
    ResNetShape,
)
from segserve.models.mask_rcnn.detectron2_settings import Settings

_STAGES = ("res2", "res3", "res4", "res5")
_LEVELS = ("p2", "p3", "p4", "p5", "p6")
_NORMS: dict[str, Norm] = {
    "": "",
    "BN": "BN",
    "SyncBN": "BN",
    "nnSyncBN": "BN",
    "naiveSyncBN": "BN",
    "naiveSyncBN_N": "BN",
    "FrozenBN": "FrozenBN",
    "GN": "GN",
    "LN": "LN",
}
"""detectron2's names; those that agree between machines while training are batch norms at inference."""

_COCO_DATASET = re.compile(r"coco_20\d\d_")
_MAX_CLASSES = 10_000
_MAX_CANDIDATES = 1_000_000


def read_config(file: Path, classes: Sequence[str] | None = None) -> Architecture:
    """The architecture that a YAML configuration of detectron2 describes.

    Args:
        file: a full dump (the ``config.yaml`` of a training) or a file of the model zoo on top of its ``_BASE_``.
        classes: the labels in the order of the training's classes. Without: COCO's for a model trained on COCO, else
            ``class 0``, ``class 1``, ….

    Raises:
        NotFoundError: the file, or one that it is based on, is not there.
        InvalidRequestError: not such a configuration; or a setting that this engine does not have, with its name and
            the advice to use the engine detectron2; or not as many labels as classes.
    """
    settings = Settings.from_file(file)
    _refuse_other_networks(settings)
    settings.refuse_unknown()
    pyramid_channels = settings.integer("MODEL.FPN.OUT_CHANNELS", 1)
    return Architecture(
        classes=read_classes(settings, classes),
        backbone=_backbone(settings),
        pyramid_channels=pyramid_channels,
        pyramid_norm=_norm(settings, "MODEL.FPN.NORM"),
        input=_input(settings),
        proposals=_proposals(settings, pyramid_channels),
        box_head=_box_head(settings),
        mask_head=_mask_head(settings),
    )


def read_classes(settings: Settings, classes: Sequence[str] | None) -> tuple[str, ...]:
    """The labels: those given, COCO's, or numbers.

    Raises:
        InvalidRequestError: not as many labels as MODEL.ROI_HEADS.NUM_CLASSES.
    """
    count = settings.integer("MODEL.ROI_HEADS.NUM_CLASSES", 1, _MAX_CLASSES)
    if classes is not None:
        return check_labels(classes, count=count)
    trained_on = settings.get("DATASETS.TRAIN")
    names = trained_on if isinstance(trained_on, list | tuple) else [trained_on]
    if count == 80 and any(_COCO_DATASET.match(str(name)) for name in names):
        return coco_labels()
    return tuple(f"class {index}" for index in range(count))


def _refuse_other_networks(settings: Settings) -> None:
    """Everything but a Mask R-CNN on a ResNet's feature pyramid."""
    settings.require("MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
    settings.require("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone")
    settings.require("MODEL.PROPOSAL_GENERATOR.NAME", "RPN")
    settings.require("MODEL.ANCHOR_GENERATOR.NAME", "DefaultAnchorGenerator")
    settings.require("MODEL.RPN.HEAD_NAME", "StandardRPNHead")
    settings.require("MODEL.ROI_HEADS.NAME", "StandardROIHeads")
    settings.require("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead")
    settings.require("MODEL.MASK_ON", True)
    settings.require("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead")
    settings.require("MODEL.KEYPOINT_ON", False)
    settings.require("MODEL.LOAD_PROPOSALS", False)
    settings.require("MODEL.FPN.IN_FEATURES", _STAGES)
    settings.require("MODEL.FPN.FUSE_TYPE", "sum")
    settings.require("MODEL.RPN.IN_FEATURES", _LEVELS)
    settings.require("MODEL.ROI_HEADS.IN_FEATURES", _LEVELS[:-1])
    settings.require("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 0)
    settings.require("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", False)


def _backbone(settings: Settings) -> ResNetShape:
    settings.require("MODEL.RESNETS.DEFORM_ON_PER_STAGE", (False,) * 4)
    settings.require("MODEL.RESNETS.OUT_FEATURES", _STAGES)
    if settings.get("MODEL.RESNETS.RES5_DILATION") != 1:
        settings.fail(
            "MODEL.RESNETS.RES5_DILATION", "1, as each level of a feature pyramid has twice the stride of the last"
        )
    depth = settings.require("MODEL.RESNETS.DEPTH", 18, 34, 50, 101, 152)
    shape = ResNetShape(
        depth=depth,
        stem_channels=settings.integer("MODEL.RESNETS.STEM_OUT_CHANNELS", 1),
        res2_channels=settings.integer("MODEL.RESNETS.RES2_OUT_CHANNELS", 1),
        groups=settings.integer("MODEL.RESNETS.NUM_GROUPS", 1),
        width_per_group=settings.integer("MODEL.RESNETS.WIDTH_PER_GROUP", 1),
        stride_in_1x1=settings.flag("MODEL.RESNETS.STRIDE_IN_1X1"),
        norm=_norm(settings, "MODEL.RESNETS.NORM"),
    )
    if depth in (18, 34):
        if shape.res2_channels != 64:
            settings.fail("MODEL.RESNETS.RES2_OUT_CHANNELS", f"64, as MODEL.RESNETS.DEPTH is {depth}")
        if shape.groups != 1:
            settings.fail("MODEL.RESNETS.NUM_GROUPS", f"1, as MODEL.RESNETS.DEPTH is {depth}")
    return shape


def _input(settings: Settings) -> InputShape:
    deviation = settings.numbers("MODEL.PIXEL_STD", 3)
    if min(deviation) <= 0:
        settings.fail("MODEL.PIXEL_STD", "3 numbers above 0")
    return InputShape(
        min_size=settings.integer("INPUT.MIN_SIZE_TEST", 0),
        max_size=settings.integer("INPUT.MAX_SIZE_TEST", 1),
        channel_order=cast(Literal["BGR", "RGB"], settings.require("INPUT.FORMAT", "BGR", "RGB")),
        pixel_mean=cast("tuple[float, float, float]", settings.numbers("MODEL.PIXEL_MEAN", 3)),
        pixel_std=cast("tuple[float, float, float]", deviation),
    )


def _proposals(settings: Settings, pyramid_channels: int) -> ProposalShape:
    sizes = _by_level(settings, "MODEL.ANCHOR_GENERATOR.SIZES")
    ratios = _by_level(settings, "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS")
    if len({len(size) * len(ratio) for size, ratio in zip(sizes, ratios, strict=True)}) > 1:
        settings.fail("MODEL.ANCHOR_GENERATOR.SIZES", "as many anchors (sizes x aspect ratios) on every level")
    offset = settings.number("MODEL.ANCHOR_GENERATOR.OFFSET", 0, 1)
    if offset == 1:
        settings.fail("MODEL.ANCHOR_GENERATOR.OFFSET", "a number from 0 to below 1")
    return ProposalShape(
        anchor_sizes=sizes,
        aspect_ratios=ratios,
        anchor_offset=offset,
        channels=_proposal_channels(settings, pyramid_channels),
        box_weights=_box_weights(settings, "MODEL.RPN.BBOX_REG_WEIGHTS"),
        pre_nms=settings.integer("MODEL.RPN.PRE_NMS_TOPK_TEST", 1, _MAX_CANDIDATES),
        post_nms=settings.integer("MODEL.RPN.POST_NMS_TOPK_TEST", 1, _MAX_CANDIDATES),
        nms_iou=settings.number("MODEL.RPN.NMS_THRESH", 0, 1),
    )


def _by_level(settings: Settings, name: str) -> tuple[tuple[float, ...], ...]:
    """One list for each level; a single one (flat, or in a list) stands for all."""
    expected = f"a list of numbers above 0, or {len(_LEVELS)} such lists"
    value = settings.get(name)
    if not isinstance(value, list | tuple) or not value:
        settings.fail(name, expected)
    lists = value if isinstance(value[0], list | tuple) else [value]
    if len(lists) == 1:
        lists = [*lists] * len(_LEVELS)
    if len(lists) != len(_LEVELS):
        settings.fail(name, expected)
    for each in lists:
        if not isinstance(each, list | tuple) or not each or not all(_is_positive(number) for number in each):
            settings.fail(name, expected)
    return tuple(tuple(float(number) for number in each) for each in lists)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _proposal_channels(settings: Settings, pyramid_channels: int) -> tuple[int, ...]:
    """Of the convolutions of the proposal head. -1 means as many as before it, so only the first may stay -1."""
    name = "MODEL.RPN.CONV_DIMS"
    value = settings.get(name)
    if not isinstance(value, list | tuple) or not value:
        settings.fail(name, "a list of channels")
    if tuple(value) == (-1,):
        return (-1,)
    channels = [pyramid_channels]
    for width in value:
        if isinstance(width, bool) or not isinstance(width, int) or not (width == -1 or 1 <= width <= 2**16):
            settings.fail(name, "channels, each 1 or more, or -1 for as many as before")
        channels.append(channels[-1] if width == -1 else width)
    return tuple(channels[1:])


def _box_head(settings: Settings) -> BoxHeadShape:
    section = "MODEL.ROI_BOX_HEAD"
    convolutions = settings.integer(f"{section}.NUM_CONV", 0, 100)
    layers = settings.integer(f"{section}.NUM_FC", 0, 100)
    if convolutions + layers == 0:
        settings.fail(f"{section}.NUM_FC", f"1 or more, as {section}.NUM_CONV is 0")
    if settings.get("TEST.DETECTIONS_PER_IMAGE") == -1:
        settings.refuse("TEST.DETECTIONS_PER_IMAGE", "1 or more")
    return BoxHeadShape(
        **_pooling(settings, section),
        convolutions=convolutions,
        conv_channels=settings.integer(f"{section}.CONV_DIM", 1),
        layers=layers,
        layer_channels=settings.integer(f"{section}.FC_DIM", 1),
        norm=_norm(settings, f"{section}.NORM"),
        class_agnostic=settings.flag(f"{section}.CLS_AGNOSTIC_BBOX_REG"),
        box_weights=_box_weights(settings, f"{section}.BBOX_REG_WEIGHTS"),
        score_threshold=settings.number("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0, 1),
        nms_iou=settings.number("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0, 1),
        max_instances=settings.integer("TEST.DETECTIONS_PER_IMAGE", 1, _MAX_CANDIDATES),
    )


def _mask_head(settings: Settings) -> MaskHeadShape:
    section = "MODEL.ROI_MASK_HEAD"
    return MaskHeadShape(
        **_pooling(settings, section),
        convolutions=settings.integer(f"{section}.NUM_CONV", 0, 100),
        conv_channels=settings.integer(f"{section}.CONV_DIM", 1),
        norm=_norm(settings, f"{section}.NORM"),
        class_agnostic=settings.flag(f"{section}.CLS_AGNOSTIC_MASK"),
    )


def _pooling(settings: Settings, section: str) -> dict[str, Any]:
    """How a head cuts its features out."""
    kind = settings.require(f"{section}.POOLER_TYPE", "ROIAlignV2", "ROIAlign")
    return {
        "resolution": settings.integer(f"{section}.POOLER_RESOLUTION", 1, 256),
        "sampling_ratio": settings.integer(f"{section}.POOLER_SAMPLING_RATIO", 0, 64),
        "aligned": kind == "ROIAlignV2",
    }


def _norm(settings: Settings, name: str) -> Norm:
    value = settings.get(name)
    # yacs also takes an absent norm.
    kind = "" if value is None else value
    return _NORMS[settings.require(name, *_NORMS)] if kind else ""


def _box_weights(settings: Settings, name: str) -> tuple[float, float, float, float]:
    weights = settings.numbers(name, 4)
    if min(weights) <= 0:
        settings.fail(name, "4 numbers above 0")
    return cast("tuple[float, float, float, float]", weights)
