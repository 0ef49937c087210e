"""The detector's loss on cases small enough to do by hand, and against torchvision's own functions."""

import dataclasses

import pytest
import torch
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from segserve.training.detector_loss import (
    UNMATCHED,
    DenseHelper,
    DetectionTargets,
    decoder_loss,
    focal_loss,
    generalized_iou,
    match_one_to_one,
    match_proposals,
    matching_cost,
    proposal_loss,
    to_corners,
    token_logits,
)

# One picture, a prompt of six tokens ([CLS] red chair . floor .): a red chair and the floor. A second one: empty.
BOXES = torch.tensor([[[0.3, 0.3, 0.2, 0.4], [0.5, 0.8, 1.0, 0.4]], [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]])
TOKENS = torch.tensor(
    [[[0.0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]], [[0.0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]],
)
VALID = torch.tensor([[True, True], [False, False]])


def targets() -> DetectionTargets:
    return DetectionTargets(
        boxes=BOXES,
        tokens=TOKENS,
        valid=VALID,
        token_weight=torch.ones(2, 6),
        cell_category=torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]]),
        cell_color=torch.tensor([[2, UNMATCHED, UNMATCHED, 1], [UNMATCHED] * 4]),
        cell_tokens=torch.zeros(2, 4, 6),
    )


def perfect(queries: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, N, 6) and boxes (2, N, 4) that answer the targets: queries 3 and 1 hold the chair and the floor."""
    logits, boxes = torch.full((2, queries, 6), -8.0), torch.full((2, queries, 4), 0.5)
    for query, target in ((3, 0), (1, 1)):
        logits[0, query] = torch.where(TOKENS[0, target] > 0, 8.0, -8.0)
        boxes[0, query] = BOXES[0, target]
    return logits, boxes


def test_giou_agrees_with_torchvision() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (to_corners(torch.rand(7, 4, generator=generator) + 0.01) for _ in range(2))
    torch.testing.assert_close(
        generalized_iou(first[:, None], second[None]), generalized_box_iou(first, second), atol=1e-4, rtol=1e-4
    )


def test_focal_loss_agrees_with_torchvision() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 9, generator=generator) * 4
    truth = (torch.rand(4, 9, generator=generator) > 0.5).float()
    torch.testing.assert_close(focal_loss(logits, truth), sigmoid_focal_loss(logits, truth))


def test_each_target_is_given_to_the_query_that_answers_it() -> None:
    logits, boxes = perfect()
    assignment = match_one_to_one(matching_cost(logits, boxes, targets()), VALID)
    assert assignment.tolist() == [[UNMATCHED, 1, UNMATCHED, 0, UNMATCHED], [UNMATCHED] * 5]


def test_a_perfect_answer_costs_next_to_nothing() -> None:
    logits, boxes = perfect()
    loss = decoder_loss(logits[:, None], boxes[:, None], targets())
    assert loss.total().item() < 1e-3


@pytest.mark.parametrize(
    ("change", "term"),
    [
        (lambda logits, boxes: boxes[0, 3].add_(torch.tensor([0.2, 0, 0, 0])), "l1"),
        (lambda logits, boxes: boxes[0, 3].add_(torch.tensor([0, 0, 0.2, 0.2])), "giou"),
        (lambda logits, boxes: logits[0, 3, 1].fill_(-8.0), "classes"),  # "red" missed, "chair" found
        (lambda logits, boxes: logits[0, 0, 4].fill_(8.0), "classes"),  # a second, empty answer to "floor"
        (lambda logits, boxes: logits[1, 2, 1].fill_(8.0), "classes"),  # an answer in the picture that has none
    ],
)
def test_each_mistake_costs_in_its_own_term(change, term) -> None:  # type: ignore[no-untyped-def]
    logits, boxes = perfect()
    right = decoder_loss(logits[:, None], boxes[:, None], targets())
    change(logits, boxes)
    wrong = decoder_loss(logits[:, None], boxes[:, None], targets())
    assert getattr(wrong, term).item() > getattr(right, term).item() + 0.05
    assert wrong.total().item() > right.total().item() + 0.1


def test_the_order_of_queries_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(3)
    logits, boxes = torch.randn(2, 1, 6, 6, generator=generator), torch.rand(2, 1, 6, 4, generator=generator)
    order = torch.randperm(6, generator=generator)
    before = decoder_loss(logits, boxes, targets()).total()
    torch.testing.assert_close(decoder_loss(logits[:, :, order], boxes[:, :, order], targets()).total(), before)


def test_layers_add_up() -> None:
    generator = torch.Generator().manual_seed(3)
    logits, boxes = torch.randn(2, 3, 6, 6, generator=generator), torch.rand(2, 3, 6, 4, generator=generator)
    layers = [decoder_loss(logits[:, [i]], boxes[:, [i]], targets()).total() for i in range(3)]
    torch.testing.assert_close(decoder_loss(logits, boxes, targets()).total(), torch.stack(layers).sum())


def test_padding_tokens_and_padding_objects_cost_nothing() -> None:
    logits, boxes = perfect()
    masked = dataclasses.replace(targets(), token_weight=torch.tensor([[1.0, 1, 1, 1, 1, 0]] * 2))
    before = decoder_loss(logits[:, None], boxes[:, None], masked).total()
    logits[..., 5] = 8.0
    masked.boxes[1] = 0.9
    torch.testing.assert_close(decoder_loss(logits[:, None], boxes[:, None], masked).total(), before)


def test_a_false_answer_to_a_weighted_token_costs_as_many_times_more() -> None:
    logits, boxes = perfect()
    logits[1, 0, 2] = 3.0
    plain = decoder_loss(logits[:, None], boxes[:, None], targets()).classes
    heavy = targets()
    heavy.token_weight[1, 2] = 3.0
    assert decoder_loss(logits[:, None], boxes[:, None], heavy).classes.item() == pytest.approx(
        3 * plain.item(), rel=1e-3
    )


def test_proposals_inside_their_target_come_first() -> None:
    inside = torch.stack([torch.linspace(0.22, 0.38, 5), torch.full((5,), 0.3)], dim=-1)  # all in the chair
    centers = torch.cat([inside, torch.tensor([[0.45, 0.3], [0.5, 0.8]])])
    boxes = torch.cat([centers, torch.full((7, 2), 0.3)], dim=-1).repeat(2, 1, 1)
    boxes[0, 5] = BOXES[0, 0]  # the best box of all for the chair, from a cell beside it
    one = dataclasses.replace(targets(), valid=torch.tensor([[True, False], [False, False]]))
    cost = matching_cost(torch.zeros(2, 7, 6), boxes, one)
    matched = match_proposals(cost, centers, torch.ones(2, 7, dtype=torch.bool), one)
    assert (matched[0, :5] == 0).sum() == 4
    assert matched[0, 5:].tolist() == [UNMATCHED, UNMATCHED]
    assert matched[1].tolist() == [UNMATCHED] * 7


def test_a_proposal_that_the_model_masks_out_is_never_matched() -> None:
    centers = torch.tensor([[0.3, 0.3], [0.31, 0.4], [0.5, 0.8]])
    boxes = torch.cat([centers, torch.full((3, 2), 0.3)], dim=-1).expand(2, -1, -1)
    usable = torch.tensor([[True, False, True]] * 2)
    cost = matching_cost(torch.zeros(2, 3, 6), boxes, targets())
    assert match_proposals(cost, centers, usable, targets())[0].tolist() == [0, UNMATCHED, 1]


def test_proposal_loss_falls_when_the_proposals_in_the_middle_are_right() -> None:
    centers = torch.tensor([[0.3, 0.3], [0.5, 0.8]])
    usable = torch.ones(2, 2, dtype=torch.bool)
    boxes = torch.cat([centers, torch.full((2, 2), 0.1)], dim=-1).repeat(2, 1, 1)
    logits = torch.full((2, 2, 6), -4.0)
    far = proposal_loss(logits, boxes, centers, usable, targets()).total().item()
    boxes[0] = BOXES[0]
    logits[0] = torch.where(TOKENS[0] > 0, 6.0, -6.0)
    assert proposal_loss(logits, boxes, centers, usable, targets()).total().item() < 0.01 * far


def test_token_logits_are_dot_products_except_at_padding() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]])
    text = torch.tensor([[[3.0, 1.0], [1.0, 0.0]]])
    logits = token_logits(features, text, torch.tensor([[1, 0]]))
    assert logits.tolist() == [[[[5.0, -30.0]], [[1.0, -30.0]]]]


def test_helper_heads_can_learn_category_color_and_tokens_of_each_cell() -> None:
    torch.manual_seed(0)
    helper = DenseHelper(width=8, categories=3, colors=4)
    features, text = torch.randn(2, 4, 8), torch.randn(2, 6, 8)
    wanted = targets()
    wanted.cell_tokens[0, 0, 1:3] = 1.0
    mask = torch.ones(2, 6, dtype=torch.long)
    optimizer = torch.optim.Adam(helper.parameters(), lr=0.05)
    history = []
    for _ in range(150):
        terms = helper(features, features, text, mask, wanted)
        history.append({name: term.item() for name, term in terms.items()})
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    assert set(history[0]) == {"cell_category", "cell_color", "cell_tokens"}
    assert all(history[-1][name] < 0.2 * history[0][name] for name in history[0])


def test_helper_loss_of_a_batch_without_any_color_or_object_is_finite() -> None:
    helper = DenseHelper(width=8, categories=3, colors=4)
    empty = dataclasses.replace(targets(), cell_color=torch.full((2, 4), UNMATCHED))
    terms = helper(
        torch.randn(2, 4, 8), torch.randn(2, 4, 8), torch.randn(2, 6, 8), torch.ones(2, 6, dtype=torch.long), empty
    )
    assert terms["cell_color"].item() == 0.0
    assert all(torch.isfinite(term) for term in terms.values())
