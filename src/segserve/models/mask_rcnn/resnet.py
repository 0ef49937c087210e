"""ResNet and ResNeXt of any width (He et al., 2016; Xie et al., 2017), with detectron2's names."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from segserve.errors import InvalidRequestError
from segserve.models.mask_rcnn.architecture import ResNetShape
from segserve.models.mask_rcnn.convolution import NormedConv2d

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of each stage by depth."""

_BASIC = (18, 34)

_convolution = partial(NormedConv2d, bias=False)
"""Without a bias even where there is no norm, as detectron2 has it."""


class Stem(nn.Module):
    """7 x 7 convolution and pooling: (N, 3, H, W) to (N, C, H / 4, W / 4)."""

    def __init__(self, shape: ResNetShape) -> None:
        super().__init__()
        self.conv1 = _convolution(3, shape.stem_channels, 7, shape.norm, True, stride=2, padding=3)

    def forward(self, images: Tensor) -> Tensor:
        """The first features."""
        return F.max_pool2d(self.conv1(images), 3, stride=2, padding=1)


class Block(nn.Module):
    """A residual block: two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1 (a bottleneck)."""

    def __init__(self, channels_in: int, channels_out: int, width: int, stride: int, shape: ResNetShape) -> None:
        super().__init__()
        norm = shape.norm
        self.bottleneck = shape.depth not in _BASIC
        dilation = shape.res5_dilation if channels_out == 8 * shape.res2_channels else 1
        if channels_in != channels_out:
            self.shortcut: nn.Module | None = _convolution(channels_in, channels_out, 1, norm, stride=stride)
        else:
            self.shortcut = None
        if not self.bottleneck:
            self.conv1 = _convolution(channels_in, channels_out, 3, norm, True, stride=stride, padding=1)
            self.conv2 = _convolution(channels_out, channels_out, 3, norm, padding=1)
            return
        first, second = (stride, 1) if shape.stride_in_1x1 else (1, stride)
        self.conv1 = _convolution(channels_in, width, 1, norm, True, stride=first)
        self.conv2 = _convolution(
            width, width, 3, norm, True, stride=second, padding=dilation, dilation=dilation, groups=shape.groups
        )
        self.conv3 = _convolution(width, channels_out, 1, norm)

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels_out, H / stride, W / stride)."""
        residual = features if self.shortcut is None else self.shortcut(features)
        features = self.conv2(self.conv1(features))
        if self.bottleneck:
            features = self.conv3(features)
        return F.relu(features + residual)


class ResNet(nn.Module):
    """The backbone.

    Attributes:
        channels: of the features that forward returns.

    Raises:
        InvalidRequestError: an unknown depth.
    """

    def __init__(self, shape: ResNetShape) -> None:
        super().__init__()
        if shape.depth not in BLOCKS:
            raise InvalidRequestError(f"depth: expected one of {', '.join(map(str, BLOCKS))}, came {shape.depth}.")
        self.stem = Stem(shape)
        channels, width = shape.stem_channels, shape.groups * shape.width_per_group
        self.channels: list[int] = []
        for index, count in enumerate(BLOCKS[shape.depth]):
            out = shape.res2_channels * 2**index
            stride = 1 if index == 0 or (index == 3 and shape.res5_dilation == 2) else 2
            blocks = []
            for position in range(count):
                blocks.append(Block(channels, out, width * 2**index, stride if position == 0 else 1, shape))
                channels = out
            self.add_module(f"res{index + 2}", nn.Sequential(*blocks))
            self.channels.append(out)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of strides 4, 8, 16 and 32. images: (N, 3, H, W)."""
        features = self.stem(images)
        found = []
        for number in (2, 3, 4, 5):
            features = getattr(self, f"res{number}")(features)
            found.append(features)
        return found
