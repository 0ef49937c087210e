"""The heads that classify, refine and outline proposals (He et al., 2017), with detectron2's names and layout.

Classes are numbered from 0 and the background comes last; torchvision's matching and sampling, used for training,
has the background first, which is translated here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_align

from segserve.models.mask_rcnn.architecture import Architecture, BoxHeadShape, MaskHeadShape
from segserve.models.mask_rcnn.convolution import NormedConv2d
from segserve.models.mask_rcnn.pooling import Pooler

Target = dict[str, Tensor]
"""Truth of one picture for training: boxes (N, 4), labels (N,) from 1, masks (N, H, W) uint8."""


@dataclass(frozen=True)
class Limits:
    """Which detections of a picture are kept. score_threshold: 0..1; nms_iou: 0..1; max_instances: from 1."""

    score_threshold: float
    nms_iou: float
    max_instances: int


@dataclass(frozen=True)
class Detected:
    """Detections of one picture by falling score.

    Attributes:
        boxes: (N, 4) in pixels of the input, clipped to the picture.
        scores: (N,) in 0..1.
        classes: (N,) from 0.
        masks: (N, M, M) probabilities over each box.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: Tensor


class BoxHead(nn.Module):
    """Convolutions, then fully connected layers: (N, C, R, R) to (N, channels)."""

    def __init__(self, channels: int, shape: BoxHeadShape) -> None:
        super().__init__()
        names = []
        for index in range(shape.convolutions):
            name = f"conv{index + 1}"
            self.add_module(name, NormedConv2d(channels, shape.conv_channels, 3, shape.norm, True, padding=1))
            names.append(name)
            channels = shape.conv_channels
        size = channels * shape.resolution**2
        layers = []
        for index in range(shape.layers):
            name = f"fc{index + 1}"
            layer = nn.Linear(size, shape.layer_channels)
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
            self.add_module(name, layer)
            layers.append(name)
            size = shape.layer_channels
        self.convolutions, self.layers, self.channels = tuple(names), tuple(layers), size

    def forward(self, pooled: Tensor) -> Tensor:
        """The features of each box."""
        for name in self.convolutions:
            pooled = getattr(self, name)(pooled)
        hidden = pooled.flatten(1)
        for name in self.layers:
            hidden = F.relu(getattr(self, name)(hidden))
        return hidden


class BoxPredictor(nn.Module):
    """Class logits (N, classes + 1), the background last, and box deltas (N, 4 x classes or 4)."""

    def __init__(self, channels: int, classes: int, class_agnostic: bool) -> None:
        super().__init__()
        self.cls_score = nn.Linear(channels, classes + 1)
        self.bbox_pred = nn.Linear(channels, 4 if class_agnostic else 4 * classes)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and deltas, float32."""
        return self.cls_score(hidden).float(), self.bbox_pred(hidden).float()


class MaskHead(nn.Module):
    """Convolutions and one doubling: (N, C, R, R) to logits (N, classes or 1, 2 R, 2 R)."""

    def __init__(self, channels: int, classes: int, shape: MaskHeadShape) -> None:
        super().__init__()
        self.convolutions = tuple(f"mask_fcn{index + 1}" for index in range(shape.convolutions))
        for name in self.convolutions:
            self.add_module(name, NormedConv2d(channels, shape.conv_channels, 3, shape.norm, True, padding=1))
            channels = shape.conv_channels
        self.deconv = nn.ConvTranspose2d(channels, shape.conv_channels, 2, stride=2)
        self.predictor = nn.Conv2d(shape.conv_channels, 1 if shape.class_agnostic else classes, 1)
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.001)
        for layer in (self.deconv, self.predictor):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Mask logits, float32."""
        for name in self.convolutions:
            pooled = getattr(self, name)(pooled)
        logits: Tensor = self.predictor(F.relu(self.deconv(pooled)))
        return logits.float()


class RegionHeads(RoIHeads):  # type: ignore[misc]  # torchvision has no types
    """All heads. Matching and sampling in training are torchvision's."""

    def __init__(self, architecture: Architecture) -> None:
        box, mask = architecture.box_head, architecture.mask_head
        classes, channels = len(architecture.classes), architecture.pyramid_channels
        head = BoxHead(channels, box)
        super().__init__(
            Pooler(box.resolution, box.sampling_ratio, box.aligned),
            head,
            BoxPredictor(head.channels, classes, box.class_agnostic),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=64,
            positive_fraction=0.25,
            bbox_reg_weights=box.box_weights,
            score_thresh=box.score_threshold,
            nms_thresh=box.nms_iou,
            detections_per_img=box.max_instances,
            mask_roi_pool=Pooler(mask.resolution, mask.sampling_ratio, mask.aligned),
            mask_head=MaskHead(channels, classes, mask),
            # The mask head has its predictor within.
            mask_predictor=None,
        )
        self.classes = classes

    def losses(self, features: dict[str, Tensor], proposals: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The losses of classification, boxes and masks, each a scalar."""
        chosen, matched, labels, deltas = self.select_training_samples(proposals, targets)
        logits, found = self.box_predictor(self.box_head(self.box_roi_pool(features, chosen)))
        label = torch.cat(labels)
        positive = torch.where(label > 0)[0]
        # torchvision: 0 is the background; here it is the last.
        classification = F.cross_entropy(logits, (label - 1) % (self.classes + 1))
        of_class = _of_class(found[positive], label[positive] - 1, 4)
        box = F.smooth_l1_loss(of_class, torch.cat(deltas)[positive], beta=1 / 9, reduction="sum") / max(1, len(label))
        boxes = [each[own > 0] for each, own in zip(chosen, labels, strict=True)]
        truth = [index[own > 0] for index, own in zip(matched, labels, strict=True)]
        mask = self._mask_loss(features, boxes, truth, targets)
        return {"classification": classification, "box": box, "mask": mask}

    def _mask_loss(
        self, features: dict[str, Tensor], boxes: list[Tensor], truth: list[Tensor], targets: list[Target]
    ) -> Tensor:
        if not sum(len(each) for each in boxes):
            return sum((level.sum() * 0.0 for level in features.values()), torch.zeros(()).to(boxes[0]))
        logits = self.mask_head(self.mask_roi_pool(features, boxes))
        size = logits.shape[-1]
        wanted, labels = [], []
        for each, index, target in zip(boxes, truth, targets, strict=True):
            rois = torch.cat([index[:, None].to(each), each], dim=1)
            # Aligned sampling, as the masks are pasted: torchvision's own targets are half a pixel off it.
            wanted.append(roi_align(target["masks"][:, None].to(each), rois, size, 1.0, 0, True)[:, 0])
            labels.append(target["labels"][index] - 1)
        own = _of_class(logits.flatten(1), torch.cat(labels), size * size)
        return F.binary_cross_entropy_with_logits(own, torch.cat(wanted).flatten(1).clamp(0, 1))

    def detect(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        limits: list[Limits],
    ) -> list[Detected]:
        """The instances of each picture. sizes: (height, width) in pixels of the input."""
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals)))
        counts = [len(each) for each in proposals]
        scores = torch.split(F.softmax(logits, dim=1), counts)
        # torchvision leaves no boxes flat.
        boxes = self.box_coder.decode(deltas, proposals).view(len(deltas), deltas.shape[1] // 4, 4)
        decoded = torch.split(boxes, counts)
        kept = [
            _select(boxes, score[:, :-1], size, limit)
            for boxes, score, size, limit in zip(decoded, scores, sizes, limits, strict=True)
        ]
        masks = self._masks(features, [each[0] for each in kept], torch.cat([each[2] for each in kept]))
        found = torch.split(masks, [len(each[0]) for each in kept])
        return [Detected(*each, mask) for each, mask in zip(kept, found, strict=True)]

    def _masks(self, features: dict[str, Tensor], boxes: list[Tensor], classes: Tensor) -> Tensor:
        if not len(classes):
            side = 2 * self.mask_roi_pool.resolution
            return torch.zeros((0, side, side), device=classes.device)
        logits = self.mask_head(self.mask_roi_pool(features, boxes))
        size = logits.shape[-1]
        return _of_class(logits.flatten(1), classes, size * size).sigmoid().view(-1, size, size)


def _of_class(values: Tensor, classes: Tensor, width: int) -> Tensor:
    """The values of each row's own class, (N, width). values: (N, width x classes), or (N, width) for all of them."""
    grouped = values.view(len(values), values.shape[1] // width, width)
    if grouped.shape[1] == 1:
        return grouped[:, 0]
    return grouped[torch.arange(len(values), device=values.device), classes]


def _select(boxes: Tensor, scores: Tensor, size: tuple[int, int], limits: Limits) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and classes that pass: by score, by suppression within each class, the best so many.

    Args:
        boxes: (P, classes or 1, 4).
        scores: (P, classes).
    """
    whole = torch.isfinite(boxes).all(dim=2).all(dim=1) & torch.isfinite(scores).all(dim=1)
    boxes, scores = boxes[whole], scores[whole]
    passing = torch.nonzero(scores > limits.score_threshold)
    owner, classes = passing[:, 0], passing[:, 1]
    chosen = boxes[owner, classes if boxes.shape[1] > 1 else torch.zeros_like(classes)]
    chosen = clip_boxes_to_image(chosen, size)
    values = scores[owner, classes]
    kept = batched_nms(chosen, values, classes, limits.nms_iou)[: limits.max_instances]
    return chosen[kept], values[kept], classes[kept]
