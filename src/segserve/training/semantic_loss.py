"""The loss of the demo semantic model: cross-entropy and the overlap of classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def semantic_loss(logits: Tensor, labels: Tensor, ignored: int) -> dict[str, Tensor]:
    """Loss terms by name, float32.

    ``"pixels"`` is the cross-entropy. ``"overlap"`` is 1 - IoU with probabilities in place of decisions, over the
    batch and then over the classes in it (Rahman and Wang, 2016): to it a thin lamp counts as much as a wall.

    Args:
        logits: (B, C, h, w); scaled to the labels' size as the predictor scales them to the picture's.
        labels: (B, H, W) int64 class indices.
        ignored: the label of pixels that do not count.
    """
    scaled = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=False)
    logarithms = scaled.log_softmax(dim=1)
    pixels = F.nll_loss(logarithms, labels, ignore_index=ignored)
    counted = labels != ignored
    probabilities = logarithms.exp() * counted.unsqueeze(1)
    indices = labels.where(counted, 0)
    classes = logits.shape[1]
    # What the right class has at every pixel, summed by class: a one-hot target of C planes is never made.
    right = probabilities.gather(1, indices.unsqueeze(1)).flatten()
    intersection = right.new_zeros(classes).scatter_add(0, indices.flatten(), right)
    truth = right.new_zeros(classes).scatter_add(0, indices.flatten(), counted.flatten().to(right.dtype))
    union = probabilities.sum(dim=(0, 2, 3)) + truth - intersection
    present = truth > 0
    overlap = 1.0 - (intersection / union.clamp(min=1e-6))[present]
    return {"pixels": pixels, "overlap": overlap.mean() if bool(present.any()) else torch.zeros_like(pixels)}
