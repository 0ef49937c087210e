"""Mask R-CNN with a feature pyramid (He et al., 2017): one network for detectron2's weights and for segserve's own.

Its parts and their names are detectron2's, so that a checkpoint's tensors fit as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from segserve.models.mask_rcnn.architecture import Architecture
from segserve.models.mask_rcnn.heads import Detected, Limits, RegionHeads, Target
from segserve.models.mask_rcnn.proposals import ProposalNetwork
from segserve.models.mask_rcnn.pyramid import FeaturePyramid

Size = tuple[int, int]
"""Height and width in pixels."""


def in_channels_last(network: MaskRcnnNetwork) -> MaskRcnnNetwork:
    """The same network, its convolutions' weights laid out with the channels last, which halves their time."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class MaskRcnnNetwork(nn.Module):
    """The network on normalized, padded pictures.

    Args:
        architecture: its shape; new weights are random.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = FeaturePyramid(architecture)
        self.proposal_generator = ProposalNetwork(architecture)
        self.roi_heads = RegionHeads(architecture)

    def forward(self, images: Tensor, sizes: list[Size], targets: list[Target]) -> dict[str, Tensor]:
        """The five losses of a training step, by name, each a scalar.

        Args:
            images: (N, 3, H, W), normalized; H and W are multiples of 32, padding is 0.
            sizes: of each picture without its padding.
            targets: the truth, boxes and masks in pixels of the input.
        """
        features = self.backbone(images)
        proposals, found = self.proposal_generator(ImageList(images, sizes), features, targets)
        losses = {"objectness": found["loss_objectness"], "proposal": found["loss_rpn_box_reg"]}
        return losses | self.roi_heads.losses(features, proposals, targets)

    @torch.inference_mode()
    def detect(self, images: Tensor, sizes: list[Size], limits: list[Limits]) -> list[Detected]:
        """The instances of each picture, in pixels of the input. images, sizes: as forward's."""
        features = self.backbone(images)
        proposals, _ = self.proposal_generator(ImageList(images, sizes), features)
        return self.roi_heads.detect(features, proposals, sizes, limits)
