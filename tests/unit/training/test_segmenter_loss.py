"""The demo SAM's losses on masks small enough to draw by hand."""

import math

import pytest
import torch

from segserve.training.segmenter_loss import (
    OUTSIDE,
    DenseTargets,
    MaskTargets,
    SceneHead,
    dice_loss,
    hard_iou,
    mask_loss,
    weighted_cross_entropy,
)


def drawn(*rows: str) -> torch.Tensor:
    """(H, W) of 0 and 1 from a drawing in dots and hashes."""
    return torch.tensor([[1.0 if cell == "#" else 0.0 for cell in row] for row in rows])


TRUTH = drawn("....", ".##.", ".##.", "....")
SURE = 12.0


def logits_of(mask: torch.Tensor) -> torch.Tensor:
    return SURE * (2.0 * mask - 1.0)


def targets_of(mask: torch.Tensor, weights: torch.Tensor | None = None) -> MaskTargets:
    return MaskTargets(mask[None, None], torch.ones_like(mask)[None, None] if weights is None else weights[None, None])


WRONG = {
    "one cell missing": drawn("....", ".##.", ".#..", "...."),
    "one cell too many": drawn("....", ".##.", ".###", "...."),
    "shifted": drawn("....", "..##", "..##", "...."),
    "everything": drawn("####", "####", "####", "####"),
    "nothing": drawn("....", "....", "....", "...."),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_right_mask_costs_less_than_any_wrong_one(name: str) -> None:
    scores = torch.ones(1, 1, 1)
    right, _ = mask_loss(logits_of(TRUTH)[None, None, None], scores, targets_of(TRUTH))
    wrong, _ = mask_loss(logits_of(WRONG[name])[None, None, None], scores, targets_of(TRUTH))
    assert right < 0.01
    assert wrong > right + 0.1


@pytest.mark.parametrize(
    ("mask", "iou"),
    [
        ("one cell missing", 3 / 4),
        ("one cell too many", 4 / 5),
        ("shifted", 2 / 6),
        ("everything", 4 / 16),
        ("nothing", 0),
    ],
)
def test_hard_iou(mask: str, iou: float) -> None:
    assert hard_iou(logits_of(WRONG[mask]), TRUTH).item() == pytest.approx(iou)


def test_hard_iou_of_two_empty_masks_is_zero() -> None:
    assert hard_iou(logits_of(WRONG["nothing"]), WRONG["nothing"]).item() == 0.0


def test_dice_follows_its_formula() -> None:
    assert dice_loss(logits_of(WRONG["shifted"]), TRUTH).item() == pytest.approx(
        1 - (2 * 2 + 1) / (4 + 4 + 1), abs=1e-3
    )


def test_cross_entropy_is_a_weighted_mean() -> None:
    logits, truth = torch.tensor([[0.0, -SURE]]), torch.tensor([[1.0, 1.0]])
    costs = [math.log(2.0), math.log1p(math.exp(SURE))]
    found = weighted_cross_entropy(logits, truth, torch.tensor([[3.0, 1.0]])).item()
    assert found == pytest.approx((3 * costs[0] + costs[1]) / 4, rel=1e-5)


def test_a_mistake_costs_more_where_the_weight_is_larger() -> None:
    weights = torch.ones(4, 4)
    weights[2, 2] = 4.0
    mistaken = {
        "heavy": logits_of(drawn("....", ".##.", ".#..", "....")),
        "light": logits_of(drawn("....", ".##.", "..#.", "....")),
    }
    costs = {
        name: mask_loss(logits[None, None, None], torch.ones(1, 1, 1), targets_of(TRUTH, weights))[0].item()
        for name, logits in mistaken.items()
    }
    assert costs["heavy"] > 2 * costs["light"] > 0


def test_only_the_best_candidate_is_taught() -> None:
    candidates = torch.stack(
        [logits_of(TRUTH) / 4, logits_of(WRONG["everything"]) / 4, logits_of(WRONG["nothing"]) / 4]
    )
    logits = candidates[None, None].requires_grad_()
    loss, overlap = mask_loss(logits, torch.ones(1, 1, 3), targets_of(TRUTH))
    loss.backward()
    assert logits.grad is not None
    moved = logits.grad[0, 0].abs().sum((-2, -1))
    assert moved[0] > 0
    assert moved[1:].tolist() == [0.0, 0.0]
    assert overlap.item() == 1.0


def test_the_served_candidate_is_taught_too_where_it_is_asked_for() -> None:
    candidates = torch.stack(
        [logits_of(TRUTH) / 4, logits_of(WRONG["everything"]) / 4, logits_of(WRONG["nothing"]) / 4]
    )
    logits = candidates[None, None].requires_grad_()
    scores = torch.tensor([[[0.5, 0.9, 0.1]]])
    loss, overlap = mask_loss(logits, scores, targets_of(TRUTH), served_share=0.3)
    loss.backward()
    assert logits.grad is not None
    moved = logits.grad[0, 0].abs().sum((-2, -1))
    assert moved[0] > 0 and moved[1] > 0
    assert moved[2] == 0
    assert overlap.item() < 1.0  # of the served candidate, not of the best one


def test_predicted_quality_is_pulled_to_the_real_overlap() -> None:
    scores = torch.tensor([[[0.2]]], requires_grad=True)
    loss, _ = mask_loss(logits_of(WRONG["one cell missing"])[None, None, None], scores, targets_of(TRUTH))
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.item() == pytest.approx(0.5 * 2 * (0.2 - 0.75), rel=1e-4)


def test_the_scene_head_ignores_padding() -> None:
    torch.manual_seed(0)
    head, embeddings = SceneHead(8, 3), torch.randn(1, 8, 2, 2)
    classes = torch.zeros(1, 8, 8, dtype=torch.long)
    classes[:, 4:] = OUTSIDE
    sides, edges = torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 8)
    clean = head(embeddings, DenseTargets(classes, sides, edges))
    soiled_sides, soiled_edges = sides.clone(), edges.clone()
    soiled_sides[:, :, 4:] = 7.0
    soiled_edges[:, 4:] = 1.0
    assert torch.equal(clean, head(embeddings, DenseTargets(classes, soiled_sides, soiled_edges)))
    inner = edges.clone()
    inner[:, :4] = 1.0
    assert not torch.equal(clean, head(embeddings, DenseTargets(classes, sides, inner)))


def test_the_scene_head_learns_its_targets() -> None:
    torch.manual_seed(0)
    head, embeddings = SceneHead(8, 2), torch.randn(1, 8, 2, 2)
    targets = DenseTargets(
        torch.randint(0, 2, (1, 8, 8)), torch.rand(1, 4, 8, 8), torch.randint(0, 2, (1, 8, 8)).float()
    )
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = head(embeddings, targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]
