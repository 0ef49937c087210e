"""POST /predict, seed 003's route: the drawn picture, the percentage of the union of the masks, its options."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fake_torchserve import Answer, FakeTorchServe
from gateways import OpenGateway
from pictures import png, rotated_jpeg, saved, truncated_png
from PIL import Image
from starlette.testclient import TestClient

from segserve.colors import colors_of
from segserve.config import ArchivedModel, RequestLimits, Settings
from segserve.masks import decode_rle, encode_rle

WIDTH, HEIGHT = 400, 300
BOXES = ((20, 60, 160, 200), (100, 100, 260, 220), (100, 100, 260, 220))
"""Two that overlap, and one twice."""


def disc(box: tuple[int, int, int, int], width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    x0, y0, x1, y1 = box
    y, x = np.mgrid[:height, :width] + 0.5
    return ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2 <= 1


def instance(mask: np.ndarray, box: tuple[int, int, int, int], score: float = 0.9) -> dict[str, Any]:
    area = int(mask.sum())
    return {
        "label": "balloon",
        "score": score,
        "box": [float(side) for side in box],
        "area": area,
        "mask": encode_rle(mask),
    }


def finds(*masks: np.ndarray, width: int = WIDTH, height: int = HEIGHT, boxes: Any = BOXES) -> Any:
    found = [instance(mask, box) for mask, box in zip(masks, boxes, strict=False)]

    def react(data: bytes, prompt: dict[str, Any]) -> Answer:
        return 200, {"width": width, "height": height, "instances": found}

    return react


MASKS = [disc(box) for box in BOXES]
UNION = MASKS[0] | MASKS[1]
SETTINGS = Settings(models=("mask_rcnn",))


@pytest.fixture
def torchserve() -> FakeTorchServe:
    return FakeTorchServe(models={"mask_rcnn": ["READY"]}, react=finds(*MASKS))


@pytest.fixture
def gateway(open_gateway: OpenGateway) -> Iterator[TestClient]:
    yield open_gateway(SETTINGS)


def colorful() -> np.ndarray:
    """No gray pixel in it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([40 + x % 60, 120 + y % 80, np.full_like(x, 20)], axis=2).astype(np.uint8)


def photo() -> bytes:
    return saved(Image.fromarray(colorful()), "PNG")


def ask(gateway: TestClient, data: bytes | None = None, accept: str = "", **options: str) -> Any:
    headers = {"Accept": accept} if accept else {}
    return gateway.post("/predict", files={"image": ("a.png", data or photo())}, data=options, headers=headers)


def pixels(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image)


def error(response: Any, status: int = 400) -> str:
    assert response.status_code == status, response.text
    body = response.json()["error"]
    assert body["request_id"]
    return str(body["message"])


@pytest.mark.parametrize("accept", ["", "*/*", "image/png", "image/*", "text/html, image/png;q=0.9, */*;q=0.1"])
def test_the_answer_is_the_picture_with_masks_boxes_and_labels(
    gateway: TestClient, torchserve: FakeTorchServe, accept: str
) -> None:
    response = ask(gateway, accept=accept)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    drawn, original = pixels(response.content), colorful()
    assert drawn.shape == original.shape
    changed = (drawn != original).any(axis=2)
    assert changed[UNION].all(), "every masked pixel is tinted"
    assert changed[59:61, 20:40].all() and changed[199:201, 20:40].all(), "the boxes' corners, where there is no mask"
    assert changed[44:58, 22:70].any(), "a label above the first box"
    assert not changed[:30].any() and not changed[:, 330:].any(), "and nothing far from what was found"
    # The default threshold is the route's own, whatever the archive's is.
    assert torchserve.seen == [(photo(), {"parameters": {"score_threshold": 0.5}})]


def test_the_percentage_is_that_of_the_union(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    expected = round(100 * np.count_nonzero(UNION) / (WIDTH * HEIGHT), 2)
    assert expected < 100 * sum(mask.sum() for mask in MASKS) / (WIDTH * HEIGHT), "the masks overlap"
    headers = ask(gateway).headers
    assert float(headers["x-masked-percentage"]) == expected
    assert float(headers["x-unmasked-percentage"]) == round(100 - expected, 2)
    assert all(len(headers[f"x-{part}masked-percentage"].split(".")[1]) == 2 for part in ("", "un"))


@pytest.mark.parametrize(
    ("covered", "size", "masked", "unmasked"),
    [
        ([0], (1, 3), "33.33", "66.67"),
        ([0, 1], (1, 3), "66.67", "33.33"),
        ([0, 1, 2], (1, 3), "100.00", "0.00"),
        ([], (1, 3), "0.00", "100.00"),
        (range(7), (100, 101), "0.07", "99.93"),
    ],
)
def test_percentages_are_rounded_and_add_up(
    gateway: TestClient, torchserve: FakeTorchServe, covered: Any, size: tuple[int, int], masked: str, unmasked: str
) -> None:
    height, width = size
    mask = np.zeros(height * width, dtype=bool)
    mask[list(covered)] = True
    thrice = [mask.reshape(size)] * 3
    torchserve.react = finds(*thrice, width=width, height=height, boxes=[(0, 0, width, height)] * 3)
    response = ask(gateway, png(width, height))
    assert (response.headers["x-masked-percentage"], response.headers["x-unmasked-percentage"]) == (masked, unmasked)
    answer = ask(gateway, png(width, height), "application/json").json()
    assert answer["masked_percentage"] + answer["unmasked_percentage"] == 100
    assert answer["masked_percentage"] == float(masked)


def test_nothing_found_is_the_picture_itself(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.react = finds()
    response = ask(gateway)
    assert np.array_equal(pixels(response.content), colorful())
    assert response.headers["x-masked-percentage"] == "0.00"
    gray = pixels(ask(gateway, remove_colors="true").content)
    assert (gray == gray[..., :1]).all()


def test_json_holds_the_same(gateway: TestClient) -> None:
    response = ask(gateway, accept="application/json")
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert set(answer) == {"masked_percentage", "unmasked_percentage", "instances", "image"}
    drawn = ask(gateway)
    assert base64.b64decode(answer["image"], validate=True) == drawn.content
    assert f"{answer['masked_percentage']:.2f}" == drawn.headers["x-masked-percentage"]
    assert [(item["label"], item["score"], item["box"], item["area"]) for item in answer["instances"]] == [
        ("balloon", 0.9, list(box), int(mask.sum())) for box, mask in zip(BOXES, MASKS, strict=True)
    ]
    for item, mask in zip(answer["instances"], MASKS, strict=True):
        assert np.array_equal(decode_rle(item["mask"]), mask)


def test_remove_colors_grays_what_is_not_masked_and_leaves_the_rest(gateway: TestClient) -> None:
    plain, splashed = ask(gateway), ask(gateway, remove_colors="true")
    assert splashed.headers["x-masked-percentage"] == plain.headers["x-masked-percentage"]
    drawn, original = pixels(splashed.content), colorful()
    inside = disc((30, 70, 150, 190)) & ~disc((95, 95, 265, 225))
    kept = (drawn == original).all(axis=2)
    assert kept[inside].mean() > 0.85, "but for labels, masked pixels keep their colors"
    far = np.ones((HEIGHT, WIDTH), dtype=bool)
    far[30:230, 10:275] = False
    assert (drawn[far] == drawn[far][:, :1]).all()
    # Where only a box would be, the gray stays gray.
    corner = drawn[196:203, 18:30].reshape(-1, 3)
    assert (corner == corner[:, :1]).all()
    luminance = original @ np.asarray([0.299, 0.587, 0.114])
    assert np.abs(drawn[far][:, 0] - luminance[far]).max() <= 1
    assert (~kept & UNION).any(), "outlines are drawn"


@pytest.mark.parametrize("said", ["true", "True", "1", "yes", "on", " true "])
def test_remove_colors_is_understood_in_the_form_and_in_the_query(gateway: TestClient, said: str) -> None:
    wanted = ask(gateway, remove_colors="true").content
    assert wanted != ask(gateway, remove_colors="false").content == ask(gateway).content
    assert ask(gateway, remove_colors=said).content == wanted
    query = gateway.post("/predict", params={"remove_colors": said}, files={"image": photo()})
    assert query.content == wanted


@pytest.mark.parametrize("value", ["0", "1", "0.25", "1e-3"])
def test_threshold_reaches_the_model(gateway: TestClient, torchserve: FakeTorchServe, value: str) -> None:
    assert ask(gateway, threshold=value).status_code == 200
    assert torchserve.seen[-1][1] == {"parameters": {"score_threshold": float(value)}}


def test_other_ways_to_send_the_image(gateway: TestClient) -> None:
    wanted = ask(gateway).content
    assert gateway.post("/predict", files={"file": ("a b.png", photo(), "image/png")}).content == wanted
    for kind in ("image/png", "image/jpeg", "application/octet-stream", "application/x-image"):
        raw = gateway.post("/predict", content=photo(), headers={"Content-Type": kind}, params={"threshold": "0.5"})
        assert raw.content == wanted
    assert gateway.post("/predict/", files={"image": photo()}).content == wanted


def test_a_picture_that_exif_turns_is_drawn_upright(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.react = finds(np.ones((48, 64), dtype=bool), width=64, height=48, boxes=[(0, 0, 64, 48)])
    response = ask(gateway, rotated_jpeg())
    assert pixels(response.content).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"remove_colors": "banana"}, ("remove_colors", "boolean", "banana")),
        ({"remove_colors": ""}, ("remove_colors", "boolean")),
        ({"threshold": "1.01"}, ("threshold", "less than or equal to 1", "1.01")),
        ({"threshold": "-0.1"}, ("threshold", "greater than or equal to 0", "-0.1")),
        ({"threshold": "nan"}, ("threshold", "finite")),
        ({"threshold": "half"}, ("threshold", "number", "half")),
        ({"treshold": "0.5"}, ("treshold", "unknown", "threshold", "remove_colors")),
    ],
)
def test_wrong_values_are_named(
    gateway: TestClient, torchserve: FakeTorchServe, options: dict[str, str], named: tuple[str, ...]
) -> None:
    for response in (
        ask(gateway, **options),
        gateway.post("/predict", params=options, files={"image": photo()}),
        gateway.post("/predict", params=options, content=photo(), headers={"Content-Type": "image/png"}),
    ):
        message = error(response)
        assert all(word in message for word in named), message
    assert not torchserve.seen


def test_an_option_said_twice_is_refused(gateway: TestClient) -> None:
    response = gateway.post(
        "/predict", params={"threshold": "0.5"}, data={"threshold": "0.5"}, files={"image": photo()}
    )
    assert error(response) == "threshold: given more than once."


def test_there_must_be_one_image(gateway: TestClient) -> None:
    two = [("image", ("a.png", photo())), ("image", ("b.png", photo()))]
    assert "came 2" in error(gateway.post("/predict", files=two))
    assert "came 2" in error(gateway.post("/predict", files={"image": photo(), "file": photo()}))
    assert "came 0" in error(gateway.post("/predict", files={"threshold": (None, "0.5")}))
    assert "0 bytes" in error(gateway.post("/predict", files={"image": ("a.png", b"")}))
    assert "0 bytes" in error(gateway.post("/predict"))
    assert "0 bytes" in error(gateway.post("/predict", headers={"Content-Type": "image/png"}))
    assert "field image" in error(gateway.post("/predict", json={"image": "…"}))
    assert "field image" in error(gateway.post("/predict", data={"image": "a.png"}))
    assert "boundary" in error(gateway.post("/predict", content=b"x", headers={"Content-Type": "multipart/form-data"}))


def test_what_is_no_picture_is_refused(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    assert "not an image" in error(ask(gateway, b"just text"), 415)
    torchserve.react = finds(np.ones((48, 64), dtype=bool), width=64, height=48)
    error(ask(gateway, truncated_png()), 422)


def test_an_error_of_the_worker_is_the_answer(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.react = lambda data, prompt: (507, {"error": {"code": "out_of_memory", "message": "It does not fit."}})
    assert error(ask(gateway), 507) == "It does not fit."


def test_a_worker_that_saw_another_size_is_a_bug_and_not_a_wrong_picture(
    gateway: TestClient, torchserve: FakeTorchServe
) -> None:
    torchserve.react = finds(np.ones((48, 64), dtype=bool), width=64, height=48)
    assert "another size" in error(ask(gateway), 500)


def test_an_answer_over_the_limit_says_what_to_do(open_gateway: OpenGateway) -> None:
    gateway = open_gateway(Settings(models=("mask_rcnn",), limits=RequestLimits(max_answer_bytes=500)))
    for accept in ("image/png", "application/json"):
        assert "smaller picture" in error(ask(gateway, accept=accept), 413)


def test_a_key_is_asked_for(open_gateway: OpenGateway) -> None:
    gateway = open_gateway(Settings(models=("mask_rcnn",), api_keys=frozenset({"key"})))
    error(ask(gateway), 401)
    files = {"image": photo()}
    assert gateway.post("/predict", files=files, headers={"X-API-Key": "key"}).status_code == 200


def test_a_mask_rcnn_under_another_name_is_asked(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    torchserve.models = {"grounded_sam": ["READY"], "balloons": ["READY"], "cells": ["READY"]}
    about = {name: ArchivedModel("mask_rcnn") for name in ("balloons", "cells")}
    asked: list[str] = []
    answers = {name: finds(MASKS[index]) for index, name in enumerate(("balloons", "cells"))}
    original = torchserve._predict

    async def spy(model: str, headers: dict[str, str], body: bytes) -> Answer:
        asked.append(model)
        torchserve.react = answers[model]
        return await original(model, headers, body)

    torchserve._predict = spy  # type: ignore[method-assign]
    gateway = open_gateway(Settings(models=("grounded_sam", "balloons", "cells"), archives=about))
    first, chosen = ask(gateway), ask(gateway, model="cells")
    assert asked == ["balloons", "cells"]
    assert first.headers["x-masked-percentage"] != chosen.headers["x-masked-percentage"]
    assert "unknown" in error(ask(gateway, model="birds"), 404)


def test_a_class_has_one_color_whatever_else_a_picture_shows(
    open_gateway: OpenGateway, torchserve: FakeTorchServe
) -> None:
    """Of labels with the same color, the one that yields does so in every picture, also of the native route."""
    mine, *names = [f"thing {number}" for number in range(400)]
    rival = next(name for name in names if colors_of([name])[name] == colors_of([mine])[mine])
    first, second = sorted((mine, rival))
    gateway = open_gateway(
        Settings(models=("mask_rcnn",), archives={"mask_rcnn": ArchivedModel("mask_rcnn", None, (first, second))})
    )
    apart = [(20, 60, 100, 140), (280, 60, 360, 140)]
    items = [instance(disc(box), box) | {"label": label} for label, box in zip((second, first), apart, strict=True)]

    def shown(count: int, path: str) -> np.ndarray:
        answer = {"width": WIDTH, "height": HEIGHT, "instances": items[:count]}
        torchserve.react = lambda data, prompt: (200, answer)
        headers = {"Accept": "image/png"}
        return pixels(gateway.post(path, files={"image": photo()}, headers=headers).content)[:, :200]

    for path in ("/predict", "/v1/segment"):
        assert np.array_equal(shown(1, path), shown(2, path))


def test_without_a_mask_rcnn_the_message_says_which_archive_to_add(
    open_gateway: OpenGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.models = {"grounded_sam": ["READY"]}
    gateway = open_gateway(Settings(models=("grounded_sam",)))
    response = ask(gateway)
    assert "segserve archive mask_rcnn" in error(response, 404)
    assert response.json()["error"]["code"] == "model_not_found"


def test_a_model_of_another_kind_is_refused_by_its_name(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    """Not with a complaint about a parameter that the caller has not given."""
    torchserve.models = {name: ["READY"] for name in ("mask_rcnn", "grounded_sam", "semantic")}
    gateway = open_gateway(Settings(models=tuple(torchserve.models)))
    for kind in ("grounded_sam", "semantic"):
        told = error(ask(gateway, model=kind))
        assert told.startswith("model: /predict asks a mask_rcnn model")
        assert kind in told and "threshold" not in told
