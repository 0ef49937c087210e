"""Health checks and the models' routes."""

from __future__ import annotations

import httpx2
import pytest
from fake_torchserve import FakeTorchServe
from gateways import OpenGateway, wait_for
from pictures import png, source
from starlette.testclient import TestClient

from segserve.config import Settings


def test_ping_answers_json_or_text(gateway: TestClient) -> None:
    answer = gateway.get("/ping")
    assert (answer.status_code, answer.json()) == (200, {"status": "Healthy"})
    text = gateway.get("/ping/", headers={"Accept": "text/plain; charset=utf-8, */*"})
    assert (text.status_code, text.text) == (200, "Healthy")
    assert text.headers["content-type"].startswith("text/plain")


def test_not_ready_before_a_worker_has_loaded(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    torchserve.models["grounded_sam"] = ["UNLOADING", "UNLOADING"]
    gateway = open_gateway(ready=False)
    wait_for(lambda: "2 workers" in gateway.get("/readyz").text)
    for path in ("/ping", "/readyz"):
        response = gateway.get(path)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "not_ready"
        assert "grounded_sam" in response.json()["error"]["message"]
        assert response.headers["retry-after"]
    assert gateway.get("/ping", headers={"Accept": "text/plain"}).text == "Not ready"
    assert gateway.get("/livez").json() == {"status": "alive"}
    # A request is refused at once rather than queued for a model that may take minutes.
    refused = gateway.post("/v1/segment", json={"images": [source(png())], "prompt": {"text": "sofa"}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
    assert torchserve.seen == []
    torchserve.models["grounded_sam"] = ["UNLOADING", "READY"]
    wait_for(lambda: gateway.get("/ping").status_code == 200)
    assert gateway.get("/readyz").json() == {"status": "ready", "models": ["grounded_sam"]}


def test_a_restarting_worker_shows_in_ping_but_requests_still_queue(
    gateway: TestClient, torchserve: FakeTorchServe
) -> None:
    torchserve.models["grounded_sam"] = ["UNLOADING"]
    wait_for(lambda: gateway.get("/ping").status_code == 503)
    response = gateway.post("/v1/segment", json={"images": [source(png())], "prompt": {"text": "sofa"}})
    assert response.status_code == 200


def test_torchserve_unreachable(open_gateway: OpenGateway) -> None:
    def refused(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    gateway = open_gateway(ready=False, transport=httpx2.MockTransport(refused))
    wait_for(lambda: "cannot be reached" in gateway.get("/ping").text)
    assert gateway.get("/ping").status_code == 503
    response = gateway.post("/v1/segment", json={"images": [source(png())], "prompt": {"text": "sofa"}})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")


def test_every_expected_model_must_be_there(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    gateway = open_gateway(Settings(models=("grounded_sam", "sam2")), ready=False)
    wait_for(lambda: "sam2: not registered" in gateway.get("/readyz").text)
    assert "grounded_sam" not in gateway.get("/readyz").json()["error"]["message"]


def test_without_expected_models_all_that_torchserve_has_count(
    open_gateway: OpenGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.models = {"a": ["READY"], "b": ["READY"], "c": ["UNLOADING"]}
    gateway = open_gateway(Settings(), ready=False)
    wait_for(lambda: "c: none of its 1 workers" in gateway.get("/readyz").text)
    torchserve.models["c"] = ["READY"]
    wait_for(lambda: gateway.get("/readyz").status_code == 200)
    assert gateway.get("/readyz").json()["models"] == ["a", "b", "c"]


def test_ping_never_waits_for_torchserve(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.management_delay_s = 60
    before = torchserve.managed
    for _ in range(50):
        assert gateway.get("/ping").status_code == 200
    # The background poll may have begun meanwhile; the 50 checks have asked nothing.
    assert torchserve.managed - before < 10


def test_models_are_described(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    torchserve.models["grounded_sam"] = ["READY", "UNLOADING"]
    gateway = open_gateway()
    described = gateway.get("/v1/models").json()["models"]
    assert [model["name"] for model in described] == ["grounded_sam"]
    one = gateway.get("/v1/models/grounded_sam/").json()
    assert one == described[0]
    assert (one["version"], one["ready"], one["workers"], one["ready_workers"]) == ("1.0", True, 2, 1)
    assert (one["batch_size"], one["device"], one["prompts"]) == (4, "cpu", ["text"])
    assert "box_threshold" in one["parameters"]
    missing = gateway.get("/v1/models/yolo")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
    assert "grounded_sam" in missing.json()["error"]["message"]


ADMIN = {"X-API-Key": "the admin key"}


def test_scaling_needs_the_admin_key(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    settings = Settings(models=("grounded_sam",), api_keys=frozenset({"a caller"}), admin_key="the admin key")
    gateway = open_gateway(settings)
    for headers in ({}, {"X-API-Key": "a caller"}, {"X-API-Key": "guessed"}):
        assert gateway.put("/v1/models/grounded_sam?min_workers=2", headers=headers).status_code == 401
    assert torchserve.scaled == []
    response = gateway.put("/v1/models/grounded_sam?min_workers=2&max_workers=3", headers=ADMIN)
    assert response.status_code == 200
    assert response.json()["ready_workers"] == 2
    assert torchserve.scaled == [("grounded_sam", 2, 3)]


@pytest.mark.parametrize("query", ["min_workers=0", "min_workers=0&max_workers=0", "min_workers=0&max_workers=4"])
def test_scaling_to_none_ends_all_workers(open_gateway: OpenGateway, torchserve: FakeTorchServe, query: str) -> None:
    """With a most above 0, TorchServe would forget that many workers and let them run."""
    gateway = open_gateway(Settings(models=("grounded_sam",), admin_key="the admin key"))
    response = gateway.put(f"/v1/models/grounded_sam?{query}", headers=ADMIN)
    assert (response.status_code, response.json()["workers"]) == (200, 0)
    assert torchserve.scaled == [("grounded_sam", 0, 0)]


def test_scaling_is_off_without_an_admin_key(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    response = gateway.put("/v1/models/grounded_sam?min_workers=2", headers=ADMIN)
    assert response.status_code == 401
    assert "SEGSERVE_ADMIN_KEY" in response.json()["error"]["message"]
    assert torchserve.scaled == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("min_workers=-1", 400),
        ("min_workers=two", 400),
        ("min_workers=1000", 400),
        ("min_workers=3&max_workers=2", 400),
        ("min_workers=1&workers=2", 400),
    ],
)
def test_scaling_checks_its_numbers(
    open_gateway: OpenGateway, torchserve: FakeTorchServe, query: str, status: int
) -> None:
    gateway = open_gateway(Settings(models=("grounded_sam",), admin_key="the admin key"))
    response = gateway.put(f"/v1/models/grounded_sam?{query}", headers=ADMIN)
    assert response.status_code == status
    assert "workers" in response.json()["error"]["message"]
    assert torchserve.scaled == []


def test_scaling_an_unknown_model(open_gateway: OpenGateway) -> None:
    gateway = open_gateway(Settings(models=("grounded_sam",), admin_key="the admin key"))
    assert gateway.put("/v1/models/yolo?min_workers=1", headers=ADMIN).status_code == 404
