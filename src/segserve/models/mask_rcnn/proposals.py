"""The region proposal network: torchvision's, with detectron2's anchors and the names of its head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork

from segserve.models.mask_rcnn.architecture import Architecture, ProposalShape
from segserve.models.mask_rcnn.convolution import NormedConv2d


class Anchors(AnchorGenerator):  # type: ignore[misc]  # torchvision has no types
    """Anchors that are not rounded to whole pixels, and ordered by size first."""

    def __init__(self, shape: ProposalShape) -> None:
        super().__init__(shape.anchor_sizes, shape.aspect_ratios)
        self.offset = shape.anchor_offset

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """Around the origin, (len(scales) * len(aspect_ratios), 4)."""
        sides = []
        for size in scales:
            for ratio in aspect_ratios:
                width = (size**2 / ratio) ** 0.5
                sides.append((-width / 2, -width * ratio / 2, width / 2, width * ratio / 2))
        return torch.tensor(sides, dtype=dtype, device=device)

    def grid_anchors(self, grid_sizes: list[list[int]], strides: list[list[Tensor]]) -> list[Tensor]:
        """The anchors of every cell, by level."""
        grids: list[Tensor] = super().grid_anchors(grid_sizes, strides)
        if not self.offset:
            return grids
        return [
            grid + self.offset * torch.stack([across, down, across, down]).to(grid)
            for grid, (down, across) in zip(grids, strides, strict=True)
        ]


class ProposalHead(nn.Module):
    """Objectness and box deltas of every anchor."""

    def __init__(self, channels: int, shape: ProposalShape, anchors: int) -> None:
        super().__init__()
        widths = [channels if width == -1 else width for width in shape.channels]
        layers = [
            NormedConv2d(before, after, 3, relu=True, padding=1)
            for before, after in zip([channels, *widths], widths, strict=False)
        ]
        # A single convolution has no number of its own in detectron2's names.
        self.conv: nn.Module = layers[0]
        if len(layers) > 1:
            self.conv = nn.Sequential()
            for index, layer in enumerate(layers):
                self.conv.add_module(f"conv{index}", layer)
        self.objectness_logits = nn.Conv2d(widths[-1], anchors, 1)
        self.anchor_deltas = nn.Conv2d(widths[-1], 4 * anchors, 1)
        for convolution in (*layers, self.objectness_logits, self.anchor_deltas):
            nn.init.normal_(convolution.weight, std=0.01)
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """By level: logits (N, A, H, W) and deltas (N, 4 A, H, W), float32."""
        logits, deltas = [], []
        for level in features:
            hidden = self.conv(level)
            logits.append(self.objectness_logits(hidden).float())
            deltas.append(self.anchor_deltas(hidden).float())
        return logits, deltas


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's region proposal network under detectron2's name for its head (``rpn_head``)."""

    def __init__(self, architecture: Architecture) -> None:
        shape = architecture.proposals
        anchors = Anchors(shape)
        head = ProposalHead(architecture.pyramid_channels, shape, anchors.num_anchors_per_location()[0])
        super().__init__(
            anchors,
            head,
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 1000, "testing": shape.pre_nms},
            post_nms_top_n={"training": 1000, "testing": shape.post_nms},
            nms_thresh=shape.nms_iou,
        )
        self.rpn_head = head
        del self.head
        self.box_coder = BoxCoder(shape.box_weights)

    @property
    def head(self) -> nn.Module:
        """What torchvision's code calls it."""
        return self.rpn_head
