"""Seed 002 whole: its payloads before a real TorchServe with the demo weights, product names through a chat server."""

from __future__ import annotations

import base64
import functools
import io
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from servers import DEMO_WEIGHTS, ROOT, Served, serving

from chat_server import Asked, ChatServer, Reply, completion
from segserve.masks import decode_rle
from segserve.torchserve.archive import build_archive
from segserve.training.scenes import Scene

NAME = "MALM® Bed frame, high, blue, 160 x 200 cm"
OTHER_NAME = "KIVIK® 3-seat sofa, Tresund light beige, 228 x 95 cm"
PAGE = "https://shop.example"
POINT = (195, 450)
"""On the scene's bed; it has no sofa."""


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    def category(asked: Asked) -> Reply:
        return completion("bed" if NAME in asked.body["messages"][1]["content"] else "Sofa.")

    with ChatServer(category) as running:
        yield running


@pytest.fixture(scope="module")
def actions_served(tmp_path_factory: pytest.TempPathFactory, chat: ChatServer) -> Iterator[Served]:
    """Both models, a chat model for product names, and a page of another origin."""
    folder = tmp_path_factory.mktemp("actions")
    build_archive("grounded_sam", DEMO_WEIGHTS, folder / "model_store")
    build_archive("sam2", ROOT / "weights" / "demo" / "sam2", folder / "model_store")
    environment = {
        "OPENAI_API_KEY": "sk-of-the-tests",
        "OPENAI_BASE_URL": chat.url,
        "SEGSERVE_CORS_ORIGINS": PAGE,
    }
    with serving(
        folder / "served",
        folder / "model_store",
        models=("grounded_sam", "sam2"),
        workers=1,
        environment=environment,
    ) as service:
        yield service


@pytest.fixture(scope="module")
def room(scene_png: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The scene's address on a server of files."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "room.png").write_bytes(scene_png)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/room.png"
        server.shutdown()
        thread.join()


def pixels(encoded: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def act(served: Served, **body: Any) -> Any:
    answer = requests.post(f"{served.url}/invocations", json=body, headers={"Origin": PAGE}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["access-control-allow-origin"] == PAGE
    return answer.json()


def native(served: Served, url: str, model: str, prompt: dict[str, Any], **parameters: Any) -> list[dict[str, Any]]:
    body = {"model": model, "images": [{"url": url}], "prompt": prompt, "parameters": parameters}
    answer = requests.post(f"{served.url}/v1/segment", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    instances: list[dict[str, Any]] = answer.json()["results"][0]["instances"]
    return instances


def check_pictures(answer: dict[str, Any], scene: Scene, inside: np.ndarray) -> None:
    assert np.array_equal(pixels(answer["original"]), scene.image)
    assert np.array_equal(pixels(answer["mask_only"]), np.where(inside[..., None], scene.image, 0))
    overlay = pixels(answer["overlay"])
    assert overlay.shape == scene.image.shape
    assert (overlay != scene.image).any(axis=-1)[inside].mean() > 0.9


def test_a_product_is_found_by_its_category(actions_served: Served, room: str, scene: Scene, chat: ChatServer) -> None:
    answer = act(actions_served, action="langsam", image_url=room, text_prompt=NAME)
    assert (answer["tag"], answer["tag_source"]) == ("bed", "rewritten")
    found = native(actions_served, room, "grounded_sam", {"text": "bed"})
    assert found
    for plural, name in (("boxes", "box"), ("scores", "score"), ("labels", "label")):
        assert answer[plural] == [instance[name] for instance in found]
    check_pictures(answer, scene, np.any([decode_rle(instance["mask"]) for instance in found], axis=0))
    assert chat.chats[0].headers["authorization"] == "Bearer sk-of-the-tests"
    form = {"image_url": room, "text_prompt": NAME}
    sent = requests.post(f"{actions_served.url}/segment/langsam", data=form, timeout=60).json()
    assert sent == {**answer, "product_tag": "bed"}
    assert len(chat.chats) == 1
    assert "sk-of-the-tests" not in actions_served.printed()


def test_what_the_picture_does_not_show(actions_served: Served, room: str, scene: Scene) -> None:
    answer = act(actions_served, action="langsam", image_url=room, text_prompt=OTHER_NAME)
    assert set(answer) == {"original", "error", "tag", "tag_source"}
    assert np.array_equal(pixels(answer["original"]), scene.image)
    assert (answer["error"], answer["tag"]) == ("Nothing that fits 'sofa' was found.", "sofa")


def test_a_click_is_answered_with_the_best_mask(actions_served: Served, room: str, scene: Scene) -> None:
    x, y = POINT
    answer = act(actions_served, action="sam2", image_url=room, x=x, y=y)
    guesses = native(actions_served, room, "sam2", {"points": [[x, y, 1]]}, multimask=True)
    assert len(guesses) == 3
    best = max(guesses, key=lambda instance: instance["score"])
    assert answer["score"] == best["score"]
    check_pictures(answer, scene, decode_rle(best["mask"]))
    files = {"image_url": (None, room), "x": (None, str(x)), "y": (None, str(y))}
    assert requests.post(f"{actions_served.url}/segment/sam2", files=files, timeout=60).json() == answer


def test_ping_and_a_preflight(actions_served: Served) -> None:
    assert act(actions_served, action="ping") == {"status": "healthy"}
    headers = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    answer = requests.options(f"{actions_served.url}/segment/sam2", headers=headers, timeout=30)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, PAGE)


def test_a_point_outside_the_picture(actions_served: Served, room: str, scene: Scene) -> None:
    body = {"action": "sam2", "image_url": room, "x": 5000, "y": 1}
    refused = requests.post(f"{actions_served.url}/invocations", json=body, timeout=60)
    assert refused.status_code == 422
    height, width = scene.image.shape[:2]
    assert f"{width} x {height}" in refused.json()["error"]["message"]
