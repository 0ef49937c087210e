"""POST /invocations with everything that it dispatches on, and GET /execution-parameters."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import yaml
from fake_torchserve import FakeTorchServe
from gateways import OpenGateway
from pictures import HEIGHT, WIDTH, noise, opened, png, saved, source
from PIL import Image
from starlette.testclient import TestClient

from segserve.config import RequestLimits, Settings

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


def test_a_native_body(gateway: TestClient) -> None:
    body = {"model": "grounded_sam", "images": [source(png())], "prompt": {"text": "sofa"}}
    response = gateway.post("/invocations", json=body)
    assert response.status_code == 200
    assert response.json()["results"] == gateway.post("/v1/segment", json=body).json()["results"]


@pytest.mark.parametrize("kind", ["image/png", "application/x-image", "IMAGE/JPEG; q=1"])
def test_a_raw_image_with_custom_attributes(gateway: TestClient, torchserve: FakeTorchServe, kind: str) -> None:
    attributes = "model=grounded_sam; text=sofa. %D0%BF%D0%BE%D0%BB. ;threshold=0.25;nms_iou=0.5;mask_format=none"
    response = gateway.post("/invocations", content=png(), headers={"Content-Type": kind, ATTRIBUTES: attributes})
    assert response.status_code == 200, response.text
    assert [item["label"] for item in response.json()["results"][0]["instances"]] == ["sofa", "пол"]
    assert torchserve.seen == [(png(), {"text": "sofa. пол.", "parameters": {"box_threshold": 0.25, "nms_iou": 0.5}})]


def test_a_raw_image_may_ask_for_a_picture(gateway: TestClient) -> None:
    headers = {"Content-Type": "image/png", ATTRIBUTES: "text=sofa", "Accept": "image/png"}
    response = gateway.post("/invocations", content=png(), headers=headers)
    assert response.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(response.content)).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("attributes", "status", "word"),
    [
        ("sofa", 400, "name=value"),
        ("text=sofa;treshold=0.3", 400, "treshold"),
        ("text=sofa;threshold=2", 400, "box_threshold"),
        ("text=sofa;model=yolo", 404, "yolo"),
        ("", 422, "prompt.text"),
    ],
)
def test_custom_attributes_are_checked(gateway: TestClient, attributes: str, status: int, word: str) -> None:
    headers = {"Content-Type": "image/png", ATTRIBUTES: attributes}
    response = gateway.post("/invocations", content=png(), headers=headers)
    assert response.status_code == status
    assert word in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"images": []}', "application/json"),
        (b"", ""),
        (b"sofa", "text/plain"),
        (b"a,b", "text/csv"),
    ],
)
def test_anything_else_is_told_what_is_accepted(gateway: TestClient, content: bytes, kind: str) -> None:
    response = gateway.post("/invocations", content=content, headers={"Content-Type": kind} if kind else {})
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    for form in ("action", "categoryname", '"model"', "X-Amzn-SageMaker-Custom-Attributes"):
        assert form in message


def test_execution_parameters_come_from_the_configuration(
    open_gateway: OpenGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.models["grounded_sam"] = ["READY"] * 3
    gateway = open_gateway(Settings(models=("grounded_sam",), limits=RequestLimits(max_body_bytes=7 * 2**20)))
    assert gateway.get("/execution-parameters").json() == {
        "MaxConcurrentTransforms": 6,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": 7,
    }


def tile(gateway: TestClient, images: list[dict[str, Any]], **fields: Any) -> Any:
    return gateway.post("/invocations", json={"categoryname": "Flooring", "images": images, **fields})


def pixels(encoded: str) -> np.ndarray:
    return np.asarray(opened(encoded).convert("RGB"))


def test_tiling_changes_the_surface_and_nothing_else(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    response = tile(gateway, [{**source(png()), "_id": "66d2"}], roomName="Living Room")
    assert response.status_code == 200
    assert set(response.json()) == {"processed_images"}
    (encoded,) = response.json()["processed_images"]
    before, after = noise(), pixels(encoded)
    assert np.array_equal(after[: HEIGHT // 2], before[: HEIGHT // 2])
    changed = (after[HEIGHT // 2 :] != before[HEIGHT // 2 :]).any(axis=-1)
    assert changed.mean() > 0.95
    assert torchserve.seen[0][1] == {"text": "floor.", "parameters": {"refine": True}}


def test_tiling_answers_in_order_with_null_for_what_failed(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    images = [
        {**source(png(80, 60)), "_id": "a"},
        {"base64": "broken!", "_id": "b"},
        {**source(png(90, 50)), "_id": "c", "unknown": 1},
        {"url": "http://127.0.0.1/a.png", "_id": 4},
    ]
    response = tile(gateway, images)
    assert response.status_code == 200
    answer = response.json()
    sizes = [encoded and opened(encoded).size for encoded in answer["processed_images"]]
    assert sizes == [(80, 60), None, (90, 50), None]
    assert [(error["_id"], error["code"]) for error in answer["errors"]] == [
        ("b", "invalid_request"),
        (4, "fetch_forbidden"),
    ]
    assert all(error["message"] for error in answer["errors"])


def test_tiling_an_only_image_that_fails_is_still_an_answer(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.react = lambda data, prompt: (200, {"width": WIDTH, "height": HEIGHT, "instances": []})
    answer = tile(gateway, [{**source(png()), "_id": "a"}]).json()
    assert answer["processed_images"] == [None]
    assert answer["errors"][0]["code"] == "nothing_found"
    assert "floor." in answer["errors"][0]["message"]


@pytest.mark.parametrize("name", ["flooring", " FLOORING "])
def test_category_names_ignore_case(gateway: TestClient, name: str) -> None:
    assert tile(gateway, [source(png())], categoryname=name).status_code == 200


def test_an_unknown_category_lists_those_there_are(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    response = tile(gateway, [source(png())], categoryname="Ceilings")
    assert response.status_code == 404
    error = response.json()["error"]
    assert error["code"] == "category_not_found"
    assert "Ceilings" in error["message"]
    assert "Flooring" in error["message"]
    assert torchserve.seen == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"images": []}, "images"),
        ({"images": [source(png())] * 33}, "images"),
        ({"categoryname": 5}, "categoryname"),
        ({"product_image": "ftp://example.com/a"}, "product_image"),
        ({"product_image": "not base64!"}, "product_image"),
    ],
)
def test_tiling_requests_are_checked(gateway: TestClient, change: dict[str, Any], word: str) -> None:
    body = {"categoryname": "Flooring", "images": [source(png())], **change}
    response = gateway.post("/invocations", json=body)
    assert response.status_code == 400
    assert word in response.json()["error"]["message"]


RED = saved(Image.new("RGB", (8, 8), (220, 10, 10)), "PNG")


def looks_red(encoded: str) -> bool:
    lower = pixels(encoded)[HEIGHT // 2 + 1 :].astype(int)
    return bool((lower[..., 0] > 3 * lower[..., 1] + 3).mean() > 0.9)


def test_a_product_image_of_the_request_replaces_the_catalogs(open_gateway: OpenGateway) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34"]

    web = httpx2.MockTransport(lambda request: httpx2.Response(200, content=RED))
    gateway = open_gateway(fetch_transport=web, resolver=resolve)
    encoded = source(RED)["base64"]
    for product in (encoded, {"base64": encoded}, "https://shop.example/red.png", {"url": "https://shop.example/r"}):
        (tiled,) = tile(gateway, [source(png())], product_image=product).json()["processed_images"]
        assert looks_red(tiled)
    (usual,) = tile(gateway, [source(png())]).json()["processed_images"]
    assert not looks_red(usual)


def test_a_catalog_of_ones_own_with_a_room(open_gateway: OpenGateway, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "blue.png").write_bytes(saved(Image.new("RGB", (8, 8), (10, 10, 220)), "PNG"))
    category = {"text": "wall.", "product": "blue.png", "rooms": {"Living Room": {"product": "red.png"}}}
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(yaml.safe_dump({"categories": {"Paint": category}}), encoding="utf-8")
    gateway = open_gateway(Settings(models=("grounded_sam",), tiling_catalog=catalog))
    (special,) = tile(gateway, [source(png())], categoryname="paint", roomName="living room").json()["processed_images"]
    (usual,) = tile(gateway, [source(png())], categoryname="paint", roomName="Attic").json()["processed_images"]
    assert looks_red(special)
    assert not looks_red(usual)


def test_an_answer_of_tiles_over_the_limit(open_gateway: OpenGateway) -> None:
    gateway = open_gateway(Settings(models=("grounded_sam",), limits=RequestLimits(max_answer_bytes=500)))
    response = tile(gateway, [source(png())])
    assert (response.status_code, response.json()["error"]["code"]) == (413, "answer_too_large")
