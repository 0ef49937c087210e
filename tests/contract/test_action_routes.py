"""Seed 002's requests: the actions of /invocations, and the forms /segment/langsam and /segment/sam2."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import httpx2
import numpy as np
import pytest
from fake_torchserve import Answer, FakeTorchServe
from gateways import OpenGateway
from pictures import HEIGHT, WIDTH, noise, opened, png, rotated_jpeg
from starlette.testclient import TestClient

from segserve.config import RequestLimits, Settings
from segserve.masks import encode_rle

URL = "https://shop.example/room.png"
TEXT = {"action": "langsam", "image_url": URL, "text_prompt": "black jeans"}
CLICK = {"action": "sam2", "image_url": URL, "x": 20, "y": 10}
FORM = "application/x-www-form-urlencoded"


def left_part(share: float) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[:, : int(WIDTH * share)] = True
    return mask


def instance(mask: np.ndarray, score: float, label: str = "object") -> dict[str, Any]:
    columns = int(mask.any(axis=0).sum())
    box = [0.0, 0.0, float(columns), float(HEIGHT)]
    return {"label": label, "score": score, "box": box, "area": int(mask.sum()), "mask": encode_rle(mask)}


def three_masks(data: bytes, prompt: dict[str, Any]) -> Answer:
    """A worker of the model sam2 that is unsure how much of the left is meant; the second guess is the best."""
    assert "points" in prompt
    guesses = [instance(left_part(share), score) for share, score in ((0.25, 0.4), (0.5, 0.9), (1.0, 0.6))]
    return 200, {"width": WIDTH, "height": HEIGHT, "instances": guesses}


class Web:
    """The internet: one picture everywhere, and what was asked for."""

    def __init__(self) -> None:
        self.content = png()
        self.asked: list[str] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request.headers["host"] + request.url.path)
        return httpx2.Response(404 if request.url.path == "/gone.png" else 200, content=self.content)


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
def gateway(open_gateway: OpenGateway, torchserve: FakeTorchServe, web: Web) -> TestClient:
    """With a grounded_sam that finds the lower half, and a sam2 under a name of its own."""

    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34"]

    torchserve.models["sam2"] = ["READY"]
    half = torchserve.react
    torchserve.react = lambda data, prompt: (three_masks if "points" in prompt else half)(data, prompt)
    settings = Settings(models=("grounded_sam", "sam2"))
    return open_gateway(settings, fetch_transport=httpx2.MockTransport(web), resolver=resolve)


def act(gateway: TestClient, **body: Any) -> Any:
    return gateway.post("/invocations", json=body)


def pixels(encoded: str) -> np.ndarray:
    picture = opened(encoded)
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    return np.asarray(picture)


def error(response: Any, status: int, code: str | None = None) -> str:
    assert response.status_code == status, response.text
    body = response.json()["error"]
    assert code is None or body["code"] == code
    return str(body["message"])


def test_langsam_answers_three_pictures_and_what_was_found(
    gateway: TestClient, torchserve: FakeTorchServe, web: Web
) -> None:
    response = act(gateway, **{**TEXT, "text_prompt": "sofa. red chair."})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert set(answer) == {"original", "overlay", "mask_only", "boxes", "scores", "labels", "tag", "tag_source"}
    assert np.array_equal(pixels(answer["original"]), noise())
    mask_only = pixels(answer["mask_only"])
    assert np.array_equal(mask_only[HEIGHT // 2 :], noise()[HEIGHT // 2 :])
    assert not mask_only[: HEIGHT // 2].any()
    overlay = pixels(answer["overlay"])
    assert overlay.shape == noise().shape
    assert (overlay != noise()).any(axis=-1)[HEIGHT // 2 + 4 :].mean() > 0.9
    assert answer["boxes"] == [[0, HEIGHT // 2, WIDTH, HEIGHT]] * 2
    assert answer["scores"] == [0.9, 0.9]
    assert answer["labels"] == ["sofa", "red chair"]
    assert (answer["tag"], answer["tag_source"]) == ("sofa. red chair.", "as_given")
    assert torchserve.asked == ["grounded_sam"]
    assert web.asked == ["shop.example/room.png"]


def test_langsam_that_finds_nothing_answers_the_picture_and_an_error(
    gateway: TestClient, torchserve: FakeTorchServe
) -> None:
    torchserve.react = lambda data, prompt: (200, {"width": WIDTH, "height": HEIGHT, "instances": []})
    for answer in (act(gateway, **TEXT), gateway.post("/segment/langsam", data=TEXT)):
        assert answer.status_code == 200
        body = answer.json()
        assert np.array_equal(pixels(body["original"]), noise())
        assert "black jeans" in body["error"]
        assert body["tag"] == "black jeans"
        assert not {"overlay", "mask_only", "boxes"} & set(body)


def test_sam2_answers_the_best_of_the_masks(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    response = act(gateway, **CLICK)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert set(answer) == {"original", "overlay", "mask_only", "score"}
    assert answer["score"] == 0.9
    inside = left_part(0.5)
    mask_only = pixels(answer["mask_only"])
    assert np.array_equal(mask_only[inside], noise()[inside])
    assert not mask_only[~inside].any()
    assert np.array_equal(pixels(answer["original"]), noise())
    assert torchserve.asked == ["sam2"]
    assert torchserve.seen[0][1] == {"points": [[20.0, 10.0, 1]], "parameters": {"multimask": True}}


@pytest.mark.parametrize("masks", [[], [np.zeros((HEIGHT, WIDTH), dtype=bool)]])
def test_sam2_that_finds_nothing(gateway: TestClient, torchserve: FakeTorchServe, masks: list[np.ndarray]) -> None:
    found = [instance(mask, 0.3) for mask in masks]
    torchserve.react = lambda data, prompt: (200, {"width": WIDTH, "height": HEIGHT, "instances": found})
    response = act(gateway, **CLICK)
    assert response.status_code == 200
    assert set(response.json()) == {"original", "error"}


@pytest.mark.parametrize(("x", "y"), [("20", " 10.0 "), (20.0, "1e1")])
def test_numbers_may_come_as_text(gateway: TestClient, torchserve: FakeTorchServe, x: Any, y: Any) -> None:
    assert act(gateway, **{**CLICK, "x": x, "y": y}).status_code == 200
    assert torchserve.seen[0][1]["points"] == [[20.0, 10.0, 1]]


@pytest.mark.parametrize(
    ("x", "y", "sent"),
    [(0, 0, [0, 0]), (WIDTH, HEIGHT, [WIDTH - 1, HEIGHT - 1]), (63.5, 47.25, [63, 47]), (1.5, 2.5, [1.5, 2.5])],
)
def test_points_up_to_the_edges_are_within(
    gateway: TestClient, torchserve: FakeTorchServe, x: float, y: float, sent: list[float]
) -> None:
    assert act(gateway, **{**CLICK, "x": x, "y": y}).status_code == 200
    assert torchserve.seen[0][1]["points"] == [[*sent, 1]]


@pytest.mark.parametrize(("x", "y"), [(WIDTH + 1, 0), (0, HEIGHT + 0.5), (-1, 0), (0, -0.1), (1e9, 0), (HEIGHT, WIDTH)])
def test_points_outside_are_told_the_pictures_size(
    gateway: TestClient, torchserve: FakeTorchServe, x: float, y: float
) -> None:
    for response in (
        act(gateway, **{**CLICK, "x": x, "y": y}),
        gateway.post("/segment/sam2", data={**CLICK, "x": x, "y": y}),
    ):
        assert f"{WIDTH} x {HEIGHT}" in error(response, 422, "invalid_prompt")
    assert torchserve.seen == []


def test_points_are_of_the_upright_picture(gateway: TestClient, torchserve: FakeTorchServe, web: Web) -> None:
    web.content = rotated_jpeg()
    assert act(gateway, **{**CLICK, "x": WIDTH - 1, "y": 1}).status_code == 200
    assert f"{WIDTH} x {HEIGHT}" in error(act(gateway, **{**CLICK, "x": 1, "y": WIDTH - 1}), 422)


@pytest.mark.parametrize("form", ["multipart", "urlencoded"])
def test_the_forms_answer_like_the_actions(gateway: TestClient, form: str) -> None:
    def post(path: str, fields: dict[str, Any]) -> Any:
        if form == "urlencoded":
            return gateway.post(path, data=fields)
        return gateway.post(path, files={name: (None, str(value)) for name, value in fields.items()})

    text = post("/segment/langsam", TEXT)
    assert text.status_code == 200, text.text
    assert text.json() == {**act(gateway, **TEXT).json(), "product_tag": "black jeans"}
    click = post("/segment/sam2", CLICK)
    assert click.status_code == 200, click.text
    assert click.json() == act(gateway, **CLICK).json()


def test_ping_is_healthy_once_everything_is_ready(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    response = act(open_gateway(), action="ping")
    assert (response.status_code, response.json()) == (200, {"status": "healthy"})
    torchserve.models["grounded_sam"] = ["LOADING"]
    waiting = act(open_gateway(ready=False), action="ping")
    assert "grounded_sam" in error(waiting, 503, "not_ready")
    assert waiting.headers["retry-after"]


@pytest.mark.parametrize("action", ["segment", "", None, 5, ["sam2"], {"a": 1}, "SAM2", "x" * 10_000])
def test_any_other_action_is_told_the_three(gateway: TestClient, action: Any) -> None:
    message = error(act(gateway, action=action, image_url=URL), 400, "invalid_request")
    assert message.startswith("action: expected one of langsam, sam2, ping; came ")
    assert len(message) < 200


@pytest.mark.parametrize("name", ["image_url", "text_prompt", "x", "y"])
@pytest.mark.parametrize("value", ["", None])
def test_a_missing_field_is_named(gateway: TestClient, web: Web, name: str, value: Any) -> None:
    body, path = (TEXT, "langsam") if name == "text_prompt" else (CLICK, "sam2")
    without = {key: item for key, item in body.items() if key != name}
    for response in (
        act(gateway, **without, **({} if value is None else {name: value})),
        act(gateway, **without, **{name: None}),
        gateway.post(f"/segment/{path}", data={**without, **({} if value is None else {name: value})}),
    ):
        assert error(response, 400, "missing_field").startswith(f"{name}: missing")
    assert web.asked == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"x": "left"}, "x"),
        ({"x": "nan"}, "x"),
        ({"y": "inf"}, "y"),
        ({"y": "1e999"}, "y"),
        ({"x": True}, "x"),
        ({"x": [1]}, "x"),
        ({"x": 10**400}, "x"),
        ({"image_url": 5}, "image_url"),
        ({"image_url": "file:///etc/passwd"}, "image_url: the scheme must be http or https"),
        ({"image_url": "s3://bucket/key.png"}, "image_url"),
        ({"image_url": "data:image/png;base64,AAAA"}, "data URL"),
        ({"image_url": "https://someone:secret@shop.example/a.png"}, "image_url"),
    ],
)
def test_wrong_fields_are_named(gateway: TestClient, web: Web, change: dict[str, Any], word: str) -> None:
    message = error(act(gateway, **{**CLICK, **change}), 400, "invalid_request")
    assert word in message
    assert len(message) < 300
    assert web.asked == []


@pytest.mark.parametrize("text", [" ", "...", ". .\n."])
def test_a_text_that_says_nothing(gateway: TestClient, web: Web, text: str) -> None:
    assert "text_prompt" in error(act(gateway, **{**TEXT, "text_prompt": text}), 422, "invalid_prompt")
    assert web.asked == []


def test_a_text_that_is_too_long(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    message = error(act(gateway, **{**TEXT, "text_prompt": "jeans " * 60}), 422, "invalid_prompt")
    assert message.startswith("text_prompt: at most 256 characters")
    assert torchserve.seen == []


def test_pictures_that_cannot_be_had(gateway: TestClient, web: Web) -> None:
    assert "404" in error(act(gateway, **{**TEXT, "image_url": "https://shop.example/gone.png"}), 424, "fetch_failed")
    assert 'segserve_fetch_failures_total{code="fetch_failed"} 1.0' in gateway.get("/metrics").text
    web.content = b"<html>no picture</html>"
    for body in (TEXT, CLICK):
        error(act(gateway, **body), 415, "not_an_image")


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "[::1]", "10.0.0.8"])
def test_only_public_addresses_are_fetched(open_gateway: OpenGateway, torchserve: FakeTorchServe, host: str) -> None:
    error(act(open_gateway(), **{**TEXT, "image_url": f"http://{host}/a.png"}), 424, "fetch_forbidden")


@pytest.mark.parametrize(
    ("content", "kind", "word"),
    [
        (b'{"image_url": "https://a.example/a.png"}', "application/json", "form"),
        (b"", FORM, "empty"),
        (urlencode([("x", 1), ("x", 2), ("y", 3), ("image_url", URL)]).encode(), FORM, "x: expected once, came 2"),
        (b"x=\xff", FORM, "UTF-8"),
    ],
)
def test_what_is_no_such_form(gateway: TestClient, content: bytes, kind: str, word: str) -> None:
    response = gateway.post("/segment/sam2", content=content, headers={"Content-Type": kind})
    assert word in error(response, 400, "invalid_request")


@pytest.mark.parametrize(("body", "kind"), [(TEXT, "grounded_sam"), (CLICK, "sam2")])
def test_a_model_that_is_not_served_or_not_ready(
    open_gateway: OpenGateway, torchserve: FakeTorchServe, body: dict[str, Any], kind: str
) -> None:
    torchserve.models = {"mask_rcnn": ["READY"]}
    message = error(act(open_gateway(Settings(models=("mask_rcnn",))), **body), 404, "model_not_found")
    assert f"segserve archive {kind}" in message
    torchserve.models = {kind: ["LOADING"]}
    error(act(open_gateway(Settings(models=(kind,)), ready=False), **body), 503, "not_ready")


def test_an_answer_over_the_limit_says_what_to_do(
    open_gateway: OpenGateway, torchserve: FakeTorchServe, web: Web
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34"]

    settings = Settings(models=("grounded_sam",), limits=RequestLimits(max_answer_bytes=1000))
    gateway = open_gateway(settings, fetch_transport=httpx2.MockTransport(web), resolver=resolve)
    assert "/v1/segment" in error(act(gateway, **TEXT), 413, "answer_too_large")
