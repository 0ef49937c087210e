"""Seed 004's routes: what its clients send, the tensors that come back, number by number, and its failures."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx2
import numpy as np
import pytest
from fake_torchserve import Answer, FakeTorchServe, no_worker, striped_classes, worker_died
from gateways import OpenGateway
from pictures import bomb, png, truncated_png
from starlette.testclient import TestClient

from segserve.config import RequestLimits, Settings
from segserve.gateway.numpy_files import to_npy

CLASSES, HEIGHT, WIDTH = 5, 24, 32
ALL = ["logits", "pixels_distribution", "segmentation_map"]
SETTINGS = Settings(models=("semantic",))


def make_logits() -> np.ndarray:
    """Of every magnitude, with ties and classes that are hopeless beside the best."""
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 8, (CLASSES, HEIGHT, WIDTH)).astype(np.float32)
    logits[1, :6] = logits[3, :6]
    logits[2, 6:9] = np.float32(3e38)
    logits[4, 6:9] = np.float32(-3e38)
    logits[:, 9:11] *= np.float32(1e-30)
    logits[:, 11] = 0
    return logits


LOGITS = make_logits()


def softmax(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


EXPECTED: dict[str, np.ndarray] = {
    "logits": LOGITS,
    "pixels_distribution": softmax(LOGITS),
    "segmentation_map": LOGITS.argmax(axis=0),
}


def answering(logits: np.ndarray) -> Any:
    """A worker with these logits for every picture; one that cannot be decoded fails as it does in a real worker."""

    def react(data: bytes, prompt: dict[str, Any]) -> Answer:
        status, answer = striped_classes(data, prompt)
        npy = status == 200 and prompt["parameters"]["output"] == "logits"
        return (200, to_npy(logits)) if npy else (status, answer)

    return react


def web(request: httpx2.Request) -> httpx2.Response:
    found = request.url.path == "/room.png"
    return httpx2.Response(200 if found else 404, content=png())


async def public(host: str, port: int) -> list[str]:
    return ["10.1.2.3" if host == "intern.example" else "93.184.216.34"]


@pytest.fixture
def torchserve() -> FakeTorchServe:
    return FakeTorchServe(models={"semantic": ["READY"]}, react=answering(LOGITS))


@pytest.fixture
def gateway(open_gateway: OpenGateway) -> Iterator[TestClient]:
    yield open_gateway(SETTINGS, fetch_transport=httpx2.MockTransport(web), resolver=public)


URL = "https://pictures.example/room.png"


def ask(gateway: TestClient, data: dict[str, Any] | None = None, image: bytes | None = None, **options: Any) -> Any:
    """POST /infer/file, as the seed's client sends it."""
    files = {"file": ("room.png", image if image is not None else png(), "image/png")}
    return gateway.post("/infer/file", data={"infer_model_type": "torch", **(data or {})}, files=files, **options)


def results(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["Status"] == "OK"
    found: dict[str, Any] = answer["requested_results"]
    return found


def check(found: dict[str, Any], names: list[str]) -> None:
    """Whether the results are the expected ones, each number the same float32."""
    assert list(found) == names
    for name in names:
        values = np.array(found[name], dtype=np.float64)
        assert values.shape == EXPECTED[name].shape
        assert np.array_equal(values.astype(np.float32), EXPECTED[name].astype(np.float32)), name
        assert np.isfinite(values).all()


def test_the_reference_is_a_distribution() -> None:
    assert np.abs(EXPECTED["pixels_distribution"].sum(axis=0) - 1).max() < 1e-6
    assert EXPECTED["pixels_distribution"].dtype == np.float32
    assert (EXPECTED["segmentation_map"][:6] != 3).all(), "of equal logits the first class wins"


def test_health(gateway: TestClient) -> None:
    for path in ("/healthcheck", "/healthcheck/"):
        response = gateway.get(path)
        assert (response.status_code, response.json()) == (200, {"status": "live"})


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_a_file_gives_all_three_results_of_the_wanted_engine(
    gateway: TestClient, torchserve: FakeTorchServe, slash: str, engine: str
) -> None:
    image = png()
    response = gateway.post(f"/infer/file{slash}", data={"infer_model_type": engine}, files={"file": ("a.png", image)})
    assert response.headers["content-type"] == "application/json"
    check(results(response), ALL)
    answer = response.json()
    assert (answer["infer_model_type"], answer["image_type"]) == (engine, "file")
    parameters = {"engine": engine, "output": "logits", "size": "model"}
    assert torchserve.seen == [(image, {"parameters": parameters})]
    assert 'segserve_request_images_count{model="semantic"} 1.0' in gateway.get("/metrics").text


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("multipart", [False, True])
def test_a_url_gives_all_three_results(
    gateway: TestClient, torchserve: FakeTorchServe, slash: str, multipart: bool
) -> None:
    fields = {"infer_model_type": "onnx", "url_image": f" {URL} "}
    sent = {"files": {name: (None, value) for name, value in fields.items()}} if multipart else {"data": fields}
    response = gateway.post(f"/infer/url{slash}", **sent)
    check(results(response), ALL)
    answer = response.json()
    assert (answer["infer_model_type"], answer["image_type"]) == ("onnx", "url")
    assert torchserve.seen[0][0] == png()
    assert torchserve.seen[0][1]["parameters"]["engine"] == "onnx"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["logits"], ["logits"]),
        (["pixels_distribution"], ["pixels_distribution"]),
        (["segmentation_map", "logits"], ["segmentation_map", "logits"]),
        (
            ["pixels_distribution", "segmentation_map", "pixels_distribution"],
            ["pixels_distribution", "segmentation_map"],
        ),
        (ALL, ALL),
        (["logits,segmentation_map"], ["logits", "segmentation_map"]),
        (["logits, segmentation_map", "pixels_distribution"], ["logits", "segmentation_map", "pixels_distribution"]),
        (['["segmentation_map", "logits"]'], ["segmentation_map", "logits"]),
        (["[]"], ALL),
        ([""], ALL),
        (["", "logits"], ["logits"]),
    ],
)
def test_results_come_as_asked_in_that_order(
    gateway: TestClient, torchserve: FakeTorchServe, values: list[str], names: list[str]
) -> None:
    check(results(ask(gateway, {"requested_results_types": values})), names)
    form = {"infer_model_type": "torch", "requested_results_types": values, "url_image": URL}
    check(results(gateway.post("/infer/url", data=form)), names)
    assert len(torchserve.seen) == 2, "the worker is asked once for each request"


def test_a_label_map_alone_needs_no_logits(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    found = results(ask(gateway, {"requested_results_types": "segmentation_map"}))
    assert torchserve.seen[0][1] == {"parameters": {"engine": "torch", "output": "label_map", "size": "model"}}
    assert found == {"segmentation_map": [[row // 8] * 32 for row in range(24)]}


def test_unknown_result_types_are_told_under_their_names(gateway: TestClient) -> None:
    names = ["heat_map", "segmentation_map", 'Logits "é"']
    found = results(ask(gateway, {"requested_results_types": names}))
    assert list(found) == names
    assert found["heat_map"] == found['Logits "é"'] == "result type not supported"
    assert np.shape(found["segmentation_map"]) == (24, 32)
    assert results(ask(gateway, {"requested_results_types": "x"})) == {"x": "result type not supported"}


def test_other_fields_are_ignored(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    check(results(ask(gateway, {"requested_results_types": ALL, "page": "3"})), ALL)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate", "gzip"),
        ("gzip;q=0.2", "gzip"),
        ("*", "gzip"),
        ("br, X-GZIP", "gzip"),
        ("identity", None),
        ("gzip;q=0", None),
        ("gzip;q=0, *", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("", None),
    ],
)
def test_the_answer_is_compressed_for_those_who_accept_it(
    gateway: TestClient, accepted: str, encoding: str | None
) -> None:
    with gateway.stream(
        "POST",
        "/infer/file",
        data={"infer_model_type": "torch"},
        files={"file": ("a.png", png())},
        headers={"Accept-Encoding": accepted},
    ) as response:
        raw = b"".join(response.iter_raw())
    assert response.headers.get("content-encoding") == encoding
    assert response.headers["vary"] == "Accept-Encoding"
    assert "content-length" not in response.headers
    check(json.loads(gzip.decompress(raw) if encoding else raw)["requested_results"], ALL)


def value_error(response: Any) -> tuple[str, str]:
    """The message and the code of a failure that the seed calls a value error."""
    assert response.status_code == 401, response.text
    body = response.json()
    assert set(body) == {"detail", "error"}
    assert body["detail"] == f"Fail! Value error: {body['error']['message']}"
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    assert "www-authenticate" not in response.headers, "no key is asked for"
    return body["error"]["message"], body["error"]["code"]


@pytest.mark.parametrize(
    ("data", "image", "words", "code"),
    [
        ({"infer_model_type": "tensorflow"}, None, ["infer_model_type", "torch or onnx", "'tensorflow'"], None),
        ({"infer_model_type": "Torch"}, None, ["infer_model_type", "'Torch'"], None),
        ({"infer_model_type": ""}, None, ["infer_model_type", "empty"], "missing_field"),
        ({"infer_model_type": ["torch", "onnx"]}, None, ["infer_model_type", "2 times"], None),
        ({"requested_results_types": "[logits"}, None, ["requested_results_types", "JSON list"], None),
        ({"requested_results_types": '{"a": 1}]'}, b"", ["file", "empty"], "missing_field"),
        ({"requested_results_types": '["logits", 3]'}, None, ["requested_results_types", "JSON list"], None),
        ({"requested_results_types": '["\\ud800"]'}, None, ["requested_results_types"], None),
        ({"requested_results_types": "[" * 3000}, None, ["requested_results_types"], None),
        ({"requested_results_types": "x" * 101}, None, ["requested_results_types", "too long"], None),
        ({"requested_results_types": [f"x{n}" for n in range(17)]}, None, ["too many"], None),
        ({"requested_results_types": ["x"] * 70}, None, ["more than 64 fields"], None),
        ({}, b"no picture", ["not an image"], "not_an_image"),
        ({}, truncated_png(), ["cannot be decoded"], "undecodable_image"),
        ({}, bomb(), ["megapixels"], "image_too_large"),
    ],
)
def test_a_wrong_value_in_a_form_with_a_file(
    gateway: TestClient, data: dict[str, Any], image: bytes | None, words: list[str], code: str | None
) -> None:
    message, told = value_error(ask(gateway, data, image))
    assert told == (code or "invalid_request")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("changed", "code", "word"),
    [
        ({"infer_model_type": None}, "missing_field", "infer_model_type"),
        ({"infer_model_type": "keras"}, "invalid_request", "torch or onnx"),
        ({"url_image": None}, "missing_field", "url_image"),
        ({"url_image": " "}, "missing_field", "url_image"),
        ({"url_image": "not a url"}, "invalid_request", ""),
        ({"url_image": "file:///etc/passwd"}, "invalid_request", "http"),
        ({"url_image": "http://intern.example/a.png"}, "fetch_forbidden", "intern.example"),
        ({"url_image": "http://pictures.example/none.png"}, "fetch_failed", "404"),
    ],
)
def test_a_wrong_value_in_a_form_with_a_url(
    gateway: TestClient, torchserve: FakeTorchServe, changed: dict[str, str | None], code: str, word: str
) -> None:
    form = {"infer_model_type": "torch", "url_image": URL, **changed}
    sent = {name: value for name, value in form.items() if value is not None}
    message, told = value_error(gateway.post("/infer/url", data=sent))
    assert told == code
    assert word in message
    assert torchserve.seen == []


@pytest.mark.parametrize(
    ("kind", "body", "word"),
    [
        ("application/json", json.dumps({"infer_model_type": "torch", "url_image": URL}).encode(), "expected a form"),
        ("application/x-www-form-urlencoded", b"", "empty"),
        ("application/x-www-form-urlencoded", b"infer_model_type=%ff&url_image=x", "UTF-8"),
        ("application/x-www-form-urlencoded", "url_image=ü".encode("latin-1"), "UTF-8"),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 65), "64"),
        ("multipart/form-data", b"x", "boundary"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx', "truncated"),
    ],
)
def test_what_is_no_form(gateway: TestClient, kind: str, body: bytes, word: str) -> None:
    for path in ("/infer/url", "/infer/file"):
        message, _ = value_error(gateway.post(path, content=body, headers={"Content-Type": kind}))
        assert word in message


def test_a_file_cannot_come_urlencoded(gateway: TestClient) -> None:
    body = urlencode({"infer_model_type": "torch"})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    message, code = value_error(gateway.post("/infer/file", content=body, headers=headers))
    assert (code, "file" in message) == ("missing_field", True)


def test_an_engine_that_the_archive_does_not_have(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    told = "engine: the archive has no ONNX file."
    torchserve.script = [(400, {"error": {"code": "invalid_request", "message": told}})]
    assert value_error(ask(gateway, {"infer_model_type": "onnx"})) == (told, "invalid_request")


def failure(response: Any, status: int, code: str) -> str:
    """The message of any other failure."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"detail", "error"}
    assert body["detail"] == f"Fail! Error: {body['error']['message']}"
    assert (body["error"]["code"], body["error"]["request_id"]) == (code, response.headers["x-request-id"])
    return str(body["error"]["message"])


def test_failures_of_the_service_keep_their_status(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.script = [no_worker("semantic")]
    full = ask(gateway)
    failure(full, 429, "queue_full")
    assert full.headers["retry-after"] == "1"
    torchserve.script = [worker_died(), worker_died()]
    failure(ask(gateway), 503, "worker_lost")
    torchserve.script = [(507, {"error": {"code": "out_of_memory", "message": "It does not fit."}})]
    assert failure(ask(gateway), 507, "out_of_memory") == "It does not fit."


def test_before_the_model_is_ready(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    torchserve.models = {"semantic": ["LOADING"]}
    gateway = open_gateway(SETTINGS, ready=False)
    failure(ask(gateway), 503, "not_ready")
    assert gateway.get("/healthcheck").status_code == 200


def test_without_a_semantic_model(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    torchserve.models = {"grounded_sam": ["READY"]}
    assert "semantic" in failure(ask(open_gateway(Settings(models=("grounded_sam",)))), 404, "model_not_found")


@pytest.mark.parametrize("path", ["/infer/file", "/infer/file/", "/infer/url"])
def test_keys_and_limits_answer_in_the_seeds_shape(
    open_gateway: OpenGateway, torchserve: FakeTorchServe, path: str
) -> None:
    settings = Settings(
        models=("semantic",), api_keys=frozenset({"key"}), limits=RequestLimits(max_body_bytes=20_000, timeout_s=0.5)
    )
    gateway = open_gateway(settings)
    form = {"infer_model_type": "torch"}
    without = gateway.post(path, data=form)
    failure(without, 401, "unauthorized")
    assert without.headers["www-authenticate"] == "Bearer"
    headers = {"X-API-Key": "key"}
    failure(gateway.post(path, data={"file": "x" * 20_000}, headers=headers), 413, "body_too_large")
    assert gateway.get("/healthcheck").status_code == 401
    torchserve.delay_s = 600
    if path != "/infer/url":
        slow = gateway.post(path, data=form, files={"file": ("a.png", png())}, headers=headers)
        failure(slow, 504, "timed_out")


def spoiled(value: float) -> np.ndarray:
    logits = LOGITS.copy()
    logits[-1, -1, -1] = value
    return logits


@pytest.mark.parametrize(
    "logits", [spoiled(np.nan), spoiled(np.inf), spoiled(-np.inf), LOGITS.astype(np.float64), LOGITS[0], LOGITS[:0]]
)
def test_numbers_that_json_does_not_know_never_come(
    gateway: TestClient, torchserve: FakeTorchServe, logits: np.ndarray
) -> None:
    torchserve.react = answering(logits)
    failure(ask(gateway), 500, "internal_error")


def test_a_worker_that_answers_something_else(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.script = [(200, b"\x93NUMPY and then nothing")]
    failure(ask(gateway), 500, "internal_error")
    torchserve.react = lambda data, prompt: striped_classes(data, {})
    failure(ask(gateway), 500, "internal_error")


def test_a_bug_is_told_in_the_seeds_shape(gateway: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr("segserve.gateway.routes.infer.from_npy", broken)
    response = ask(gateway)
    assert "secret" not in response.text
    failure(response, 500, "internal_error")


def test_many_classes_make_wider_labels(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    logits = np.zeros((300, 2, 3), np.float32)
    logits[299, 1, 2] = 1
    torchserve.react = answering(logits)
    found = results(ask(gateway, {"requested_results_types": ["segmentation_map", "logits"]}))
    assert found["segmentation_map"] == [[0, 0, 0], [0, 0, 299]]


def test_tensors_of_many_pieces_are_whole(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (2, 300, 517)).astype(np.float32)
    torchserve.react = answering(logits)
    found = results(ask(gateway))
    assert np.array_equal(np.array(found["logits"], np.float32), logits)
    assert np.array_equal(np.array(found["pixels_distribution"], np.float32), softmax(logits))
    assert np.array_equal(found["segmentation_map"], logits.argmax(axis=0))
