"""Softmax and best class a plane at a time, against the whole tensor at once."""

from __future__ import annotations

import numpy as np
import pytest

from segserve.errors import InternalError
from segserve.gateway.class_scores import ClassScores


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (21, 16, 9), (257, 4, 3)])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 5.0, 1e4, 1e38])
def test_equals_the_whole_tensor_at_once(shape: tuple[int, int, int], spread: float) -> None:
    logits = np.clip(np.random.default_rng(1).normal(0, 1, shape) * spread, -3e38, 3e38).astype(np.float32)
    scores = ClassScores.of(logits)
    assert np.array_equal(scores.labels, logits.argmax(axis=0))
    assert scores.labels.dtype == (np.uint8 if shape[0] <= 256 else np.uint16)
    with np.errstate(over="ignore"):
        powers = np.exp(logits - logits.max(axis=0))
    expected = powers / powers.sum(axis=0)
    made = np.stack(list(scores.probabilities()))
    assert made.dtype == np.float32
    assert np.array_equal(made, expected)
    assert np.isfinite(made).all()


def test_a_read_only_view_is_enough() -> None:
    logits = np.frombuffer(np.arange(12, dtype=np.float32).tobytes(), np.float32).reshape(3, 2, 2)
    assert ClassScores.of(logits).labels.tolist() == [[2, 2], [2, 2]]


@pytest.mark.parametrize(
    "logits",
    [
        np.full((2, 2, 2), np.nan, np.float32),
        np.full((2, 2, 2), np.inf, np.float32),
        np.zeros((2, 2, 2)),
        np.zeros((2, 2), np.float32),
        np.zeros((0, 2, 2), np.float32),
        np.zeros((2, 0, 2), np.float32),
    ],
)
def test_what_is_refused(logits: np.ndarray) -> None:
    with pytest.raises(InternalError):
        ClassScores.of(logits)
