"""Body and answer limits, API keys, request ids and the log line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from fake_torchserve import FakeTorchServe
from gateways import OpenGateway
from pictures import png, source
from starlette.testclient import TestClient

from segserve.config import RequestLimits, Settings

BODY = {"images": [source(png())], "prompt": {"text": "sofa"}}
JSON = {"Content-Type": "application/json"}


def small(**limits: int) -> Settings:
    return Settings(models=("grounded_sam",), limits=RequestLimits(**limits))


def test_a_body_over_the_limit_by_its_content_length(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    gateway = open_gateway(small(max_body_bytes=20_000))
    assert gateway.post("/v1/segment", json=BODY).status_code == 200
    response = gateway.post("/v1/segment", content=b" " * 20_001, headers=JSON)
    assert response.status_code == 413
    error = response.json()["error"]
    assert error["code"] == "body_too_large"
    assert "20,000" in error["message"]


def test_a_body_over_the_limit_without_a_content_length(open_gateway: OpenGateway) -> None:
    gateway = open_gateway(small(max_body_bytes=20_000))
    pieces: Iterator[bytes] = (b" " * 1000 for _ in range(30))
    response = gateway.post("/v1/segment", content=pieces, headers=JSON)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


def test_a_body_in_chunks_within_the_limit(gateway: TestClient) -> None:
    data = json.dumps(BODY).encode()
    pieces = (data[start : start + 700] for start in range(0, len(data), 700))
    assert gateway.post("/v1/segment", content=pieces, headers=JSON).status_code == 200


@pytest.mark.parametrize("wanted", [{"render": ["overlay", "cutout"]}, {"mask_format": "png"}, {}])
def test_an_answer_over_the_limit_names_the_way_out(open_gateway: OpenGateway, wanted: dict[str, object]) -> None:
    gateway = open_gateway(small(max_answer_bytes=200))
    response = gateway.post("/v1/segment", json={**BODY, **wanted})
    assert response.status_code == 413
    error = response.json()["error"]
    assert error["code"] == "answer_too_large"
    assert "mask_format" in error["message"]
    assert "render" in error["message"]


def test_a_file_answer_over_the_limit(open_gateway: OpenGateway) -> None:
    gateway = open_gateway(small(max_answer_bytes=400))
    for accept in ("image/png", "application/x-npy"):
        response = gateway.post("/v1/segment", json=BODY, headers={"Accept": accept})
        assert (response.status_code, response.json()["error"]["code"]) == (413, "answer_too_large")


KEYED = Settings(models=("grounded_sam",), api_keys=frozenset({"one key", "schlüssel"}), admin_key="admin")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer one key"},
        {"authorization": "bearer one key"},
        {"X-API-Key": "one key"},
        {"X-API-Key": "admin"},
        {"X-API-Key": "schlüssel".encode()},
    ],
)
def test_a_key_opens_every_route(open_gateway: OpenGateway, headers: dict[str, str]) -> None:
    gateway = open_gateway(KEYED)
    assert gateway.post("/v1/segment", json=BODY, headers=headers).status_code == 200
    assert gateway.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "one ke"},
        {"X-API-Key": "one key!"},
        {"Authorization": "Bearer two"},
        {"Authorization": "Basic one key"},
        {"Authorization": "Bearer"},
    ],
)
def test_without_a_valid_key_only_health_checks_answer(
    open_gateway: OpenGateway, torchserve: FakeTorchServe, headers: dict[str, str]
) -> None:
    gateway = open_gateway(KEYED)
    for path in ("/ping", "/ping/", "/livez", "/readyz"):
        assert gateway.get(path, headers=headers).status_code == 200
    for method, path in (
        ("POST", "/v1/segment"),
        ("POST", "/invocations"),
        ("POST", "/invocations/"),
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/execution-parameters"),
        ("GET", "/nowhere"),
        ("PUT", "/v1/models/grounded_sam?min_workers=1"),
    ):
        response = gateway.request(method, path, headers=headers)
        assert response.status_code == 401, path
        assert response.json()["error"]["code"] == "unauthorized"
        assert response.headers["www-authenticate"] == "Bearer"
        assert "one key" not in response.text
    assert torchserve.seen == []


def test_the_request_id_comes_back(gateway: TestClient) -> None:
    for path in ("/ping", "/nowhere"):
        assert gateway.get(path, headers={"X-Request-Id": "abc-123"}).headers["x-request-id"] == "abc-123"
    failed = gateway.get("/nowhere", headers={"X-Request-Id": "abc-123"})
    assert failed.json()["error"]["request_id"] == "abc-123"


@pytest.mark.parametrize("given", [None, "", "x" * 129, "two words", b"caf\xe9", b"a\tb"])
def test_a_missing_or_odd_request_id_is_replaced(gateway: TestClient, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-Id": given}
    made = [gateway.get("/livez", headers=headers).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    assert all(len(one) == 16 and one.isalnum() for one in made)


def fields_of(caplog: pytest.LogCaptureFixture, path: str) -> dict[str, object]:
    found = [record.fields for record in caplog.records if getattr(record, "fields", {}).get("path") == path]  # type: ignore[attr-defined]
    assert len(found) == 1
    return dict(found[0])


def test_one_log_line_a_request_without_secrets(open_gateway: OpenGateway, caplog: pytest.LogCaptureFixture) -> None:
    gateway = open_gateway(KEYED)
    with caplog.at_level(logging.INFO, logger="segserve"):
        gateway.post(
            "/v1/segment?text=sofa&signature=s3cret",
            json={**BODY, "images": [source(png()), {"url": "http://127.0.0.1/a?token=s3cret"}]},
            headers={"X-API-Key": "one key", "X-Request-Id": "my-id"},
        )
    fields = fields_of(caplog, "/v1/segment")
    assert fields.pop("ms") >= 0  # type: ignore[operator]
    assert fields == {
        "request_id": "my-id",
        "method": "POST",
        "path": "/v1/segment",
        "status": 200,
        "model": "grounded_sam",
        "images": 2,
    }
    assert "s3cret" not in caplog.text
    assert "one key" not in caplog.text


def test_a_failure_is_logged_with_its_code(gateway: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="segserve"):
        gateway.post("/v1/segment", json={**BODY, "model": "yolo"})
    assert fields_of(caplog, "/v1/segment")["error"] == "model_not_found"


def test_a_bug_is_a_plain_500_and_its_traceback_is_in_the_log(
    gateway: TestClient, torchserve: FakeTorchServe, caplog: pytest.LogCaptureFixture
) -> None:
    torchserve.script = [RuntimeError("the inner secret")]
    with caplog.at_level(logging.INFO, logger="segserve"):
        response = gateway.post("/v1/segment", json=BODY, headers={"X-Request-Id": "find-me"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert response.json()["error"]["request_id"] == "find-me"
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.fields["request_id"] == "find-me"  # type: ignore[attr-defined]
    assert "the inner secret" in caplog.text


def test_metrics_count_requests_and_carry_torchserves_own(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    gateway.post("/v1/segment", json={**BODY, "images": [source(png())] * 3})
    gateway.get("/somewhere/else")
    response = gateway.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'segserve_requests_total{method="POST",route="/v1/segment",status="200"} 1.0',
        'segserve_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'segserve_request_seconds_count{route="/v1/segment"} 1.0',
        'segserve_request_images_sum{model="grounded_sam"} 3.0',
        "segserve_ready 1.0",
        "ts_inference_requests_total 3.0",
    ):
        assert line in response.text.splitlines()
