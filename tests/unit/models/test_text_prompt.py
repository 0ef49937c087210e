"""Prompts and parameters: what a request sets, what stays, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from segserve.errors import InvalidPromptError, InvalidRequestError
from segserve.models.text_prompt import GroundedSamParameters, TextPrompt
from segserve.schema import Parameters

DEFAULTS = GroundedSamParameters(box_threshold=0.4, max_instances=7)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, DEFAULTS),
        ({"box_threshold": 0.0}, GroundedSamParameters(0.0, max_instances=7)),
        ({"refine": "polygon"}, GroundedSamParameters(0.4, max_instances=7, refine="polygon")),
        ({"nms_across_phrases": True, "nms_iou": 1}, GroundedSamParameters(0.4, 0.25, 1, True, 7)),
        ({"max_instances": 300, "text_threshold": 1}, GroundedSamParameters(0.4, 1, max_instances=300)),
    ],
)
def test_a_request_sets_some_parameters(given: dict[str, Any], expected: GroundedSamParameters) -> None:
    assert DEFAULTS.overridden(Parameters(**given)) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"box_threshold": 1.5}, "box_threshold: expected 0 to 1, came 1.5"),
        ({"text_threshold": -0.1}, "text_threshold"),
        ({"nms_iou": float("nan")}, "nms_iou"),
        ({"max_instances": 0}, "max_instances: expected at least 1"),
    ],
)
def test_values_out_of_range(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        GroundedSamParameters(**given)


def test_a_text_becomes_phrases() -> None:
    assert TextPrompt.from_text(" Sofa. red  chair; sofa。Floor ").phrases == ("sofa", "red chair", "floor")
    assert TextPrompt.from_text("sofa", DEFAULTS).parameters is DEFAULTS


@pytest.mark.parametrize("text", ["", " . ;", ".".join(f"thing {number}" for number in range(33))])
def test_no_phrase_or_too_many(text: str) -> None:
    with pytest.raises(InvalidPromptError, match="1 to 32 phrases"):
        TextPrompt.from_text(text)
