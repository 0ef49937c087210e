"""Requests: what is refused, and that the message names the field, the expectation and what came."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segserve.catalog import CATALOG, GROUNDED_SAM, SAM2, ModelEntry
from segserve.errors import InvalidPromptError, InvalidRequestError
from segserve.schema import (
    ObjectPrompt,
    Parameters,
    Prompt,
    SegmentRequest,
    WorkerPrompt,
    check_parameters,
    check_prompt,
    parse,
    parse_json,
    split_phrases,
)

IMAGE = {"base64": "AAAA"}
CLICKS = ModelEntry("clicks", "", ("points", "boxes"), ("points", "boxes"), (), "instances")
A_CLICK = ObjectPrompt(points=[(1, 2, 1)])
NOTHING = ModelEntry("nothing", "", (), (), ("score_threshold",), "instances")


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("sofa. floor.", ["sofa", "floor"]),
        ("  Red   Chair .. sofa", ["red chair", "sofa"]),
        ("sofa. Sofa. SOFA", ["sofa"]),
        ("sofa\nrug;bed", ["sofa", "rug", "bed"]),
        ("диван. 沙发。床", ["диван", "沙发", "床"]),
        ("a-b c's 3x", ["a-b c's 3x"]),
        (" . .. ", []),
        ("", []),
    ],
)
def test_split_phrases(text: str, phrases: list[str]) -> None:
    assert split_phrases(text) == phrases


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["images", "required"]),
        ({"images": []}, ["images", "at least 1"]),
        ({"images": [IMAGE] * 33}, ["images", "at most 32"]),
        ({"images": IMAGE}, ["images", "list"]),
        ({"images": [IMAGE], "prompt": {"txt": "sofa"}}, ["prompt", "txt", "not permitted"]),
        ({"images": [IMAGE], "parameters": {"box_threshold": 2}}, ["parameters.box_threshold", "less than", "came: 2"]),
        ({"images": [IMAGE], "parameters": {"box_threshold": "high"}}, ["box_threshold", "number", "'high'"]),
        ({"images": [IMAGE], "parameters": {"nms_iou": -0.1}}, ["nms_iou", "greater than"]),
        ({"images": [IMAGE], "parameters": {"max_instances": 0}}, ["max_instances"]),
        ({"images": [IMAGE], "mask_format": "jpeg"}, ["mask_format", "'rle'", "'jpeg'"]),
        ({"images": [IMAGE], "render": ["hologram"]}, ["render.0", "'overlay'"]),
        ({"images": [IMAGE], "prompt": {"points": [[1, 2, 3]]}}, ["prompt", "points"]),
        ({"images": [IMAGE], "prompt": {"boxes": [[1, 2, 3]]}}, ["prompt", "boxes"]),
        ({"images": [IMAGE], "prompt": {"objects": [{"boxes": [[1, 2, 3, 4]]}]}}, ["objects.0.boxes", "not permitted"]),
        (
            {"images": [IMAGE], "prompt": {"objects": [{"mask": "A" * 1_500_001}]}},
            ["objects.0.mask", "at most 1500000"],
        ),
        ({"images": [IMAGE], "parameters": {"multimask": "three"}}, ["parameters.multimask", "boolean", "'three'"]),
        ({"images": [IMAGE], "parameters": {"low_res": 7}}, ["parameters.low_res", "boolean"]),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(body: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(SegmentRequest, body)
    for word in words:
        assert word in caught.value.message


BROKEN_PROMPTS: list[tuple[Any, str]] = [
    ({"points": [[1, 1, 2]]}, "prompt.points.0.2: Input should be 0 or 1 (came: 2)."),
    ({"points": [[1, 1]]}, "prompt.points.0.2: Field required."),
    ({"points": [[1, 1, 1, 1]]}, "prompt.points.0: Tuple should have at most 3 items, not 4 (came: [1, 1, 1, 1])."),
    ({"points": [[1, 1, 1], [1e7, 1, 1]]}, "prompt.points.1.0: Input should be less than or equal to 1000000 (came: "),
    ({"points": [[float("nan"), 1, 1]]}, "prompt.points.0.0: Input should be "),
    (
        {"points": [["5", 1, 1]]},
        "prompt.points.0.0: Input should be a valid number, not a text or a switch",
    ),
    ({"points": [["1_0", 1, 1]]}, "prompt.points.0.0: Input should be a valid number"),
    ({"points": [[1, False, 1]]}, "prompt.points.0.1: Input should be a valid number"),
    ({"points": [[1, 1, True]]}, "prompt.points.0.2: Input should be a valid number"),
    ({"points": 5}, "prompt.points: Input should be a valid "),
    ({"boxes": [[1, 2, 3]]}, "prompt.boxes.0.3: Field required."),
    ({"objects": [{"mask": [1]}]}, "prompt.objects.0.mask: Input should be a valid string (came: [1])."),
    ({"mask": "AAAA"}, "prompt.mask: Extra inputs are not permitted (came: 'AAAA')."),
    ([{"text": "sofa"}, {"points": [[1, 1, 2]]}], "prompt.1.points.0.2: Input should be 0 or 1 (came: 2)."),
    ("sofa", "prompt: Input should be an object (came: 'sofa')."),
    (None, "prompt: Input should be an object (came: None)."),
]


@pytest.mark.parametrize(("prompt", "told"), BROKEN_PROMPTS)
def test_a_broken_prompt_is_named_as_the_caller_wrote_it(prompt: Any, told: str) -> None:
    """And nothing else: neither pydantic's names nor the form that the caller did not choose."""
    with pytest.raises(InvalidRequestError) as caught:
        parse_json(SegmentRequest, json.dumps({"images": [IMAGE], "prompt": prompt}))
    assert caught.value.message.startswith(told)
    assert caught.value.message.count("; ") == 0
    with pytest.raises(InvalidRequestError) as again:
        parse(SegmentRequest, {"images": [IMAGE], "prompt": prompt})
    assert again.value.message.startswith(told)


@pytest.mark.parametrize("name", ["box_threshold", "max_instances"])
@pytest.mark.parametrize("value", ["1", "1_0", True, False, "0.5", "nan"])
def test_text_and_switches_are_no_numbers_in_json(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=f"parameters.{name}: Input should be a valid number, not a text"):
        parse_json(SegmentRequest, json.dumps({"images": [IMAGE], "parameters": {name: value}}))


def test_text_is_a_number_where_everything_is_text() -> None:
    given = {"box_threshold": " 0.5", "score_threshold": "1e-1", "max_instances": "10"}
    parameters = parse(Parameters, given, as_text=True)
    assert (parameters.box_threshold, parameters.score_threshold, parameters.max_instances) == (0.5, 0.1, 10)
    for name, text in [("box_threshold", "0_1"), ("max_instances", "1_0"), ("nms_iou", "nan"), ("nms_iou", "٠")]:
        with pytest.raises(InvalidRequestError, match=f"{name}: Input should be"):
            parse(Parameters, {name: text}, as_text=True)


@pytest.mark.parametrize("name", ["low_res", "multimask", "nms_across_phrases"])
@pytest.mark.parametrize("value", ["true", "1", 1, 0, 1.0])
def test_text_and_numbers_are_no_switches_in_json(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=f"^parameters.{name}: Input should be a valid boolean: true or"):
        parse_json(SegmentRequest, json.dumps({"images": [IMAGE], "parameters": {name: value}}))


@pytest.mark.parametrize(("text", "meant"), [("true", True), ("1", True), ("False", False), ("0", False)])
def test_text_is_a_switch_where_everything_is_text(text: str, meant: bool) -> None:
    assert parse(Parameters, {"low_res": text}, as_text=True).low_res is meant
    with pytest.raises(InvalidRequestError, match=r"^low_res: Input should be a valid boolean"):
        parse(Parameters, {"low_res": "maybe"}, as_text=True)


def test_refine_gets_one_message() -> None:
    with pytest.raises(InvalidRequestError, match=r"^refine: Input should be true.* or 'polygon' \(came: 7\)\.$"):
        parse(Parameters, {"refine": 7})


@pytest.mark.parametrize(
    ("text", "meant"),
    [("true", True), ("TRUE", True), ("1", True), ("false", False), ("0", False), ("polygon", "polygon")],
)
def test_refine_as_text_is_a_switch_or_the_word(text: str, meant: Any) -> None:
    refine = parse(Parameters, {"refine": text}, as_text=True).refine
    assert (type(refine), refine) == (type(meant), meant)
    if text != "polygon":
        with pytest.raises(InvalidRequestError, match=r"^refine: Input should be true"):
            parse(Parameters, {"refine": text})


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "1e999"])
def test_numbers_are_finite(bad: str) -> None:
    with pytest.raises(InvalidRequestError, match="box_threshold"):
        parse(WorkerPrompt, {"parameters": {"box_threshold": float(bad)}})


def test_broken_json_is_refused_without_echoing_it() -> None:
    with pytest.raises(InvalidRequestError, match="Invalid JSON") as caught:
        parse_json(WorkerPrompt, b'{"text": "secret')
    assert "secret" not in caught.value.message


def test_long_values_are_shortened_in_messages() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(SegmentRequest, {"images": [IMAGE], "mask_format": "x" * 10_000})
    assert len(caught.value.message) < 400


def test_a_full_request_is_understood() -> None:
    request = parse(
        SegmentRequest,
        {
            "model": "grounded_sam",
            "images": [IMAGE, {"url": "https://example.com/a.jpg"}],
            "prompt": [{"text": "sofa."}, {"text": "rug.", "points": [[1, 2, 1]], "boxes": [[0, 0, 5, 5]]}],
            "parameters": {"box_threshold": 0.4, "refine": "polygon"},
            "mask_format": "polygon",
            "render": ["overlay", "crops", "overlay"],
        },
    )
    assert request.render == ["overlay", "crops"]
    assert isinstance(request.prompt, list) and request.prompt[1].points == [(1, 2, 1)]
    assert request.parameters.refine == "polygon"


def test_every_parameter_of_the_catalog_is_in_the_schema() -> None:
    for entry in CATALOG.values():
        assert set(entry.parameters) <= set(Parameters.model_fields)


@pytest.mark.parametrize(
    ("prompt", "entry", "words"),
    [
        (Prompt(), GROUNDED_SAM, ["needs prompt.text"]),
        (Prompt(text=""), GROUNDED_SAM, ["at least one phrase"]),
        (Prompt(text=" . . "), GROUNDED_SAM, ["at least one phrase"]),
        (Prompt(text="x" * 257), GROUNDED_SAM, ["256", "257"]),
        (Prompt(text=". ".join(f"p{i}" for i in range(40))), GROUNDED_SAM, ["32 phrases", "40"]),
        (Prompt(text="sofa", points=[(1, 2, 1)]), GROUNDED_SAM, ["prompt.points", "leave points out"]),
        (Prompt(text="sofa"), CLICKS, ["prompt.text", "points and boxes"]),
        (Prompt(points=[]), CLICKS, ["prompt.points", "1 to 64"]),
        (Prompt(points=[(1, 2, 1)] * 65), CLICKS, ["65"]),
        (Prompt(text="sofa"), NOTHING, ["takes no prompt"]),
        (Prompt(), SAM2, ["needs prompt.points, prompt.boxes or prompt.objects", '{"points": [[120, 80, 1]]}']),
        (Prompt(text="sofa"), SAM2, ["prompt.text", "takes points, boxes and objects"]),
        (Prompt(points=[(1, 2, 1)], boxes=[(0, 0, 5, 5), (1, 1, 9, 9)]), SAM2, ["prompt.points", "use prompt.objects"]),
        (Prompt(points=[(1, 2, 1)], objects=[A_CLICK]), SAM2, ["prompt.objects", "within the objects"]),
        (Prompt(boxes=[(0, 0, 5, 5)], objects=[A_CLICK]), SAM2, ["prompt.objects", "within the objects"]),
        (Prompt(boxes=[(0, 0, 5, 5), (5, 5, 5, 9)]), SAM2, ["prompt.boxes.1", "x0 < x1", "[5.0, 5.0, 5.0, 9.0]"]),
        (Prompt(objects=[]), SAM2, ["prompt.objects", "1 to 64"]),
        (Prompt(objects=[A_CLICK] * 65), SAM2, ["prompt.objects", "1 to 64", "65"]),
        (Prompt(objects=[A_CLICK, ObjectPrompt()]), SAM2, ["prompt.objects.1", "points, box or mask"]),
        (Prompt(objects=[ObjectPrompt(points=[])]), SAM2, ["prompt.objects.0.points", "1 to 64"]),
        (Prompt(objects=[ObjectPrompt(box=(9, 0, 5, 5))]), SAM2, ["prompt.objects.0.box", "x0 < x1"]),
    ],
)
def test_a_prompt_that_does_not_fit(prompt: Prompt, entry: ModelEntry, words: list[str]) -> None:
    with pytest.raises(InvalidPromptError) as caught:
        check_prompt(prompt, entry)
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize(
    ("prompt", "entry"),
    [
        (Prompt(text="sofa"), GROUNDED_SAM),
        (Prompt(text="沙发。"), GROUNDED_SAM),
        (Prompt(boxes=[(0, 0, 1, 1)] * 64), CLICKS),
        (Prompt(points=[(1, 2, 1), (3, 4, 0)]), SAM2),
        (Prompt(points=[(1, 2, 1)], boxes=[(0, 0, 5, 5)]), SAM2),
        (Prompt(boxes=[(0, 0, 5, 5), (1, 1, 9, 9)]), SAM2),
        (Prompt(objects=[A_CLICK] * 64), SAM2),
        (Prompt(objects=[ObjectPrompt(mask="AAAA")]), SAM2),
        (Prompt(), NOTHING),
    ],
)
def test_a_prompt_that_fits(prompt: Prompt, entry: ModelEntry) -> None:
    check_prompt(prompt, entry)


def test_unknown_parameters_of_a_model_are_refused_and_the_known_ones_listed() -> None:
    with pytest.raises(InvalidRequestError, match=r"score_threshold.*box_threshold"):
        check_parameters(Parameters(score_threshold=0.5), GROUNDED_SAM)
    check_parameters(Parameters(box_threshold=0.5, refine=True), GROUNDED_SAM)
    check_parameters(Parameters(score_threshold=None), GROUNDED_SAM)
