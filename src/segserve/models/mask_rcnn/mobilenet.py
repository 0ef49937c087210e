"""MobileNetV3-Large (Howard et al., 2019) as a backbone: torchvision's layers up to the last block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large

_ENDS = (3, 6, 12, 15)
"""The last layers of strides 4, 8, 16 and 32; what torchvision has after them is for classification."""


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel by itself; on a CPU always in float32.

    There the gradient of bfloat16 takes five times as long (torch 2.11).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        if input.device.type != "cpu":
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


class MobileNet(nn.Module):
    """The backbone. channels: of the features that forward returns."""

    channels = (24, 40, 112, 160)

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*mobilenet_v3_large(weights=None).features[: _ENDS[-1] + 1])
        for module in self.features.modules():
            for name, layer in module.named_children():
                if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                    setattr(module, name, _depthwise(layer))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of strides 4, 8, 16 and 32. images: (N, 3, H, W)."""
        features = images
        found = []
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index in _ENDS:
                found.append(features)
        return found


def _depthwise(layer: nn.Conv2d) -> DepthwiseConv2d:
    """The same convolution with the same weights."""
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    shape: dict[str, Any] = {name: getattr(layer, name) for name in names}
    own = DepthwiseConv2d(bias=layer.bias is not None, **shape)
    own.load_state_dict(layer.state_dict())
    return own
