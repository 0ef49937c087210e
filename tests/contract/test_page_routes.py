"""The web page's files and headers, and the routes made for it."""

from __future__ import annotations

import io
import re

import httpx2
import numpy as np
import pytest
from fake_torchserve import FakeTorchServe
from gateways import OpenGateway
from pictures import noise, png, saved
from PIL import Image
from starlette.testclient import TestClient

from segserve.config import Settings
from segserve.gateway.page_files import page_files

SCRIPTS = sorted(path for path in page_files() if path.endswith(".js"))
SCENES = sorted(path for path in page_files() if path.startswith("/demo-scenes/"))


def test_every_file_is_sent_with_its_type_and_the_strict_headers(gateway: TestClient) -> None:
    types = {
        "": "text/html",
        "js": "text/javascript",
        "css": "text/css",
        "svg": "image/svg+xml",
        "ico": "image/svg+xml",
        "jpg": "image/jpeg",
    }
    assert {"/", "/static/page.css", "/static/js/main.js", "/static/icon.svg"} <= set(page_files())
    for path in page_files():
        response = gateway.get(path)
        assert response.status_code == 200, path
        suffix = path.rpartition(".")[2] if "." in path else ""
        assert response.headers["content-type"].partition(";")[0] == types[suffix]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-cache"
        policy = dict(rule.strip().split(" ", 1) for rule in response.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["worker-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert "unsafe" not in response.headers["content-security-policy"]


def test_a_file_that_is_known_is_not_sent_again(gateway: TestClient) -> None:
    for path in ("/", "/static/js/main.js", SCENES[0]):
        tag = gateway.get(path).headers["etag"]
        for known in (tag, f'"other", W/{tag}'):
            again = gateway.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert "content-security-policy" in again.headers
        assert gateway.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_page_names_only_files_that_there_are(gateway: TestClient) -> None:
    page = gateway.get("/").text
    named = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert len(named) >= 5
    for name in named:
        assert gateway.get(f"/{name}").status_code == 200, name
    for script in SCRIPTS:
        for name in re.findall(r'(?:from |new URL\()"\./([\w.]+)"', gateway.get(script).text):
            assert f"/static/js/{name}" in page_files(), f"{script} imports {name}"
    shown = re.findall(r'name: "(\w+)", title', gateway.get("/static/js/scenes.js").text)
    assert sorted(f"/demo-scenes/{name}.jpg" for name in shown) == SCENES


def test_the_page_holds_nothing_inline_and_nothing_from_elsewhere(gateway: TestClient) -> None:
    page = gateway.get("/").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert all(" src=" in tag for tag in re.findall(r"<script[^>]*>", page))
    for path, file in page_files().items():
        if path.endswith((".js", ".css")) or path == "/":
            text = file.data.decode("utf-8")
            assert not re.search(r"(?:src|href|url\(|import)[\s=(\"']+(?:https?:)?//", text), path
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
            ), path


def test_demo_scenes_are_small_pictures(gateway: TestClient) -> None:
    assert 3 <= len(SCENES) <= 6
    for path in SCENES:
        assert len(gateway.get(path).content) <= 60_000


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static",
        "/static/index.html",
        "/static/js/none.js",
        "/static/js",
        "/static/../page_files.py",
        "/static/..%2Fpage_files.py",
        "/static/%2e%2e/data/catalog.yaml",
        "/static/js/..%2f..%2f..%2fapp.py",
        "/static//etc/passwd",
        "/demo-scenes/../index.html",
        "/demo-scenes/..%5c..%5capp.py",
        "/demo-scenes/none.jpg",
    ],
)
def test_no_other_file_can_be_had(gateway: TestClient, path: str) -> None:
    response = gateway.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] in ("file_not_found", "not_found")


def test_the_page_needs_no_key_and_the_api_does(open_gateway: OpenGateway) -> None:
    gateway = open_gateway(Settings(models=("grounded_sam",), api_keys=frozenset({"a caller"})))
    for path in page_files():
        assert gateway.get(path).status_code == 200, path
    for path in ("/v1/models", "/v1/categories", "/docs", "/static/none.js", "/static/../v1/models"):
        assert gateway.get(path).status_code == 401, path
    assert gateway.post("/v1/picture", json={"url": "https://example.com/a.png"}).status_code == 401
    assert gateway.get("/v1/categories", headers={"X-API-Key": "a caller"}).status_code == 200


def test_another_endpoint_is_named_in_the_page_and_its_policy(open_gateway: OpenGateway, gateway: TestClient) -> None:
    assert '<meta name="segserve-endpoint" content="">' in gateway.get("/").text
    other = open_gateway(Settings(models=("grounded_sam",), page_endpoint="https://segserve.example:8443"))
    page = other.get("/")
    assert '<meta name="segserve-endpoint" content="https://segserve.example:8443">' in page.text
    assert "connect-src 'self' https://segserve.example:8443;" in page.headers["content-security-policy"]
    assert page.headers["etag"] != gateway.get("/").headers["etag"]


def test_an_endpoint_with_a_path_is_allowed_as_a_whole(open_gateway: OpenGateway) -> None:
    """As a stage of API Gateway is: in a policy, a path without a slash at its end stands for that address alone."""
    page = open_gateway(Settings(models=("grounded_sam",), page_endpoint="https://api.example/prod")).get("/")
    assert '<meta name="segserve-endpoint" content="https://api.example/prod">' in page.text
    assert "connect-src 'self' https://api.example/prod/;" in page.headers["content-security-policy"]


def test_the_categories_of_the_catalog(gateway: TestClient) -> None:
    listed = gateway.get("/v1/categories").json()["categories"]
    rooms = {category["name"]: category["rooms"] for category in listed}
    assert rooms["Flooring"] == ["Kitchen", "Bathroom", "Bedroom"]
    assert rooms["Carpets"] == []


def test_the_queue_of_a_model(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    assert gateway.get("/v1/models").json()["models"][0]["queued"] == torchserve.pending


async def resolved(host: str, port: int) -> list[str]:
    return ["93.184.216.34"]


def fetching(open_gateway: OpenGateway, body: bytes) -> TestClient:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=body))
    return open_gateway(fetch_transport=transport, resolver=resolved)


def test_a_picture_by_its_address(open_gateway: OpenGateway) -> None:
    for data, media_type in (
        (png(), "image/png"),
        (saved(Image.fromarray(noise()), "JPEG"), "image/jpeg"),
    ):
        response = fetching(open_gateway, data).post("/v1/picture", json={"url": "https://pictures.example/a"})
        assert (response.status_code, response.content) == (200, data)
        assert response.headers["content-type"] == media_type
        assert response.headers["x-content-type-options"] == "nosniff"


def test_a_picture_that_browsers_do_not_show_becomes_a_png(open_gateway: OpenGateway) -> None:
    tiff = saved(Image.fromarray(noise()), "TIFF")
    response = fetching(open_gateway, tiff).post("/v1/picture", json={"url": "https://pictures.example/a.tif"})
    assert response.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(response.content))), noise())


def test_what_is_no_picture_is_not_passed_on(open_gateway: OpenGateway) -> None:
    gateway = fetching(open_gateway, b"<html><script>alert(1)</script>")
    response = gateway.post("/v1/picture", json={"url": "https://pictures.example/a"})
    assert (response.status_code, response.json()["error"]["code"]) == (415, "not_an_image")


def test_a_picture_at_a_private_address_is_refused(gateway: TestClient) -> None:
    for url in ("http://127.0.0.1:8080/metrics", "http://169.254.169.254/latest/meta-data", "file:///etc/passwd"):
        response = gateway.post("/v1/picture", json={"url": url})
        assert response.status_code in (400, 424), url
        assert "image/" not in response.headers["content-type"]
    assert gateway.post("/v1/picture", json={}).status_code == 400
    assert gateway.post("/v1/picture", json={"address": "x"}).status_code == 400
