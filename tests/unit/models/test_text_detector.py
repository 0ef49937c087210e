"""From token scores and boxes to detections: thresholds, labels, duplicates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segserve.models.phrase_tokens import PhraseTokenizer
from segserve.models.text_detector import select
from segserve.models.text_prompt import GroundedSamParameters

PHRASES = ("chair", "red chair", "sofa")
# Each box with the scores of chair, red, chair, sofa. B nearly covers A; C is elsewhere; D nearly covers C.
A, B = (0, 0, 10, 10), (0, 0, 10, 9)
C, D = (50, 50, 70, 70), (50, 50, 70, 69)
FOUND = [
    (A, [0.9, 0.1, 0.2, 0.1]),
    (B, [0.8, 0.1, 0.2, 0.1]),
    (C, [0.5, 0.6, 0.7, 0.1]),
    (D, [0.1, 0.1, 0.1, 0.4]),
]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        pytest.param(
            {"nms_iou": 1},
            [("chair", A), ("chair", B), ("red chair", C), ("chair", C), ("sofa", D)],
            id="nothing-removed",
        ),
        pytest.param({}, [("chair", A), ("red chair", C), ("chair", C), ("sofa", D)], id="duplicates-of-one-phrase"),
        pytest.param({"nms_across_phrases": True}, [("chair", A), ("red chair", C)], id="across-phrases"),
        pytest.param({"box_threshold": 0.45}, [("chair", A), ("red chair", C), ("chair", C)], id="box-threshold"),
        pytest.param({"text_threshold": 0.65}, [("chair", A), ("red chair", C)], id="text-threshold"),
        pytest.param({"max_instances": 2}, [("chair", A), ("red chair", C)], id="the-best-two"),
        pytest.param({"box_threshold": 1}, [], id="nothing-over-the-threshold"),
    ],
)
def test_selection(tokenizer: Any, parameters: dict[str, Any], expected: list[tuple[str, tuple[int, ...]]]) -> None:
    caption = PhraseTokenizer(tokenizer, 48).encode(PHRASES)
    words = [word for phrase in caption.words for word in phrase]
    token_scores = np.full((len(FOUND), len(caption.token_ids)), 0.01, dtype=np.float32)
    for row, (_, scores) in enumerate(FOUND):
        for word, score in zip(words, scores, strict=True):
            token_scores[row, list(word)] = score
    boxes = np.array([box for box, _ in FOUND], dtype=np.float32)
    found = select(token_scores, boxes, caption, GroundedSamParameters(**parameters))
    assert [(label, tuple(box)) for label, box in zip(found.labels, found.boxes.tolist(), strict=True)] == expected
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
