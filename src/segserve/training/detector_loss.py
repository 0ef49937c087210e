"""The loss that trains the demo Grounding DINO.

transformers has one behind ``labels=``, but it assigns tokens across the pictures of a batch wrongly and leaves the
encoder's heads without a gradient, hence this one. Parts: DETR's set loss with token-wise focal classification on
every decoder layer (Carion et al. 2020; Lin et al. 2017; Rezatofighi et al. 2019 for GIoU; Liu et al. 2023 for the
tokens), the same on the encoder's proposals with several proposals a target, and helper heads that exist only in
training (``DenseHelper``).

Letters in shapes: B pictures, L decoder layers, N predictions, G targets (padded), T tokens (padded), S grid cells,
D features. Boxes are (center x, center y, width, height) as shares of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

CLASS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
PROPOSALS_PER_TARGET = 4
HIDDEN_TOKEN_LOGIT = -30.0
UNMATCHED = -1
OUTSIDE_COST, FORBIDDEN_COST, ACCEPTED_COST = 50.0, 1e6, 1e3


@dataclass(frozen=True)
class DetectionTargets:
    """What the pictures of a batch hold, padded to the same number of objects.

    Attributes:
        boxes: (B, G, 4) float.
        tokens: (B, G, T) float, 1 at the tokens of every phrase that the object satisfies.
        valid: (B, G) bool, False for padding.
        token_weight: (B, T) float, 0 at padding, 1 at most tokens, more at those of phrases hard to keep silent on.
        cell_category: (B, S) long, category of each cell of the finest grid.
        cell_color: (B, S) long, color index of the object there, ``UNMATCHED`` where it has no named color.
        cell_tokens: (B, S, T) float, tokens of the phrases that the object there satisfies.
    """

    boxes: Tensor
    tokens: Tensor
    valid: Tensor
    token_weight: Tensor
    cell_category: Tensor
    cell_color: Tensor
    cell_tokens: Tensor

    def to(self, device: torch.device | str) -> DetectionTargets:
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def repeated(self, times: int) -> DetectionTargets:
        """The batch ``times`` times over, picture by picture: for predictions flattened from (B, times, ...)."""
        return replace(
            self, **{field.name: getattr(self, field.name).repeat_interleave(times, dim=0) for field in fields(self)}
        )


@dataclass(frozen=True)
class SetLoss:
    """The three terms of a set loss, before weighting."""

    classes: Tensor
    l1: Tensor
    giou: Tensor

    def total(self) -> Tensor:
        return CLASS_WEIGHT * self.classes + L1_WEIGHT * self.l1 + GIOU_WEIGHT * self.giou


def to_corners(boxes: Tensor) -> Tensor:
    """(..., 4) center and size to (..., 4) corners x0, y0, x1, y1."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """GIoU in (-1, 1] of boxes given by corners; the leading dimensions broadcast."""
    overlap = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(0)
    hull = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    intersection, hull_area = overlap.prod(-1), hull.prod(-1) + 1e-7
    union = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - intersection
    return intersection / (union + 1e-7) - (hull_area - union) / hull_area


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Element-wise sigmoid focal loss, the shape of ``logits``; targets are 0 or 1."""
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    missing = targets + probability - 2 * probability * targets
    balance = FOCAL_ALPHA * targets + (1 - FOCAL_ALPHA) * (1 - targets)
    return balance * entropy * missing**FOCAL_GAMMA


@torch.no_grad()
def matching_cost(logits: Tensor, boxes: Tensor, targets: DetectionTargets) -> Tensor:
    """(B, N, G) cost of giving prediction n to target g; ``FORBIDDEN_COST`` at padded targets.

    A phrase's class cost is the mean over its tokens, so that long phrases weigh as much as short ones.
    """
    probability = logits.sigmoid()
    miss = FOCAL_ALPHA * (1 - probability) ** FOCAL_GAMMA * -(probability + 1e-8).log()
    alarm = (1 - FOCAL_ALPHA) * probability**FOCAL_GAMMA * -(1 - probability + 1e-8).log()
    share = targets.tokens / targets.tokens.sum(-1, keepdim=True).clamp(min=1)
    class_cost = (miss - alarm) @ share.transpose(1, 2)
    l1_cost = (boxes[:, :, None] - targets.boxes[:, None]).abs().sum(-1)
    giou_cost = -generalized_iou(to_corners(boxes)[:, :, None], to_corners(targets.boxes)[:, None])
    cost = CLASS_WEIGHT * class_cost + L1_WEIGHT * l1_cost + GIOU_WEIGHT * giou_cost
    return cost.masked_fill(~targets.valid[:, None], FORBIDDEN_COST)


def match_one_to_one(cost: Tensor, valid: Tensor) -> Tensor:
    """(B, N) index of the target of each prediction or ``UNMATCHED``; each valid target is given exactly once."""
    assignment = torch.full(cost.shape[:2], UNMATCHED, dtype=torch.long)
    for row, (costs, count) in enumerate(zip(cost.cpu().numpy(), valid.sum(1).tolist(), strict=True)):
        predictions, chosen = linear_sum_assignment(costs[:, :count])
        assignment[row, torch.as_tensor(predictions)] = torch.as_tensor(chosen)
    return assignment.to(cost.device)


def match_proposals(cost: Tensor, centers: Tensor, usable: Tensor, targets: DetectionTargets) -> Tensor:
    """(B, N) target of each encoder proposal or ``UNMATCHED``: the few cheapest ones of each target.

    Those whose cell lies in the target's box come first; only a target with too few of them takes neighbors.

    Args:
        cost: (B, N, G) of ``matching_cost``.
        centers: (N, 2) centers of the grid cells that the proposals start from.
        usable: (B, N) bool, False at proposals that transformers masks out (cells at the very border).
        targets: the batch's targets.
    """
    corners = to_corners(targets.boxes)[:, None]
    points = centers[None, :, None]
    inside = ((points > corners[..., :2]) & (points < corners[..., 2:])).all(-1)
    cost = cost + OUTSIDE_COST * ~inside + FORBIDDEN_COST * ~usable[:, :, None]
    cheapest = cost.topk(min(PROPOSALS_PER_TARGET, cost.shape[1]), dim=1, largest=False).indices
    shortlist = torch.full_like(cost, FORBIDDEN_COST).scatter(1, cheapest, cost.gather(1, cheapest))
    best = shortlist.min(dim=-1)
    return torch.where(best.values < ACCEPTED_COST, best.indices, UNMATCHED)


def set_loss(
    logits: Tensor, boxes: Tensor, assignment: Tensor, targets: DetectionTargets, normalizer: float
) -> SetLoss:
    """Loss of predictions whose targets are chosen.

    Args:
        logits: (B, N, T), boxes: (B, N, 4), assignment: (B, N) of indices into G or ``UNMATCHED``.
        targets: what there is to find.
        normalizer: number of objects that all three sums are divided by.
    """
    matched = assignment != UNMATCHED
    index = assignment.clamp(min=0)
    wanted = targets.tokens.gather(1, index[..., None].expand(-1, -1, targets.tokens.shape[-1])) * matched[..., None]
    classes = (focal_loss(logits, wanted) * targets.token_weight[:, None]).sum() / normalizer
    found = boxes[matched]
    true = targets.boxes.gather(1, index[..., None].expand(-1, -1, 4))[matched]
    l1 = (found - true).abs().sum() / normalizer
    giou = (1 - generalized_iou(to_corners(found), to_corners(true))).sum() / normalizer
    return SetLoss(classes, l1, giou)


def token_logits(features: Tensor, text: Tensor, attention_mask: Tensor) -> Tensor:
    """(B, ..., T) similarity of (B, ..., D) features with (B, T, D) tokens; padding gets a large negative number."""
    flat = features.flatten(1, -2) @ text.transpose(1, 2)
    flat = flat.masked_fill(~attention_mask.bool()[:, None], HIDDEN_TOKEN_LOGIT)
    return flat.view(*features.shape[:-1], text.shape[1])


def decoder_loss(logits: Tensor, boxes: Tensor, targets: DetectionTargets) -> SetLoss:
    """Sum over the decoder's layers of the one-to-one set loss: logits (B, L, N, T), boxes (B, L, N, 4)."""
    objects = max(1.0, float(targets.valid.sum()))
    every = targets.repeated(logits.shape[1])
    flat_logits, flat_boxes = logits.flatten(0, 1), boxes.flatten(0, 1)
    assignment = match_one_to_one(matching_cost(flat_logits.detach(), flat_boxes.detach(), every), every.valid)
    return set_loss(flat_logits, flat_boxes, assignment, every, objects)


def proposal_loss(logits: Tensor, boxes: Tensor, centers: Tensor, usable: Tensor, targets: DetectionTargets) -> SetLoss:
    """Set loss of the encoder's proposals: logits (B, N, T), boxes (B, N, 4), see ``match_proposals``."""
    cost = matching_cost(logits.detach(), boxes.detach(), targets)
    assignment = match_proposals(cost, centers, usable, targets)
    return set_loss(logits, boxes, assignment, targets, max(1.0, float((assignment != UNMATCHED).sum())))


class DenseHelper(nn.Module):
    """Heads thrown away after training that tell every cell of the finest grid what it shows.

    A set loss gives a handful of gradients a picture, and none that separates a color from a category. These heads
    ask each cell for both, of the backbone's features and of the encoder's, and for the tokens that name it.
    """

    def __init__(self, width: int, categories: int, colors: int) -> None:
        super().__init__()
        self.categories = nn.ModuleList(nn.Linear(width, categories) for _ in range(2))
        self.colors = nn.ModuleList(nn.Linear(width, colors) for _ in range(2))
        self.grounding = nn.Linear(width, width)
        with torch.no_grad():  # start with low scores; channel 0 is the detector's constant one
            self.grounding.weight.mul_(0.1)
            self.grounding.weight[0] = 0.0
            self.grounding.bias[0] = 1.0

    def forward(
        self, backbone: Tensor, encoder: Tensor, text: Tensor, attention_mask: Tensor, targets: DetectionTargets
    ) -> dict[str, Tensor]:
        """Loss terms by name, of (B, S, D) backbone and encoder features and (B, T, D) text features."""
        category = color = encoder.new_zeros(())
        for head, color_head, features in zip(self.categories, self.colors, (backbone, encoder), strict=True):
            category = category + F.cross_entropy(head(features).flatten(0, 1), targets.cell_category.flatten())
            color = color + _color_entropy(color_head(features), targets.cell_color)
        logits = token_logits(self.grounding(encoder), text, attention_mask)
        cells = max(1.0, float(targets.cell_tokens.any(-1).sum()))
        tokens = (focal_loss(logits, targets.cell_tokens) * targets.token_weight[:, None]).sum() / cells
        return {"cell_category": category, "cell_color": color, "cell_tokens": CLASS_WEIGHT * tokens}


def _color_entropy(logits: Tensor, colors: Tensor) -> Tensor:
    """Cross entropy over the cells whose object has a named color; zero (with a gradient) where there is none."""
    named = max(1.0, float((colors != UNMATCHED).sum()))
    return F.cross_entropy(logits.flatten(0, 1), colors.flatten(), ignore_index=UNMATCHED, reduction="sum") / named
