"""Other routes through ``/invocations``, for proxies in front of a SageMaker endpoint."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from fake_torchserve import FakeTorchServe
from gateways import OpenGateway
from pictures import png
from starlette.testclient import TestClient

from segserve.config import Settings
from segserve.gateway.attribute_route import ROUTES

NAME = "X-Amzn-SageMaker-Custom-Attributes"


def via(route: str) -> dict[str, str]:
    return {NAME: f"route={quote(route)}"}


def test_each_route_is_reached_with_its_own_answer(gateway: TestClient) -> None:
    for route in ROUTES:
        method, path = route.replace("{name}", "grounded_sam").split(" ")
        direct = gateway.request(method, path, headers={"X-Request-Id": "same"}, json=None if method == "GET" else {})
        through = gateway.post("/invocations", headers={**via(f"{method} {path}"), "X-Request-Id": "same"}, json={})
        assert (through.status_code, through.content) == (direct.status_code, direct.content), route
        assert through.headers["content-type"] == direct.headers["content-type"]
        assert through.headers[NAME].endswith("x-request-id=same")


def test_body_accept_and_query_are_the_routes_own(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    form = {"image": png(), "request": (None, json.dumps({"prompt": {"text": "sofa"}}))}
    answer = gateway.post("/invocations", headers=via("POST /v1/segment"), files=form)
    assert answer.json()["results"][0]["instances"][0]["label"] == "sofa"
    headers = {**via("POST /v1/segment?text=red%20%26%20blue"), "Content-Type": "image/png", "Accept": "image/png"}
    drawn = gateway.post("/invocations", headers=headers, content=png())
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
    assert torchserve.seen[-1][1]["text"] == "red & blue"


@pytest.mark.parametrize(
    "attributes",
    [
        via("PUT /v1/models/grounded_sam?min_workers=0")[NAME],
        via("GET /metrics")[NAME],
        via("POST /models")[NAME],
        via("DELETE /models/grounded_sam")[NAME],
        via("POST /invocations")[NAME],
        via("POST /api/detect-area-all")[NAME],
        via("GET /v1/models/../../metrics")[NAME],
        via("GET /v1/models\r\nX: y")[NAME],
        via("get /v1/models")[NAME],
        "route=",
        "route=%FF",
        "route=GET%20/v1/models;model=grounded_sam",
    ],
)
def test_any_other_route_is_refused(gateway: TestClient, torchserve: FakeTorchServe, attributes: str) -> None:
    answer = gateway.post("/invocations", headers={NAME: attributes}, json={"action": "ping"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert "route" in answer.json()["error"]["message"]
    assert torchserve.scaled == []


def test_only_invocations_has_other_routes(gateway: TestClient) -> None:
    assert "status" in gateway.get("/ping", headers=via("GET /v1/models")).json()
    assert gateway.post("/v1/segment", headers=via("GET /v1/models"), json={}).status_code == 400


def test_a_key_is_asked_for_whatever_the_route(open_gateway: OpenGateway) -> None:
    gateway = open_gateway(Settings(models=("grounded_sam",), api_keys=frozenset({"a caller"})))
    for route in ("GET /ping", "GET /v1/models"):
        assert gateway.post("/invocations", headers=via(route), json={}).status_code == 401
        with_key = {**via(route), "X-API-Key": "a caller"}
        assert gateway.post("/invocations", headers=with_key, json={}).status_code == 200
