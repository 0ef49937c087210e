"""Every kind of bad input: its status, its code, and a message that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fake_torchserve import FakeTorchServe
from pictures import (
    HEIGHT,
    WIDTH,
    animated_gif,
    bomb,
    cmyk_jpeg,
    deep_png,
    opened,
    png,
    rotated_jpeg,
    source,
    truncated_png,
)
from starlette.testclient import TestClient

from segserve.config import FetchPolicy, Settings
from segserve.imaging import ImageLimits

GOOD = {"images": [source(png())], "prompt": {"text": "sofa"}}


def check(response: Any, status: int, code: str, *words: str) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert error["request_id"] == response.headers["x-request-id"]
    for word in words:
        assert word in error["message"]
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    ("change", "status", "code", "words"),
    [
        ({"images": [{"base64": "!!!"}]}, 400, "invalid_request", ["not valid base64", "A-Z"]),
        ({"images": [{"base64": "AAAAA"}]}, 400, "invalid_request", ["not valid base64"]),
        ({"images": [{"base64": ""}]}, 400, "invalid_request", ["empty"]),
        ({"images": [source(b"this is a text file")]}, 415, "not_an_image", ["JPEG, PNG", "this is"]),
        ({"images": [source(truncated_png())]}, 422, "undecodable_image", ["truncated"]),
        ({"images": [{}]}, 400, "invalid_request", ["exactly one of url, base64 and s3"]),
        ({"images": [{**source(png()), "url": "http://a/b"}]}, 400, "invalid_request", ["url and base64"]),
        ({"images": []}, 400, "invalid_request", ["images"]),
        ({"images": [source(png())] * 33}, 400, "invalid_request", ["images", "at most 32"]),
        ({"images": "photo.png"}, 400, "invalid_request", ["images", "array"]),
        ({"images": [{"path": "/etc/passwd"}]}, 400, "invalid_request", ["images.0.path"]),
        ({"images": [{"url": "file:///etc/passwd"}]}, 400, "invalid_request", ["http or https", "'file'"]),
        ({"images": [{"url": "ftp://example.com/a"}]}, 400, "invalid_request", ["http or https"]),
        ({"images": [{"url": "//example.com/a.png"}]}, 400, "invalid_request", ["http or https"]),
        ({"images": [{"url": "http://user:secret@example.com/"}]}, 400, "invalid_request", ["password"]),
        ({"images": [{"url": "http://"}]}, 400, "invalid_request", ["host"]),
        ({"images": [{"url": "http://[::1"}]}, 400, "invalid_request", ["URL"]),
        ({"images": [{"s3": "https://bucket/key"}]}, 400, "invalid_request", ["s3://bucket/key"]),
        ({"images": [{"s3": "s3://bucket/key"}]}, 424, "fetch_forbidden", ["bucket"]),
        ({"prompt": {"text": ""}}, 422, "invalid_prompt", ["prompt.text", "at least one phrase"]),
        ({"prompt": {"text": " . ; "}}, 422, "invalid_prompt", ["prompt.text"]),
        ({"prompt": {}}, 422, "invalid_prompt", ["needs prompt.text"]),
        ({"prompt": {"text": ". ".join(f"a{i}" for i in range(40))}}, 422, "invalid_prompt", ["at most 32", "40"]),
        ({"prompt": {"text": "a" * 257}}, 422, "invalid_prompt", ["256", "257"]),
        ({"prompt": {"text": "a", "points": [[1, 2, 1]]}}, 422, "invalid_prompt", ["prompt.points", "takes text"]),
        ({"prompt": {"text": 7}}, 400, "invalid_request", ["text", "string"]),
        ({"prompt": {"texts": "sofa"}}, 400, "invalid_request", ["texts"]),
        ({"parameters": {"box_threshold": 2}}, 400, "invalid_request", ["parameters.box_threshold", "less than", "2"]),
        ({"parameters": {"score_threshold": 0.5}}, 400, "invalid_request", ["score_threshold", "box_threshold"]),
        ({"parameters": {"max_instances": 0}}, 400, "invalid_request", ["parameters.max_instances"]),
        ({"parameters": {"colour": 1}}, 400, "invalid_request", ["parameters.colour"]),
        ({"mask_format": "bitmap"}, 400, "invalid_request", ["mask_format", "rle"]),
        ({"render": ["hologram"]}, 400, "invalid_request", ["render", "overlay"]),
        ({"model": "yolo"}, 404, "model_not_found", ["yolo", "grounded_sam"]),
        ({"shout": True}, 400, "invalid_request", ["shout"]),
    ],
)
def test_a_json_request(
    gateway: TestClient, torchserve: FakeTorchServe, change: dict[str, Any], status: int, code: str, words: list[str]
) -> None:
    check(gateway.post("/v1/segment", json={**GOOD, **change}), status, code, *words)
    # The worker is never bothered, except by a file that only decoding shows to be broken.
    assert len(torchserve.seen) == (1 if code == "undecodable_image" else 0)


@pytest.mark.parametrize("route", ["/v1/segment", "/invocations"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["empty (0 bytes)"]),
        (b"{", ["JSON"]),
        (b"[1, 2]", ["object"]),
        (b'{"model": "grounded_sam", "images": [{"base64": "\xff"}]}', ["JSON"]),
        (b'{"model": ' + b"[" * 100_000, ["JSON"]),
    ],
)
def test_a_body_that_is_no_json_object(gateway: TestClient, route: str, body: bytes, words: list[str]) -> None:
    response = gateway.post(route, content=body, headers={"Content-Type": "application/json"})
    check(response, 400, "invalid_request", *words)


def test_a_threshold_that_is_no_number(gateway: TestClient) -> None:
    body = json.dumps(GOOD)[:-1] + ', "parameters": {"box_threshold": NaN}}'
    response = gateway.post("/v1/segment", content=body, headers={"Content-Type": "application/json"})
    check(response, 400, "invalid_request")


@pytest.mark.parametrize("route", ["/v1/segment", "/invocations"])
def test_an_empty_raw_body_is_told_before_its_prompt_is_missed(gateway: TestClient, route: str) -> None:
    response = gateway.post(route, content=b"", headers={"Content-Type": "image/png"})
    check(response, 400, "invalid_request", "0 bytes")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"hello, I am a text file", 415, "not_an_image"),
        (truncated_png(), 422, "undecodable_image"),
    ],
)
def test_a_file_called_png(gateway: TestClient, data: bytes, status: int, code: str) -> None:
    raw = gateway.post("/v1/segment?text=sofa", content=data, headers={"Content-Type": "image/png"})
    check(raw, status, code)
    form = gateway.post(
        "/v1/segment",
        files={"image": ("photo.png", data, "image/png")},
        data={"request": '{"prompt": {"text": "sofa"}}'},
    )
    check(form, status, code)


def test_a_pixel_bomb_is_refused_from_its_header(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    response = gateway.post("/v1/segment", json={**GOOD, "images": [source(bomb())]})
    check(response, 413, "image_too_large", "10000 x 6000", "50 megapixels")
    assert torchserve.seen == []


def test_an_image_of_too_many_bytes(open_gateway: Any) -> None:
    gateway = open_gateway(Settings(models=("grounded_sam",), image_limits=ImageLimits(max_bytes=3000)))
    check(gateway.post("/v1/segment", json=GOOD), 413, "image_too_large", "3,000")
    check(
        gateway.post("/v1/segment?text=sofa", content=png(), headers={"Content-Type": "image/png"}),
        413,
        "image_too_large",
        "3,000",
    )


@pytest.mark.parametrize("make", [animated_gif, cmyk_jpeg, deep_png, rotated_jpeg])
def test_unusual_pictures_work(gateway: TestClient, torchserve: FakeTorchServe, make: Callable[[], bytes]) -> None:
    data = make()
    response = gateway.post("/v1/segment", json={**GOOD, "images": [source(data)], "render": ["overlay", "cutout"]})
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    assert (result["width"], result["height"]) == (WIDTH, HEIGHT)
    assert opened(result["renders"]["overlay"]).size == (WIDTH, HEIGHT)
    assert torchserve.seen[0][0] == data


@pytest.mark.parametrize("text", ["диван. пол.", "沙发。地板", "كنبة", "canapé", "🛋️"])
def test_a_prompt_in_another_script_arrives_as_it_is(
    gateway: TestClient, torchserve: FakeTorchServe, text: str
) -> None:
    response = gateway.post("/v1/segment", json={**GOOD, "prompt": {"text": text}})
    assert response.status_code == 200
    assert torchserve.seen[0][1]["text"] == text


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("text=sofa&treshold=0.5", ["treshold", "box_threshold"]),
        ("text=sofa&box_threshold=2", ["box_threshold", "less than"]),
        ("text=sofa&box_threshold=high", ["box_threshold", "number"]),
        ("text=sofa&text=bed", ["text", "more than once"]),
        ("text=sofa&render=overlay,all", ["render"]),
    ],
)
def test_query_parameters_of_a_raw_image(gateway: TestClient, query: str, words: list[str]) -> None:
    response = gateway.post(f"/v1/segment?{query}", content=png(), headers={"Content-Type": "image/png"})
    check(response, 400, "invalid_request", *words)


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("multipart/form-data", b"x", ["boundary"]),
        ("multipart/form-data; boundary=b", b"no form at all", ["multipart"]),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\ncut off',
            ["truncated"],
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="picture"\r\n\r\nx\r\n--b--\r\n',
            ["picture", "image (files)"],
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{}\r\n--b--\r\n',
            ["no image"],
        ),
        ("text/plain", b"sofa", ["Content-Type", "text/plain"]),
    ],
)
def test_forms_and_other_bodies(gateway: TestClient, kind: str, body: bytes, words: list[str]) -> None:
    response = gateway.post("/v1/segment", content=body, headers={"Content-Type": kind})
    check(response, 400, "invalid_request", *words)


def test_a_form_of_33_images(gateway: TestClient) -> None:
    files = [("image", (f"{index}.png", png())) for index in range(33)]
    response = gateway.post("/v1/segment", files=files, data={"request": '{"prompt": {"text": "sofa"}}'})
    check(response, 400, "invalid_request", "images", "at most 32")


def resolver(addresses: dict[str, str]) -> Any:
    async def resolve(host: str, port: int) -> list[str]:
        return [addresses.get(host, host)]

    return resolve


def web(request: httpx2.Request) -> httpx2.Response:
    """The network as the fetcher meets it, by the Host that it asks for."""
    host, path = request.headers["host"], request.url.path
    if (host, path) == ("redirecting.example", "/"):
        return httpx2.Response(302, headers={"Location": "http://169.254.169.254/latest/meta-data/"})
    if (host, path) == ("big.example", "/"):
        return httpx2.Response(200, content=b"\xff" * (30 * 2**20))
    if host == "good.example":
        return httpx2.Response(200, content=png())
    raise AssertionError(f"must not be connected to: {request.url} for {host}")


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("http://127.0.0.1/a.png", "fetch_forbidden", ["public internet"]),
        ("http://169.254.169.254/latest/meta-data/", "fetch_forbidden", ["public internet"]),
        ("http://[::1]:8080/a.png", "fetch_forbidden", ["public internet"]),
        ("http://intern.example/a.png", "fetch_forbidden", ["intern.example", "public internet"]),
        ("http://redirecting.example/", "fetch_forbidden", ["public internet"]),
        ("http://big.example/", "fetch_too_large", ["20,971,520"]),
    ],
)
def test_urls_that_are_not_fetched(open_gateway: Any, url: str, code: str, words: list[str]) -> None:
    addresses = {
        "intern.example": "10.1.2.3",
        "redirecting.example": "93.184.216.34",
        "big.example": "93.184.216.34",
        "good.example": "93.184.216.34",
    }
    gateway = open_gateway(fetch_transport=httpx2.MockTransport(web), resolver=resolver(addresses))
    response = gateway.post("/v1/segment", json={**GOOD, "images": [{"url": url}]})
    check(response, 424, code, *words)
    assert "10.1.2.3" not in response.text
    both = gateway.post("/v1/segment", json={**GOOD, "images": [{"url": url}, {"url": "https://good.example/a.png"}]})
    assert both.status_code == 200
    assert both.json()["results"][0]["error"]["code"] == code
    assert both.json()["results"][1]["instances"]
    metrics = gateway.get("/metrics").text
    assert f'segserve_fetch_failures_total{{code="{code}"}} 2.0' in metrics


def test_a_slow_drip_is_given_up(open_gateway: Any) -> None:
    class Drip(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            import asyncio

            while True:
                yield b"\x89"
                await asyncio.sleep(0.01)

    gateway = open_gateway(
        Settings(models=("grounded_sam",), fetch=FetchPolicy(timeout_s=0.2)),
        fetch_transport=httpx2.MockTransport(lambda request: httpx2.Response(200, stream=Drip())),
        resolver=resolver({"slow.example": "93.184.216.34"}),
    )
    response = gateway.post("/v1/segment", json={**GOOD, "images": [{"url": "http://slow.example/a.png?token=s3cret"}]})
    check(response, 424, "fetch_timed_out", "within 0.2 s", "http://slow.example/a.png")
    assert "s3cret" not in response.text


def test_unknown_routes_and_methods_answer_in_the_same_shape(gateway: TestClient) -> None:
    check(gateway.get("/v2/segment"), 404, "not_found", "/v2/segment", "/docs")
    wrong = gateway.get("/v1/segment")
    check(wrong, 405, "method_not_allowed", "GET", "POST")
    assert wrong.headers["allow"] == "POST"
