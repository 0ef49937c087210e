"""TorchServe's bad days, as callers meet them: a dead worker, a full queue, none at all, silence, a renewed token."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fake_torchserve import FakeTorchServe, no_worker, worker_died
from gateways import OpenGateway, wait_for
from pictures import png, source
from starlette.testclient import TestClient

from segserve.config import RequestLimits, Settings, TorchServeAddress

BODY = {"images": [source(png())], "prompt": {"text": "sofa"}}
SERVER_ERROR = {"code": 500, "type": "InternalServerException"}


def ask(gateway: TestClient) -> Any:
    return gateway.post("/v1/segment", json=BODY)


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize(
    "loss",
    [
        worker_died(),
        (500, {**SERVER_ERROR, "message": "Worker scaled down."}),
        httpx2.ReadError("reset by peer"),
        httpx2.RemoteProtocolError("closed without an answer"),
    ],
    ids=["died", "scaled down", "connection reset", "connection closed"],
)
def test_a_lost_request_is_sent_once_more(gateway: TestClient, torchserve: FakeTorchServe, loss: Any) -> None:
    torchserve.script = [loss]
    response = ask(gateway)
    assert response.status_code == 200
    assert response.json()["results"][0]["instances"][0]["label"] == "sofa"
    assert len(torchserve.seen) == 2
    assert torchserve.seen[0] == torchserve.seen[1]
    assert 'segserve_worker_retries_total{model="grounded_sam"} 1.0' in gateway.get("/metrics").text


def test_a_request_that_is_lost_twice_is_given_up(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.script = [worker_died(), worker_died(), worker_died()]
    response = ask(gateway)
    assert code(response) == (503, "worker_lost")
    assert response.headers["retry-after"] == "5"
    assert len(torchserve.seen) == 2


def test_a_full_queue_is_429(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.script = [no_worker("grounded_sam")]
    response = ask(gateway)
    assert code(response) == (429, "queue_full")
    assert response.headers["retry-after"] == "1"
    assert len(torchserve.seen) == 1


def test_the_same_answer_without_workers_is_not_ready(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.models["grounded_sam"] = []
    wait_for(lambda: gateway.get("/ping").status_code == 503)
    response = ask(gateway)
    assert code(response) == (503, "not_ready")
    assert "retry-after" in response.headers


def test_a_model_that_torchserve_lost_is_not_found(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    del torchserve.models["grounded_sam"]
    assert code(ask(gateway)) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            (503, {"code": 503, "type": "InternalServerException", "message": "Prediction failed"}),
            (500, "internal_error"),
        ),
        ((500, {**SERVER_ERROR, "message": "java.lang.NullPointerException at /home"}), (500, "internal_error")),
        ((408, {"code": 408, "type": "RequestTimeoutException", "message": "late"}), (504, "timed_out")),
        ((413, {"code": 413, "type": "RequestEntityTooLarge", "message": "big"}), (413, "too_large")),
        ((422, {"error": {"code": "undecodable_image", "message": "Broken."}}), (422, "undecodable_image")),
        ((200, {"unexpected": True}), (500, "internal_error")),
        ((200, ["no object"]), (500, "internal_error")),
    ],
)
def test_other_answers_are_translated(
    gateway: TestClient, torchserve: FakeTorchServe, answer: Any, expected: tuple[int, str]
) -> None:
    torchserve.script = [answer]
    response = ask(gateway)
    assert code(response) == expected
    assert "/home" not in response.text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx2.ConnectError("refused"), (503, "not_ready")),
        (httpx2.ConnectTimeout("no answer"), (503, "not_ready")),
        (httpx2.ReadTimeout("silent"), (504, "timed_out")),
        (httpx2.PoolTimeout("no connection free"), (429, "queue_full")),
    ],
)
def test_connection_failures_are_translated(
    gateway: TestClient, torchserve: FakeTorchServe, error: Exception, expected: tuple[int, str]
) -> None:
    torchserve.script = [error]
    assert code(ask(gateway)) == expected
    assert len(torchserve.seen) == 1


def test_every_transport_error_has_a_translation() -> None:
    """A new kind of httpx2 error must not come out as a bug."""
    from segserve.errors import SegserveError
    from segserve.gateway import workers

    def kinds(base: type[Exception]) -> list[type[Exception]]:
        # Other packages that a whole test run imports derive errors of their own.
        own = [kind for kind in base.__subclasses__() if kind.__module__.startswith("httpx2")]
        return [base, *(deeper for kind in own for deeper in kinds(kind))]

    for kind in kinds(httpx2.HTTPError):
        if kind is not httpx2.HTTPStatusError:
            translated = workers._connection_failure(kind("x"), "grounded_sam")  # type: ignore[arg-type]
            assert isinstance(translated, (SegserveError, workers._AskAgainError))


def test_a_worker_that_stays_silent_is_a_504(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    gateway = open_gateway(Settings(models=("grounded_sam",), limits=RequestLimits(timeout_s=0.3)))
    torchserve.delay_s = 30
    response = ask(gateway)
    assert code(response) == (504, "timed_out")
    assert "0.3 s" in response.json()["error"]["message"]
    wait_for(lambda: torchserve._running == 0)
    assert torchserve.finished == 0


def write_keys(path: Path, inference: str, management: str) -> None:
    keys = {"management": {"key": management}, "inference": {"key": inference, "expiration time": "soon"}}
    path.write_text(json.dumps(keys), encoding="utf-8")


def test_the_token_is_sent_and_read_again_once_renewed(
    open_gateway: OpenGateway, torchserve: FakeTorchServe, tmp_path: Path
) -> None:
    path = tmp_path / "key_file.json"
    write_keys(path, "first", "first")
    torchserve.token = "first"
    gateway = open_gateway(Settings(models=("grounded_sam",), torchserve=TorchServeAddress(key_file=path)))
    assert ask(gateway).status_code == 200
    torchserve.token = "other"
    assert code(ask(gateway)) == (503, "not_ready")
    write_keys(path, "other", "other")
    assert ask(gateway).status_code == 200


def test_a_token_that_is_refused_is_read_again_though_the_file_looks_the_same(
    open_gateway: OpenGateway, torchserve: FakeTorchServe, tmp_path: Path
) -> None:
    import os

    path = tmp_path / "key_file.json"
    write_keys(path, "aaaaa", "aaaaa")
    before = path.stat()
    torchserve.token = "aaaaa"
    gateway = open_gateway(Settings(models=("grounded_sam",), torchserve=TorchServeAddress(key_file=path)))
    write_keys(path, "bbbbb", "bbbbb")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    torchserve.token = "bbbbb"
    assert ask(gateway).status_code == 200


def test_a_caller_who_goes_away_stops_the_work(torchserve: FakeTorchServe) -> None:
    """Driven at the ASGI level: the disconnect message comes while the worker is busy."""
    from segserve.gateway.app import create_app

    torchserve.delay_s = 30
    app = create_app(Settings(models=("grounded_sam",)), httpx2.ASGITransport(app=torchserve))
    body = json.dumps(BODY).encode()
    sent: list[Any] = []

    async def scenario() -> None:
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            try:
                return next(messages)
            except StopIteration:
                while not torchserve.seen:
                    await asyncio.sleep(0.01)
                return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/segment",
            "raw_path": b"/v1/segment",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("gateway", 80),
            "root_path": "",
        }
        async with asyncio.timeout(10):
            await app(scope, receive, send)

    asyncio.run(scenario())
    assert sent == []
    assert (torchserve.finished, torchserve._running) == (0, 0)
    count = 'segserve_requests_total{method="POST",route="/v1/segment",status="499"} 1.0'
    assert count in app.state.services.metrics.text(True)
