"""The shape of a Mask R-CNN with a feature pyramid: everything that its weights do not say.

The settings are those of detectron2's configurations (Wu et al., 2019); ``detectron2_config`` reads them from there,
``segserve train mask-rcnn`` writes its own. As ``config.json`` they lie beside the weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from segserve.errors import InvalidRequestError

MODEL_TYPE = "mask_rcnn"
FORMAT_VERSION = 1
DETECTRON2_FORMAT = "detectron2"
"""In place of the version, in folders that only the engine detectron2 can run."""

Norm = Literal["", "BN", "FrozenBN", "GN", "LN"]
"""Normalization after a convolution: none, batch norm, batch norm with fixed statistics, 32 groups, channels."""


@dataclass(frozen=True)
class ResNetShape:
    """A ResNet or ResNeXt (He et al., 2016; Xie et al., 2017).

    Attributes:
        depth: 18, 34, 50, 101 or 152.
        stem_channels: after the first convolution.
        res2_channels: out of the first stage; each later stage doubles them.
        groups: of the 3 x 3 convolutions.
        width_per_group: channels a group in the first stage's bottlenecks.
        stride_in_1x1: a stage's stride is in its first 1 x 1 convolution (the original) or in the 3 x 3 one.
        norm: after every convolution.
        res5_dilation: of the last stage, 1 or 2; with 2 it has no stride.
    """

    depth: int = 50
    stem_channels: int = 64
    res2_channels: int = 256
    groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = True
    norm: Norm = "FrozenBN"
    res5_dilation: int = 1


@dataclass(frozen=True)
class InputShape:
    """How a picture becomes the network's input.

    Attributes:
        min_size: the shorter side is resized to it, in pixels; 0: pictures keep their size.
        max_size: the longer side is at most this, in pixels.
        channel_order: what mean, deviation and weights go by.
        pixel_mean, pixel_std: for each channel in that order, of values 0..255.
    """

    min_size: int = 800
    max_size: int = 1333
    channel_order: Literal["BGR", "RGB"] = "BGR"
    pixel_mean: tuple[float, float, float] = (103.53, 116.28, 123.675)
    pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class ProposalShape:
    """The region proposal network (Ren et al., 2015) on the levels p2 to p6.

    Attributes:
        anchor_sizes: square roots of the anchors' areas in pixels of the input, for each of the five levels.
        aspect_ratios: height / width, for each of the five levels.
        anchor_offset: of the anchors' centers from the cells' top left corners, as a share of the stride, [0, 1).
        channels: of its 3 x 3 convolutions; -1: as many as the pyramid has.
        box_weights: by which box deltas are divided.
        pre_nms: best proposals of each level that go into suppression.
        post_nms: best proposals of a picture that come out of it.
        nms_iou: 0..1.
    """

    anchor_sizes: tuple[tuple[float, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    aspect_ratios: tuple[tuple[float, ...], ...] = ((0.5, 1.0, 2.0),) * 5
    anchor_offset: float = 0.0
    channels: tuple[int, ...] = (-1,)
    box_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    pre_nms: int = 1000
    post_nms: int = 1000
    nms_iou: float = 0.7


@dataclass(frozen=True)
class BoxHeadShape:
    """What classifies and refines proposals.

    Attributes:
        resolution: of the pooled features, square.
        sampling_ratio: points a bin side in RoIAlign; 0: as many as the bin has pixels.
        aligned: RoIAlign with pixel centers at half integers (detectron2's ROIAlignV2).
        convolutions: 3 x 3 convolutions, all of conv_channels.
        layers: fully connected ones, all of layer_channels.
        norm: after the convolutions.
        class_agnostic: one box a proposal rather than one for each class.
        box_weights: by which box deltas are divided.
        score_threshold: the least score of an instance unless a request says otherwise, 0..1.
        nms_iou: boxes of one class that overlap more are duplicates, 0..1.
        max_instances: the best so many of a picture are kept.
    """

    resolution: int = 7
    sampling_ratio: int = 0
    aligned: bool = True
    convolutions: int = 0
    conv_channels: int = 256
    layers: int = 2
    layer_channels: int = 1024
    norm: Norm = ""
    class_agnostic: bool = False
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_instances: int = 100


@dataclass(frozen=True)
class MaskHeadShape:
    """What draws the mask of each instance at twice ``resolution``; attributes as those of the box head."""

    resolution: int = 14
    sampling_ratio: int = 0
    aligned: bool = True
    convolutions: int = 4
    conv_channels: int = 256
    norm: Norm = ""
    class_agnostic: bool = False


@dataclass(frozen=True)
class Architecture:
    """A whole network.

    Attributes:
        classes: the labels, in the order of the weights.
        backbone: a ResNet's shape, or the name of a torchvision backbone.
        pyramid_channels: of every level of the feature pyramid (Lin et al., 2017).
        pyramid_norm: after its convolutions.
    """

    classes: tuple[str, ...]
    backbone: ResNetShape | Literal["mobilenet_v3_large"] = field(default_factory=ResNetShape)
    pyramid_channels: int = 256
    pyramid_norm: Norm = ""
    input: InputShape = field(default_factory=InputShape)
    proposals: ProposalShape = field(default_factory=ProposalShape)
    box_head: BoxHeadShape = field(default_factory=BoxHeadShape)
    mask_head: MaskHeadShape = field(default_factory=MaskHeadShape)

    def with_classes(self, classes: tuple[str, ...]) -> Architecture:
        """The same network for other labels."""
        return replace(self, classes=classes)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for ``config.json``."""
        return {"model_type": MODEL_TYPE, "format": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Architecture:
        """From what to_dict wrote.

        Raises:
            InvalidRequestError: not that, or of a later version.
        """
        if values.get("format") == DETECTRON2_FORMAT:
            raise InvalidRequestError("config.json is of a checkpoint for the engine detectron2; set handler.engine.")
        if values.get("model_type") != MODEL_TYPE or values.get("format") != FORMAT_VERSION:
            raise InvalidRequestError(
                f"config.json: expected model_type {MODEL_TYPE!r} and format {FORMAT_VERSION}, came "
                f"{values.get('model_type')!r} and {values.get('format')!r}."
            )
        given = {name: _frozen(value) for name, value in values.items() if name not in ("model_type", "format")}
        parts = {"input": InputShape, "proposals": ProposalShape, "box_head": BoxHeadShape, "mask_head": MaskHeadShape}
        try:
            for name, part in parts.items():
                given[name] = part(**given[name])
            if isinstance(given["backbone"], dict):
                given["backbone"] = ResNetShape(**given["backbone"])
            return cls(**given)
        except (KeyError, TypeError) as error:
            raise InvalidRequestError(f"config.json is not that of a Mask R-CNN: {error}.") from error


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples, also within."""
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {name: _frozen(item) for name, item in value.items()}
    return value
