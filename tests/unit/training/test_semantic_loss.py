"""The loss of the semantic model on label maps small enough to be computed by hand."""

import pytest
import torch

from segserve.training.semantic_loss import semantic_loss

CERTAIN = 30.0


def logits_of(labels: torch.Tensor, classes: int) -> torch.Tensor:
    return CERTAIN * torch.nn.functional.one_hot(labels, classes).permute(0, 3, 1, 2).float()


def test_the_right_answer_costs_nothing_and_a_wrong_one_much() -> None:
    labels = torch.tensor([[[0, 1], [2, 2]]])
    right = semantic_loss(logits_of(labels, 3), labels, 255)
    assert float(right["pixels"]) == pytest.approx(0.0, abs=1e-5)
    assert float(right["overlap"]) == pytest.approx(0.0, abs=1e-5)
    wrong = semantic_loss(logits_of((labels + 1) % 3, 3), labels, 255)
    assert float(wrong["pixels"]) == pytest.approx(CERTAIN, rel=1e-4)
    assert float(wrong["overlap"]) == pytest.approx(1.0, abs=1e-5)


def test_overlap_is_one_minus_the_mean_iou_of_the_classes_that_are_there() -> None:
    truth = torch.tensor([[[0, 0], [0, 1]], [[0, 0], [0, 1]]])
    answer = torch.tensor([[[0, 0], [0, 0]], [[0, 0], [0, 1]]])
    # Class 0: 6 of 7; class 1: 1 of 2; class 2 is in neither picture.
    loss = semantic_loss(logits_of(answer, 3), truth, 255)
    assert float(loss["overlap"]) == pytest.approx(1 - (6 / 7 + 1 / 2) / 2, abs=1e-5)


def test_ignored_pixels_change_nothing() -> None:
    labels = torch.tensor([[[0, 1], [255, 255]]])
    answers = [logits_of(torch.tensor([[[0, 0], [below, below]]]), 2).requires_grad_() for below in (0, 1)]
    losses = [semantic_loss(answer, labels, 255) for answer in answers]
    for name in ("pixels", "overlap"):
        assert float(losses[0][name].detach()) == pytest.approx(float(losses[1][name].detach()), abs=1e-6)
    sum(losses[0].values()).backward()
    gradient = answers[0].grad
    assert gradient is not None and gradient[..., 0, :].any() and not gradient[..., 1, :].any()


def test_without_a_pixel_that_counts_the_overlap_is_nothing() -> None:
    loss = semantic_loss(torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 255), 255)
    assert float(loss["overlap"]) == 0.0


def test_logits_are_scaled_to_the_labels() -> None:
    logits = logits_of(torch.tensor([[[0, 1], [0, 1]]]), 2)
    labels = torch.zeros(1, 4, 8, dtype=torch.int64)
    labels[..., 4:] = 1
    assert float(semantic_loss(logits, labels, 255)["overlap"]) < 0.01
    assert float(semantic_loss(logits.flip(3), labels, 255)["overlap"]) > 0.99
