"""Models that are served under names of their own, several at once, and requests that name none."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import pytest
from fake_torchserve import Answer, FakeTorchServe
from gateways import OpenGateway, wait_for
from pictures import png, source
from starlette.testclient import TestClient

from segserve import imaging
from segserve.config import ArchivedModel, Settings
from segserve.masks import encode_rle

BALLOONS = ArchivedModel("mask_rcnn", "torchvision", ("balloon", "kite"))
ROOMS = ArchivedModel("grounded_sam")
RAW = {"Content-Type": "image/png"}
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


def whole_picture(data: bytes, prompt: dict[str, Any]) -> Answer:
    """A worker that finds one balloon, as large as the picture."""
    height, width = imaging.decode(data).shape[:2]
    mask = encode_rle(np.ones((height, width), dtype=bool))
    found = {"label": "balloon", "score": 0.75, "box": [0, 0, width, height], "area": width * height, "mask": mask}
    return 200, {"width": width, "height": height, "instances": [found]}


@pytest.fixture
def serve(open_gateway: OpenGateway, torchserve: FakeTorchServe):
    """Opens a gateway for models with what their archives say."""

    def serve(**archives: ArchivedModel) -> TestClient:
        torchserve.models = {name: ["READY"] for name in archives}
        known = {name: about for name, about in archives.items() if about.kind}
        return open_gateway(Settings(models=tuple(archives), archives=known))

    return serve


def asked(gateway: TestClient, **request: Any) -> httpx2.Response:
    return gateway.post("/v1/segment", json={"images": [source(png())], **request})


def test_a_model_is_asked_under_the_name_of_its_archive(serve, torchserve: FakeTorchServe) -> None:
    torchserve.react = whole_picture
    gateway = serve(grounded_sam=ROOMS, balloons=BALLOONS)
    answer = asked(gateway, model="balloons", parameters={"score_threshold": 0.2, "nms_iou": 0.4, "max_instances": 9})
    assert answer.status_code == 200
    assert (answer.json()["model"], answer.json()["version"]) == ("balloons", "1.0")
    assert answer.json()["results"][0]["instances"][0]["label"] == "balloon"
    assert torchserve.asked == ["balloons"]
    assert torchserve.seen[0][1] == {"parameters": {"score_threshold": 0.2, "nms_iou": 0.4, "max_instances": 9}}
    assert 'segserve_request_images_count{model="balloons"} 1.0' in gateway.get("/metrics").text


@pytest.mark.parametrize(
    ("request_", "status", "code", "said"),
    [
        ({"prompt": {"text": "balloon."}}, 422, "invalid_prompt", "takes no prompt; leave text out"),
        ({"prompt": {"points": [[1, 1, 1]]}}, 422, "invalid_prompt", "leave points out"),
        ({"prompt": {"boxes": [[1, 1, 5, 5]]}}, 422, "invalid_prompt", "leave boxes out"),
        ({"parameters": {"box_threshold": 0.3}}, 400, "invalid_request", "it knows score_threshold"),
        ({"parameters": {"score_threshold": 1.5}}, 400, "invalid_request", "parameters.score_threshold"),
        ({"prompt": [{}, {}]}, 400, "invalid_request", "came 2 for 1"),
    ],
)
def test_prompt_and_parameters_are_those_of_its_kind(
    serve, torchserve: FakeTorchServe, request_: dict[str, Any], status: int, code: str, said: str
) -> None:
    answer = asked(serve(balloons=BALLOONS), model="balloons", **request_)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert said in answer.json()["error"]["message"]
    assert torchserve.seen == []


def test_the_catalogs_name_is_not_served_when_only_another_name_is(serve, torchserve: FakeTorchServe) -> None:
    answer = asked(serve(balloons=BALLOONS), model="mask_rcnn")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "balloons" in answer.json()["error"]["message"]
    assert torchserve.seen == []


def test_an_unknown_name_is_told_with_the_served_ones(serve) -> None:
    answer = asked(serve(balloons=BALLOONS, rooms=ROOMS), model="kites")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.json()["error"]["message"] == "model: 'kites' is unknown. Models: balloons, rooms."


@pytest.mark.parametrize(
    ("archives", "expected"),
    [
        ({"balloons": BALLOONS}, "balloons"),
        ({"balloons": BALLOONS, "grounded_sam": ROOMS}, "grounded_sam"),
        ({"balloons": BALLOONS, "rooms": ROOMS, "grounded_sam": ROOMS}, "grounded_sam"),
        ({"balloons": BALLOONS, "rooms": ROOMS}, "rooms"),
        ({"balloons": BALLOONS, "a_second": BALLOONS}, "balloons"),
    ],
)
def test_a_request_that_names_no_model_gets_the_obvious_one(
    serve, torchserve: FakeTorchServe, archives: dict[str, ArchivedModel], expected: str
) -> None:
    torchserve.react = whole_picture
    gateway = serve(**archives)
    prompt = {"prompt": {"text": "balloon."}} if archives[expected] is ROOMS else {}
    for request in ({}, {"model": None}):
        answer = asked(gateway, **request, **prompt)
        assert (answer.status_code, answer.json().get("model")) == (200, expected)
    query = "?text=balloon." if archives[expected] is ROOMS else ""
    assert gateway.post(f"/v1/segment{query}", content=png(), headers=RAW).json()["model"] == expected
    assert torchserve.asked == [expected] * 3


def test_raw_images_with_custom_attributes(serve, torchserve: FakeTorchServe) -> None:
    torchserve.react = whole_picture
    gateway = serve(grounded_sam=ROOMS, balloons=BALLOONS)
    for attributes, parameters in (
        ("model=balloons;threshold=0.6", {"score_threshold": 0.6}),
        ("model=balloons;score_threshold=0.6;refine=polygon", {"score_threshold": 0.6, "refine": "polygon"}),
        ("text=balloon.;threshold=0.6", {"box_threshold": 0.6}),
    ):
        answer = gateway.post("/invocations", content=png(), headers={**RAW, ATTRIBUTES: attributes})
        assert answer.status_code == 200, answer.text
        assert torchserve.seen[-1][1]["parameters"] == parameters
    assert torchserve.asked == ["balloons", "balloons", "grounded_sam"]
    drawn = gateway.post(
        "/invocations", content=png(), headers={**RAW, ATTRIBUTES: "model=balloons", "Accept": "image/png"}
    )
    assert imaging.decode(drawn.content).shape == (48, 64, 3)


def test_the_threshold_is_the_default_models_own(serve, torchserve: FakeTorchServe) -> None:
    torchserve.react = whole_picture
    answer = serve(balloons=BALLOONS).post("/invocations", content=png(), headers={**RAW, ATTRIBUTES: "threshold=0.25"})
    assert answer.status_code == 200
    assert torchserve.seen[0][1]["parameters"] == {"score_threshold": 0.25}


def test_models_tell_kind_classes_and_engine(serve) -> None:
    models = serve(balloons=BALLOONS, rooms=ROOMS).get("/v1/models").json()["models"]
    balloons, rooms = models
    assert (balloons["name"], balloons["kind"], balloons["engine"]) == ("balloons", "mask_rcnn", "torchvision")
    assert (balloons["classes"], balloons["prompts"]) == (["balloon", "kite"], [])
    assert balloons["parameters"] == ["score_threshold", "nms_iou", "max_instances", "refine"]
    assert balloons["title"].startswith("Mask R-CNN")
    assert (rooms["kind"], rooms["prompts"]) == ("grounded_sam", ["text"])
    assert (rooms["classes"], rooms["engine"]) == (None, None)


def test_a_model_of_unknown_kind_is_listed_but_not_asked(serve, torchserve: FakeTorchServe) -> None:
    gateway = serve(grounded_sam=ROOMS, theirs=ArchivedModel())
    described = gateway.get("/v1/models/theirs").json()
    assert (described["ready"], described["workers"]) == (True, 1)
    assert (described["kind"], described["classes"], described["prompts"]) == (None, None, [])
    answer = asked(gateway, model="theirs")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "segserve archive" in answer.json()["error"]["message"]
    assert torchserve.seen == []


def test_with_somebody_elses_torchserve_names_are_the_catalogs(
    open_gateway: OpenGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.models = {"mask_rcnn": ["READY"]}
    torchserve.react = whole_picture
    gateway = open_gateway(Settings())
    wait_for(lambda: gateway.get("/v1/models").json()["models"] != [])
    assert gateway.get("/v1/models/mask_rcnn").json()["kind"] == "mask_rcnn"
    assert asked(gateway).json()["model"] == "mask_rcnn"


def test_an_archive_may_bear_another_models_name(serve, torchserve: FakeTorchServe) -> None:
    torchserve.react = whole_picture
    gateway = serve(grounded_sam=BALLOONS)
    assert gateway.get("/v1/models/grounded_sam").json()["kind"] == "mask_rcnn"
    assert asked(gateway, model="grounded_sam", parameters={"score_threshold": 0.3}).status_code == 200
    assert asked(gateway, model="grounded_sam", prompt={"text": "sofa."}).status_code == 422


TILING = {"categoryname": "Flooring", "roomName": "Living Room", "images": [source(png())]}


def test_tiling_asks_grounded_sam_under_its_served_name(serve, torchserve: FakeTorchServe) -> None:
    answer = serve(balloons=BALLOONS, rooms=ROOMS).post("/invocations", json=TILING)
    assert answer.status_code == 200, answer.text
    assert answer.json()["processed_images"][0]
    assert torchserve.asked == ["rooms"]


def test_tiling_without_a_model_for_it_says_which_to_add(serve, torchserve: FakeTorchServe) -> None:
    answer = serve(balloons=BALLOONS).post("/invocations", json=TILING)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "segserve archive grounded_sam" in answer.json()["error"]["message"]
    assert torchserve.seen == []


def test_scaling_takes_the_served_name(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    torchserve.models = {"balloons": ["READY"]}
    gateway = open_gateway(Settings(models=("balloons",), archives={"balloons": BALLOONS}, admin_key="the key"))
    answer = gateway.put("/v1/models/balloons?min_workers=2", headers={"X-API-Key": "the key"})
    assert (answer.status_code, answer.json()["kind"], answer.json()["workers"]) == (200, "mask_rcnn", 2)
    assert torchserve.scaled == [("balloons", 2, 2)]
