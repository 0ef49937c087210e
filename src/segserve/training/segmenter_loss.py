"""Losses of the demo SAM: masks with an emphasis on outlines, predicted quality, and a dense training-only helper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAR_WEIGHT = 0.15
NEAR_WEIGHT = 1.0
EDGE_WEIGHT = 3.0
QUALITY_SHARE = 0.5
SIDES_SHARE = 5.0
OUTSIDE = 255
"""Class of the pixels that padding fills."""


@dataclass(frozen=True)
class MaskTargets:
    """What masks should be.

    Attributes:
        masks: (B, P, G, G) float in [0, 1], the covered share of each cell.
        weights: (B, P, G, G) float, how much each cell counts in the cross-entropy.
    """

    masks: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> MaskTargets:
        """The same on a device."""
        return MaskTargets(self.masks.to(device), self.weights.to(device))


@dataclass(frozen=True)
class DenseTargets:
    """What each cell of the mask grid belongs to.

    Attributes:
        classes: (B, G, G) long category index, OUTSIDE in the padding.
        sides: (B, 4, G, G) float, box of the object that owns the cell as shares of the padded square.
        edges: (B, G, G) float, 1 where two objects meet.
    """

    classes: Tensor
    sides: Tensor
    edges: Tensor

    def to(self, device: torch.device) -> DenseTargets:
        """The same on a device."""
        return DenseTargets(self.classes.to(device), self.sides.to(device), self.edges.to(device))


def mask_loss(
    logits: Tensor, scores: Tensor, targets: MaskTargets, *, served_share: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Dice and weighted cross-entropy of the best candidate of each prompt, and the error of all predicted IoUs.

    Only the best of several candidates is taught, as in Segment Anything, so that they learn to differ; or that and
    the one with the highest predicted IoU, which is the one that is served.

    Args:
        logits: (B, P, K, G, G).
        scores: (B, P, K) predicted IoU.
        targets: the truth.
        served_share: weight in [0, 1] of the candidate with the highest predicted IoU; the best one has the rest.

    Returns:
        The loss, and the mean IoU (for reports) of the best candidates, or where ``served_share`` is above 0 of the
        served ones, both scalars.
    """
    logits, scores = logits.float(), scores.float()
    truth = targets.masks[:, :, None].expand_as(logits)
    shape = dice_loss(logits, truth) + weighted_cross_entropy(logits, truth, targets.weights[:, :, None])
    best, choice = shape.min(dim=-1)
    if served_share > 0.0:
        choice = scores.argmax(dim=-1)
        best = torch.lerp(best, shape.gather(-1, choice[..., None])[..., 0], served_share)
    with torch.no_grad():
        overlap = hard_iou(logits, truth)
    quality = F.mse_loss(scores, overlap)
    return best.mean() + QUALITY_SHARE * quality, overlap.gather(-1, choice[..., None]).mean()


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice coefficient of the probabilities over the last two dimensions, in [0, 1] (Milletari et al., 2016)."""
    chance = logits.sigmoid()
    both = (chance * truth).sum((-2, -1))
    return 1.0 - (2.0 * both + 1.0) / (chance.sum((-2, -1)) + truth.sum((-2, -1)) + 1.0)


def weighted_cross_entropy(logits: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Binary cross-entropy averaged over the last two dimensions with weights, which broadcast."""
    error = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (error * weights).sum((-2, -1)) / weights.sum((-2, -1))


def hard_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU of logits > 0 with truth > 0.5 over the last two dimensions; 0 where both are empty."""
    found, real = logits > 0, truth > 0.5
    union = (found | real).sum((-2, -1)).clamp(min=1)
    return (found & real).sum((-2, -1)) / union


class SceneHead(nn.Module):
    """Training-only head that reads category, owner's box and outlines off the image embedding at every mask cell.

    It gives the encoder a dense signal from the first step, long before prompts work, and is thrown away.
    """

    def __init__(self, channels: int, categories: int, hidden: int = 32) -> None:
        super().__init__()
        self.categories = categories
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(channels, hidden, 2, 2),
            nn.GELU(),
            nn.ConvTranspose2d(hidden, categories + 5, 2, 2),
        )

    def forward(self, embeddings: Tensor, targets: DenseTargets) -> Tensor:
        """Scalar loss for (B, C, T, T) embeddings; the targets' grid is 4 T x 4 T."""
        answer = self.layers(embeddings).float()
        classes, sides, edges = answer.split([self.categories, 4, 1], dim=1)
        inside = (targets.classes != OUTSIDE).float()
        count = inside.sum().clamp(min=1.0)
        naming = F.cross_entropy(classes, targets.classes, ignore_index=OUTSIDE, reduction="sum") / count
        framing = ((sides - targets.sides).abs().mean(dim=1) * inside).sum() / count
        outlining = F.binary_cross_entropy_with_logits(edges[:, 0], targets.edges, reduction="none")
        total: Tensor = naming + SIDES_SHARE * framing + torch.sum(outlining * inside) / count
        return total
