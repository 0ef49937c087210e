"""The feature pyramid (Lin et al., 2017): every level as rich as the last, at its own resolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from segserve.models.mask_rcnn.architecture import Architecture, ResNetShape
from segserve.models.mask_rcnn.convolution import NormedConv2d
from segserve.models.mask_rcnn.mobilenet import MobileNet
from segserve.models.mask_rcnn.resnet import ResNet

LEVELS = ("p2", "p3", "p4", "p5", "p6")
STRIDES = (4, 8, 16, 32, 64)
DIVISIBILITY = 32
"""Pictures are padded to multiples of it, so that each level is exactly twice the next."""

_STAGES = (2, 3, 4, 5)


class FeaturePyramid(nn.Module):
    """Backbone and pyramid."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        backbone = architecture.backbone
        self.bottom_up = ResNet(backbone) if isinstance(backbone, ResNetShape) else MobileNet()
        channels, norm = architecture.pyramid_channels, architecture.pyramid_norm
        for stage, channels_in in zip(_STAGES, self.bottom_up.channels, strict=True):
            self.add_module(f"fpn_lateral{stage}", NormedConv2d(channels_in, channels, 1, norm))
            self.add_module(f"fpn_output{stage}", NormedConv2d(channels, channels, 3, norm, padding=1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features by level. images: (N, 3, H, W), H and W multiples of DIVISIBILITY."""
        found: dict[str, Tensor] = {}
        above: Tensor | None = None
        for stage, features in reversed(list(zip(_STAGES, self.bottom_up(images), strict=True))):
            level = getattr(self, f"fpn_lateral{stage}")(features)
            if above is not None:
                level = level + F.interpolate(above, size=level.shape[-2:], mode="nearest")
            found[f"p{stage}"] = getattr(self, f"fpn_output{stage}")(level)
            above = level
        found["p6"] = F.max_pool2d(found["p5"], kernel_size=1, stride=2)
        return {name: found[name] for name in LEVELS}
