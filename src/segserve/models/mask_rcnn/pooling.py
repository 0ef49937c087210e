"""Features of boxes, pooled from the pyramid level that fits each box's size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from segserve.models.mask_rcnn.pyramid import LEVELS, STRIDES

_CANONICAL_SIZE = 224
_CANONICAL_LEVEL = 4
_FIRST, _LAST = 2, 5
"""Boxes are pooled from p2 to p5; p6 is for proposals only."""


class Pooler(nn.Module):
    """RoIAlign (He et al., 2017) on the level that the pyramid's paper assigns.

    Args:
        resolution: of the pooled features, square.
        sampling_ratio: points a bin side; 0: as many as the bin has pixels.
        aligned: pixel centers at half integers.
    """

    def __init__(self, resolution: int, sampling_ratio: int, aligned: bool) -> None:
        super().__init__()
        self.resolution = resolution
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor]) -> Tensor:
        """(sum of N, C, resolution, resolution), picture by picture. boxes: (N, 4) in pixels of the input, each."""
        owned = [torch.cat([torch.full_like(each[:, :1], index), each], dim=1) for index, each in enumerate(boxes)]
        rois = torch.cat(owned)
        levels = level_of(rois[:, 1:])
        # In float32: RoIAlign has no bfloat16, and coordinates need the precision.
        first = features[LEVELS[0]]
        pooled = first.new_zeros((len(rois), first.shape[1], self.resolution, self.resolution), dtype=torch.float32)
        for number, name, stride in zip(range(_FIRST, _LAST + 1), LEVELS, STRIDES, strict=False):
            chosen = torch.where(levels == number)[0]
            if len(chosen):
                pooled[chosen] = roi_align(
                    features[name].float(),
                    rois[chosen],
                    self.resolution,
                    1.0 / stride,
                    self.sampling_ratio if self.sampling_ratio > 0 else -1,
                    self.aligned,
                )
        return pooled


def level_of(boxes: Tensor) -> Tensor:
    """The pyramid level of each box, 2 to 5: that of 224 pixels is 4. boxes: (N, 4). Returns (N,)."""
    sizes = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    levels = torch.floor(_CANONICAL_LEVEL + torch.log2(sizes / _CANONICAL_SIZE + 1e-8))
    return levels.clamp(_FIRST, _LAST).long()
