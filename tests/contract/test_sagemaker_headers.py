"""What SageMaker says in headers: the target model, stateful sessions, and the id of an inference."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fake_torchserve import FakeTorchServe
from gateways import OpenGateway
from pictures import png, source
from starlette.testclient import TestClient

from segserve.config import ArchivedModel, Settings

TARGET, SESSION, INFERENCE = (f"X-Amzn-SageMaker-{name}" for name in ("Target-Model", "Session-Id", "Inference-Id"))
NEW, CLOSED = "X-Amzn-SageMaker-New-Session-Id", "X-Amzn-SageMaker-Closed-Session-Id"
NATIVE: dict[str, Any] = {"images": [source(png())], "prompt": {"text": "sofa"}}


@pytest.fixture
def two(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> TestClient:
    """Two grounded_sam under names of their own, and a mask_rcnn."""
    names = {"sofas": "grounded_sam", "walls.v2": "grounded_sam", "objects": "mask_rcnn"}
    torchserve.models = {name: ["READY"] for name in names}
    archives = {name: ArchivedModel(kind) for name, kind in names.items()}
    return open_gateway(Settings(models=tuple(names), archives=archives))


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("walls.v2", "walls.v2"),
        ("walls.v2.mar", "walls.v2"),
        ("walls.v2.tar.gz", "walls.v2"),
        ("shop/walls.v2.tar.gz", "walls.v2"),
        ("/sofas", "sofas"),
        (" sofas ", "sofas"),
    ],
)
def test_the_target_model_is_asked_where_the_body_names_none(two: TestClient, given: str, asked: str) -> None:
    assert two.post("/invocations", json=NATIVE, headers={TARGET: given}).json()["model"] == asked
    raw = {TARGET: given, "Content-Type": "image/png", "X-Amzn-SageMaker-Custom-Attributes": "text=sofa;threshold=0.4"}
    assert two.post("/invocations", content=png(), headers=raw).json()["model"] == asked


def test_the_parameters_are_those_of_the_target(two: TestClient, torchserve: FakeTorchServe) -> None:
    raw = {TARGET: "objects", "Content-Type": "image/png", "X-Amzn-SageMaker-Custom-Attributes": "threshold=0.4"}
    assert two.post("/invocations", content=png(), headers=raw).json()["model"] == "objects"
    assert torchserve.seen[-1][1] == {"parameters": {"score_threshold": 0.4}}


def test_a_body_that_names_a_model_comes_first(two: TestClient) -> None:
    body = {**NATIVE, "model": "sofas"}
    assert two.post("/invocations", json=body, headers={TARGET: "walls.v2.tar.gz"}).json()["model"] == "sofas"
    assert two.post("/invocations", json={**NATIVE, "model": None}, headers={TARGET: "walls.v2"}).json()["model"] == (
        "walls.v2"
    )


def test_bodies_of_the_seeds_ask_the_target(two: TestClient, torchserve: FakeTorchServe) -> None:
    tiling = {"categoryname": "Flooring", "images": [source(png())]}
    assert two.post("/invocations", json=tiling, headers={TARGET: "walls.v2.mar"}).status_code == 200
    assert torchserve.asked[-1] == "walls.v2"
    refused = two.post("/invocations", json=tiling, headers={TARGET: "objects"})
    assert refused.status_code == 400
    assert "asks a grounded_sam; the target model 'objects' is a mask_rcnn" in refused.json()["error"]["message"]


@pytest.mark.parametrize("given", ["chairs.tar.gz", "sofas.zip", "..", "sofas/", "*"])
def test_an_unknown_target_is_not_found(two: TestClient, torchserve: FakeTorchServe, given: str) -> None:
    for body in (NATIVE, {"categoryname": "Flooring", "images": [source(png())]}):
        answer = two.post("/invocations", json=body, headers={TARGET: given})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert "Models: objects, sofas, walls.v2." in answer.json()["error"]["message"]
    assert torchserve.asked == []


def test_without_a_target_a_native_body_must_name_its_model(two: TestClient) -> None:
    assert two.post("/invocations", json=NATIVE).status_code == 400


def test_a_session_is_opened_used_and_closed(gateway: TestClient) -> None:
    body = {**NATIVE, "model": "grounded_sam"}
    opened = gateway.post("/invocations", json=body, headers={SESSION: "NEW_SESSION"})
    assert opened.status_code == 200 and opened.json()["results"]
    # The form that botocore's model of the service states.
    form = r"([a-zA-Z0-9](-*[a-zA-Z0-9])*);\sExpires=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
    session = re.fullmatch(form, opened.headers[NEW])[1]  # type: ignore[index]
    again = gateway.post("/invocations", json=body, headers={SESSION: session})
    assert again.status_code == 200 and NEW not in again.headers
    close = {"action": "close_session"}
    closed = gateway.post("/invocations", json=close, headers={SESSION: session})
    assert (closed.status_code, closed.headers[CLOSED], closed.json()) == (200, session, {"status": "closed"})
    for ended in (body, close):
        refused = gateway.post("/invocations", json=ended, headers={SESSION: session})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_session")


def test_each_new_session_has_an_id_of_its_own_and_a_failed_request_opens_none(gateway: TestClient) -> None:
    ping = {"action": "ping"}
    ids = {gateway.post("/invocations", json=ping, headers={SESSION: "NEW_SESSION"}).headers[NEW] for _ in range(3)}
    assert len(ids) == 3
    failed = gateway.post("/invocations", json={}, headers={SESSION: "NEW_SESSION"})
    assert failed.status_code == 400 and NEW not in failed.headers


@pytest.mark.parametrize("headers", [{}, {SESSION: "NEW_SESSION"}])
def test_closing_needs_a_session(gateway: TestClient, headers: dict[str, str]) -> None:
    answer = gateway.post("/invocations", json={"action": "close_session"}, headers=headers)
    assert answer.status_code == 400 and "names no session" in answer.json()["error"]["message"]


class Kept(logging.Handler):
    """Keeps the records that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def access_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """What is logged of requests, whatever other tests have made of the logging."""
    log, kept = logging.getLogger("segserve.access"), Kept()
    monkeypatch.setattr(log, "level", logging.INFO)
    log.manager._clear_cache()  # type: ignore[attr-defined]
    log.addHandler(kept)
    yield kept
    log.removeHandler(kept)


def test_the_inference_id_comes_back_with_every_answer_and_is_logged(gateway: TestClient, access_log: Kept) -> None:
    body = {**NATIVE, "model": "grounded_sam"}
    for sent, status in ((body, 200), ({}, 400)):
        answer = gateway.post("/invocations", json=sent, headers={INFERENCE: "order 66"})
        assert (answer.status_code, answer.headers[INFERENCE]) == (status, "order 66")
        assert access_log.records[-1].fields["inference_id"] == "order 66"  # type: ignore[attr-defined]
    for wrong in ("x" * 65, " ", "tab\tbed"):
        assert INFERENCE not in gateway.post("/invocations", json=body, headers={INFERENCE: wrong}).headers
