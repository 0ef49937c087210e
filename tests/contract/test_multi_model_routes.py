"""``/models``: models that come and go, in front of a TorchServe that can be told to load."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from fake_torchserve import FakeTorchServe, striped_classes
from gateways import OpenGateway, wait_for
from pictures import png, source
from starlette.testclient import TestClient

from segserve.config import ArchivedModel, Settings
from segserve.errors import InvalidRequestError, NoRoomError, SegserveError
from segserve.gateway.app import create_app
from segserve.placement import Placement

JSON = {"Content-Type": "application/json"}
NATIVE: dict[str, Any] = {"images": [source(png())], "prompt": {"text": "sofa"}}


class Shelf:
    """Any folder within /models holds a grounded_sam, /models/stripes a semantic model; elsewhere is nothing."""

    def __init__(self, torchserve: FakeTorchServe) -> None:
        self.torchserve = torchserve
        self.placed: list[str] = []
        self.broken: SegserveError | None = None
        self.statuses = ["READY"]

    def place(self, name: str, url: str) -> Placement:
        if not url.startswith("/models/"):
            raise InvalidRequestError("url: it lies elsewhere.")
        if url == "/models/giant":
            raise NoRoomError("It needs more.")
        self.placed.append(name)
        self.torchserve.archives[f"{name}.mar"] = self.statuses
        kind = "semantic" if url == "/models/stripes" else "grounded_sam"
        return Placement(f"{name}.mar", ArchivedModel(kind), workers=1, batch_size=2, batch_delay_ms=5)

    def settle(self, name: str) -> None:
        pass

    def remove(self, name: str) -> None:
        if name in self.placed:
            self.placed.remove(name)

    def failure(self, name: str) -> SegserveError | None:
        return self.broken


@pytest.fixture
def shelf(torchserve: FakeTorchServe) -> Shelf:
    torchserve.models.clear()
    return Shelf(torchserve)


Open = Callable[..., TestClient]


@pytest.fixture
def multi(open_gateway: OpenGateway, shelf: Shelf) -> TestClient:
    """A service that hosts many models and has none yet."""
    return open_gateway(Settings(multi_model=True), shelf=shelf)


def load(gateway: TestClient, name: str, url: str = "/models/a/model", **headers: str) -> Any:
    return gateway.post("/models", content=json.dumps({"model_name": name, "url": url}), headers={**JSON, **headers})


def refused(response: Any, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    return str(error["message"])


def test_it_is_healthy_and_ready_without_a_model(multi: TestClient) -> None:
    assert multi.get("/ping").status_code == 200
    assert multi.get("/readyz").json() == {"status": "ready", "models": []}
    assert multi.get("/models").json() == {"models": []}
    assert multi.get("/v1/models").json() == {"models": []}
    refused(multi.post("/invocations", json={**NATIVE, "model": "sofas"}), 404, "model_not_found")
    refused(multi.post("/models/sofas/invoke", json=NATIVE), 404, "model_not_found")


def test_load_invoke_unload(multi: TestClient, torchserve: FakeTorchServe, shelf: Shelf) -> None:
    described = {"modelName": "0a1b", "modelUrl": "/models/0a1b/model"}
    answer = load(multi, "0a1b", "/models/0a1b/model")
    assert (answer.status_code, answer.json()) == (200, described)
    (asked,) = torchserve.registered
    assert asked == {
        "url": "0a1b.mar",
        "model_name": "0a1b",
        "initial_workers": "1",
        "batch_size": "2",
        "max_batch_delay": "5",
        "synchronous": "false",
    }
    assert multi.get("/models").json() == {"models": [described]}
    assert multi.get("/models/0a1b").json() == described
    (model,) = multi.get("/v1/models").json()["models"]
    assert (model["name"], model["kind"], model["ready"]) == ("0a1b", "grounded_sam", True)
    result = multi.post("/models/0a1b/invoke", json=NATIVE).json()
    assert result["model"] == "0a1b" and result["results"][0]["instances"][0]["label"] == "sofa"
    assert "segserve_model_loads_total" in multi.get("/metrics").text
    assert 'segserve_request_images_count{model="0a1b"}' in multi.get("/metrics").text

    assert multi.delete("/models/0a1b").json() == described
    refused(multi.post("/models/0a1b/invoke", json=NATIVE), 404, "model_not_found")
    refused(multi.post("/v1/segment", json={**NATIVE, "model": "0a1b"}), 404, "model_not_found")
    refused(multi.get("/models/0a1b"), 404, "model_not_found")
    refused(multi.delete("/models/0a1b"), 404, "model_not_found")
    assert torchserve.models == {} and shelf.placed == []
    assert multi.get("/models").json() == {"models": []} and multi.get("/ping").status_code == 200
    assert 'model="0a1b"' not in multi.get("/metrics").text
    assert load(multi, "0a1b", "/models/0a1b/model").status_code == 200


def test_every_body_of_invocations_asks_the_model_of_the_path(multi: TestClient, torchserve: FakeTorchServe) -> None:
    for name in ("first", "second"):
        assert load(multi, name).status_code == 200
    assert multi.post("/models/second/invoke", json={**NATIVE, "model": "first"}).json()["model"] == "second"
    raw = multi.post(
        "/models/second/invoke",
        content=png(),
        headers={"Content-Type": "image/png", "X-Amzn-SageMaker-Custom-Attributes": "text=sofa;threshold=0.4"},
    )
    assert raw.json()["model"] == "second"
    tiled = multi.post("/models/second/invoke", json={"categoryname": "Flooring", "images": [source(png())]})
    assert tiled.status_code == 200 and len(tiled.json()["processed_images"]) == 1
    assert set(torchserve.asked) == {"second"}


def test_a_body_for_another_kind_of_model_says_so(multi: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.react = striped_classes
    assert load(multi, "stripes", "/models/stripes").status_code == 200
    labels = multi.post("/models/stripes/invoke", content=png(), headers={"Content-Type": "image/png"})
    assert labels.json()["results"][0]["classes"] == ["background", "floor", "wall"]
    message = refused(
        multi.post("/models/stripes/invoke", json={"categoryname": "Flooring", "images": [source(png())]}),
        400,
        "invalid_request",
    )
    assert "asks a grounded_sam; the target model 'stripes' is a semantic" in message


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"url": "/models/a"}, "model_name"),
        ({"model_name": "a"}, "url"),
        ({"model_name": "", "url": "/models/a"}, "model_name"),
        ({"model_name": 5, "url": "/models/a"}, "model_name"),
        ({"model_name": "a b", "url": "/models/a"}, "letters, digits"),
        ({"model_name": "../a", "url": "/models/a"}, "letters, digits"),
        ({"model_name": "ä", "url": "/models/a"}, "letters, digits"),
        ({"model_name": "a" * 129, "url": "/models/a"}, "at most 128"),
        ({"model_name": "a", "url": "/etc"}, "elsewhere"),
        ([], "JSON object"),
    ],
)
def test_a_wrong_request_to_load(multi: TestClient, torchserve: FakeTorchServe, body: Any, told: str) -> None:
    assert told in refused(multi.post("/models", json=body), 400, "invalid_request")
    assert torchserve.registered == []


def test_a_page_of_another_origin_cannot_load_without_a_preflight(multi: TestClient) -> None:
    body = json.dumps({"model_name": "a", "url": "/models/a"})
    answer = multi.post("/models", content=body, headers={"Content-Type": "text/plain"})
    assert "expected application/json, came 'text/plain'" in refused(answer, 400, "invalid_request")


def test_a_name_is_loaded_once(multi: TestClient, torchserve: FakeTorchServe) -> None:
    assert load(multi, "a").status_code == 200
    assert "loaded already" in refused(load(multi, "a"), 409, "already_loaded")
    assert len(torchserve.registered) == 1
    assert multi.post("/models/a/invoke", json=NATIVE).status_code == 200


def test_of_two_loads_at_once_one_is_refused(multi: TestClient, shelf: Shelf, torchserve: FakeTorchServe) -> None:
    shelf.statuses = ["UNLOADING"]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(load, multi, "a")
        wait_for(lambda: len(torchserve.registered) == 1)
        assert "being loaded at this moment" in refused(load(multi, "a"), 409, "already_loaded")
        refused(multi.delete("/models/a"), 409, "already_loaded")
        assert multi.get("/models").json() == {"models": []}
        assert multi.get("/readyz").status_code == 200
        torchserve.models["a"] = ["READY"]
        assert first.result().status_code == 200
    assert len(multi.get("/models").json()["models"]) == 1


def begin_to_load(client: TestClient) -> None:
    """Ask for the model a, and go away before it is loaded."""
    loader = client.app.state.services.loader  # type: ignore[attr-defined]

    async def given_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await loader.load("a", "/models/a")

    assert client.portal is not None
    client.portal.call(given_up)


def test_a_load_goes_on_when_its_caller_is_gone(multi: TestClient, shelf: Shelf, torchserve: FakeTorchServe) -> None:
    shelf.statuses = ["UNLOADING"]
    begin_to_load(multi)
    assert multi.get("/models").json() == {"models": []}
    torchserve.models["a"] = ["READY"]
    wait_for(lambda: len(multi.get("/models").json()["models"]) == 1)
    assert multi.post("/models/a/invoke", json=NATIVE).status_code == 200


def test_a_service_ends_although_a_model_is_loading(
    open_gateway: OpenGateway, shelf: Shelf, torchserve: FakeTorchServe
) -> None:
    shelf.statuses = ["UNLOADING"]
    with TestClient(
        create_app(Settings(multi_model=True), httpx2.ASGITransport(app=torchserve), shelf=shelf)
    ) as client:
        wait_for(lambda: client.get("/ping").status_code == 200)
        begin_to_load(client)


def test_no_room(multi: TestClient) -> None:
    refused(load(multi, "giant", "/models/giant"), 507, "no_room")
    assert multi.get("/models").json() == {"models": []}
    assert 'outcome="no_room"' in multi.get("/metrics").text


@pytest.mark.parametrize(
    ("error", "status"), [(InvalidRequestError("No weights.", code="load_failed"), 400), (NoRoomError("Full."), 507)]
)
def test_a_model_that_cannot_be_loaded_leaves_nothing_behind(
    multi: TestClient, shelf: Shelf, torchserve: FakeTorchServe, error: SegserveError, status: int
) -> None:
    shelf.statuses, shelf.broken = ["UNLOADING"], error
    assert refused(load(multi, "a"), status, error.error_code) == error.message
    assert torchserve.models == {} and shelf.placed == []
    refused(multi.post("/models/a/invoke", json=NATIVE), 404, "model_not_found")
    assert multi.get("/readyz").status_code == 200
    shelf.statuses, shelf.broken = ["READY"], None
    assert load(multi, "a").status_code == 200


def test_a_worker_that_vanishes_while_loading_is_no_room(
    multi: TestClient, shelf: Shelf, torchserve: FakeTorchServe
) -> None:
    shelf.statuses = ["UNLOADING"]
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(load, multi, "a")
        wait_for(lambda: len(torchserve.registered) == 1 and torchserve.managed > 8)
        torchserve.pid = 2
        assert "ended without a word" in refused(loading.result(), 507, "no_room")
    assert torchserve.models == {}


def test_a_model_that_torchserve_already_has_stays(multi: TestClient, shelf: Shelf, torchserve: FakeTorchServe) -> None:
    torchserve.models["a"] = ["READY"]
    refused(load(multi, "a"), 409, "already_loaded")
    assert torchserve.models == {"a": ["READY"]} and shelf.placed == []


def test_unloading_waits_for_what_is_at_work_and_takes_nothing_new(
    multi: TestClient, torchserve: FakeTorchServe
) -> None:
    assert load(multi, "a").status_code == 200
    working, go_on = threading.Event(), threading.Event()
    react = torchserve.react

    async def slow(data: bytes, prompt: dict[str, Any]) -> Any:
        working.set()
        await asyncio.to_thread(go_on.wait, 20)
        return react(data, prompt)

    torchserve.react = slow
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(multi.post, "/models/a/invoke", json=NATIVE)
        assert working.wait(20)
        unloading = pool.submit(multi.delete, "/models/a")
        wait_for(lambda: multi.get("/models").json() == {"models": []})
        refused(multi.post("/models/a/invoke", json=NATIVE), 404, "model_not_found")
        assert "a" in torchserve.models
        go_on.set()
        assert answer.result().status_code == 200
        assert unloading.result().status_code == 200
    assert torchserve.models == {}


def test_a_loaded_model_counts_for_ready_while_it_is_wanted_but_not_for_health(
    multi: TestClient, torchserve: FakeTorchServe
) -> None:
    assert load(multi, "a").status_code == 200
    torchserve.models["a"] = ["UNLOADING"]
    wait_for(lambda: multi.get("/readyz").status_code == 503)
    assert multi.get("/ping").status_code == 200
    assert multi.delete("/models/a").status_code == 200
    wait_for(lambda: multi.get("/readyz").status_code == 200)


def test_pages_of_models(multi: TestClient) -> None:
    names = ["c", "a", "e", "b", "d"]
    for name in names:
        assert load(multi, name).status_code == 200
    listed, token, pages = [], "", 0
    while pages == 0 or token:
        answer = multi.get("/models", params={"limit": 2, **({"next_page_token": token} if token else {})}).json()
        listed += [model["modelName"] for model in answer["models"]]
        token, pages = answer.get("nextPageToken", ""), pages + 1
    assert listed == sorted(names) and pages == 3
    for limit in ("0", "-1", "many", "1001", 5000 * "9"):
        assert "limit" in refused(multi.get("/models", params={"limit": limit}), 400, "invalid_request")


@pytest.fixture
def single(open_gateway: OpenGateway, shelf: Shelf, torchserve: FakeTorchServe) -> TestClient:
    """A service of one configured model that is told an admin key and a local key."""
    torchserve.models["grounded_sam"] = ["READY"]
    return open_gateway(Settings(models=("grounded_sam",), admin_key="boss", local_key="here"), shelf=shelf)


def test_elsewhere_loading_needs_the_admin_key(single: TestClient, open_gateway: OpenGateway, shelf: Shelf) -> None:
    assert "needs the admin key" in refused(load(single, "a"), 401, "unauthorized")
    refused(load(single, "a", **{"X-API-Key": "wrong"}), 401, "unauthorized")
    refused(single.delete("/models/grounded_sam"), 401, "unauthorized")
    assert load(single, "a", Authorization="Bearer boss").status_code == 200
    assert load(single, "b", Authorization="Bearer here").status_code == 200
    assert [model["modelName"] for model in single.get("/models").json()["models"]] == ["a", "b", "grounded_sam"]
    assert single.delete("/models/a", headers={"X-API-Key": "boss"}).status_code == 200
    keyless = open_gateway(Settings(models=("grounded_sam",)), shelf=shelf)
    assert "start it with SEGSERVE_ADMIN_KEY" in refused(load(keyless, "c"), 401, "unauthorized")


def test_the_local_key_opens_a_service_that_asks_for_keys(open_gateway: OpenGateway, shelf: Shelf) -> None:
    shelf.torchserve.models["grounded_sam"] = ["READY"]
    settings = Settings(models=("grounded_sam",), api_keys=frozenset({"caller"}), local_key="here")
    gateway = open_gateway(settings, shelf=shelf)
    refused(load(gateway, "a", **{"X-API-Key": "caller"}), 401, "unauthorized")
    assert load(gateway, "a", **{"X-API-Key": "here"}).status_code == 200
    assert "here" not in repr(settings)


def test_a_configured_model_can_be_unloaded_and_loaded_again(single: TestClient) -> None:
    key = {"X-API-Key": "boss"}
    assert single.delete("/models/grounded_sam", headers=key).json()["modelUrl"] == "grounded_sam.mar"
    refused(single.post("/v1/segment", json=NATIVE), 404, "model_not_found")
    assert "no model" in refused(single.get("/readyz"), 503, "not_ready")
    assert load(single, "grounded_sam", **key).status_code == 200
    assert single.get("/readyz").status_code == 200
    assert single.post("/v1/segment", json=NATIVE).json()["model"] == "grounded_sam"


def test_a_gateway_without_a_torchserve_of_its_own_loads_nothing(open_gateway: OpenGateway) -> None:
    gateway = open_gateway(Settings(multi_model=True))
    assert "did not start the TorchServe" in refused(load(gateway, "a"), 400, "invalid_request")
