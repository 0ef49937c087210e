"""Convolutions with their normalization as a child, which is how detectron2 names them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from segserve.models.mask_rcnn.architecture import Norm

_EPS = 1e-5
_GROUPS = 32


class ChannelNorm(nn.Module):
    """Layer norm over the channels at every position. Input and output: (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """The features, normalized."""
        channels = features.shape[1:2]
        return F.layer_norm(features.permute(0, 2, 3, 1), channels, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


def make_norm(kind: Norm, channels: int) -> nn.Module | None:
    """The normalization of that kind; None for none."""
    if kind == "BN":
        return nn.BatchNorm2d(channels, eps=_EPS)
    if kind == "FrozenBN":
        fixed: nn.Module = FrozenBatchNorm2d(channels, eps=_EPS)
        return fixed
    if kind == "GN":
        return nn.GroupNorm(_GROUPS, channels)
    if kind == "LN":
        return ChannelNorm(channels)
    return None


class NormedConv2d(nn.Conv2d):
    """A convolution, its normalization (with which it needs no bias), and a ReLU where asked for."""

    def __init__(
        self, channels_in: int, channels_out: int, size: int, norm: Norm = "", relu: bool = False, **options: Any
    ) -> None:
        super().__init__(channels_in, channels_out, size, **{"bias": not norm, **options})
        self.norm = make_norm(norm, channels_out)
        self.relu = relu
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve, normalize, rectify."""
        features = super().forward(input)
        if self.norm is not None:
            features = self.norm(features)
        return F.relu(features) if self.relu else features
