"""POST /v1/segment: its three ways in, its forms of answer, and one bad image among good ones."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from fake_torchserve import FakeTorchServe, lower_half
from pictures import HEIGHT, WIDTH, opened, png, source
from starlette.testclient import TestClient

from segserve.masks import decode_rle, from_polygons, iou
from segserve.schema import SegmentAnswer


def ask(gateway: TestClient, images: list[dict[str, str]], text: str = "sofa. floor.", **fields: Any) -> Any:
    return gateway.post("/v1/segment", json={"images": images, "prompt": {"text": text}, **fields})


def expected_mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[HEIGHT // 2 :] = True
    return mask


def test_json_answer_has_the_documented_form(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    image = png()
    response = ask(gateway, [source(image)], parameters={"box_threshold": 0.4, "refine": "polygon"})
    assert response.status_code == 200
    answer = SegmentAnswer.model_validate_json(response.content)
    assert (answer.model, answer.version) == ("grounded_sam", "1.0")
    (result,) = answer.results
    assert (result.width, result.height) == (WIDTH, HEIGHT)
    assert [instance.label for instance in result.instances or []] == ["sofa", "floor"]
    mask = response.json()["results"][0]["instances"][0]["mask"]
    assert np.array_equal(decode_rle(mask), expected_mask())
    assert 0 < answer.timings_ms.model <= answer.timings_ms.total
    # The worker got the image's bytes untouched, and the prompt with its parameters.
    assert torchserve.seen == [
        (image, {"text": "sofa. floor.", "parameters": {"box_threshold": 0.4, "refine": "polygon"}})
    ]


def test_form_with_files_is_the_same_request(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    images = [png(seed=1), png(seed=2)]
    files = [("image", ("photo one.png", images[0], "image/png")), ("image", ("b", images[1]))]
    request = json.dumps({"prompt": [{"text": "sofa"}, {"text": "door"}], "mask_format": "none"})
    response = gateway.post("/v1/segment", files=files, data={"request": request})
    assert response.status_code == 200
    labels = [[item["label"] for item in result["instances"]] for result in response.json()["results"]]
    assert labels == [["sofa"], ["door"]]
    assert sorted(data for data, _ in torchserve.seen) == sorted(images)


def test_raw_body_with_query_parameters_is_the_same_request(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    query = {"text": "sofa. floor.", "box_threshold": "0.25", "refine": "true", "render": "mask,crops"}
    response = gateway.post("/v1/segment", params=query, content=png(), headers={"Content-Type": "image/png"})
    assert response.status_code == 200
    assert set(response.json()["results"][0]["renders"]) == {"mask", "crops"}
    assert torchserve.seen[0][1] == {"text": "sofa. floor.", "parameters": {"box_threshold": 0.25, "refine": True}}


def test_json_without_a_content_type_that_says_so_is_understood(gateway: TestClient) -> None:
    body = json.dumps({"images": [source(png())], "prompt": {"text": "sofa"}})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert gateway.post("/v1/segment", content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/v1/segment", "/v1/segment/"])
def test_a_trailing_slash_makes_no_difference(gateway: TestClient, path: str) -> None:
    body = {"images": [source(png())], "prompt": {"text": "sofa"}}
    response = gateway.post(path, json=body, follow_redirects=False)
    assert response.status_code == 200


def test_one_bad_image_leaves_the_others_alone(gateway: TestClient) -> None:
    images = [source(png(seed=1)), {"base64": "no base64!"}, source(b"just text"), {"url": "http://127.0.0.1/a"}, {}]
    response = ask(gateway, [*images, source(png(seed=2))])
    assert response.status_code == 200
    results = response.json()["results"]
    codes = [result.get("error", {}).get("code") for result in results]
    assert codes == [None, "invalid_request", "not_an_image", "fetch_forbidden", "invalid_request", None]
    assert len(results[0]["instances"]) == len(results[5]["instances"]) == 2


def test_a_worker_error_of_one_image_stays_with_it(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    broken = png(seed=9)
    told = {"error": {"code": "out_of_memory", "message": "This image alone does not fit."}}
    torchserve.react = lambda data, prompt: (507, told) if data == broken else lower_half(data, prompt)
    response = ask(gateway, [source(png()), source(broken)])
    assert response.status_code == 200
    assert response.json()["results"][1] == told
    alone = ask(gateway, [source(broken)])
    assert alone.status_code == 507
    assert alone.json()["error"]["code"] == "out_of_memory"


def test_results_keep_the_order_of_the_images_and_only_eight_run_at_once(
    gateway: TestClient, torchserve: FakeTorchServe
) -> None:
    torchserve.delay_s = 0.02
    sizes = [(20 + index, 30) for index in range(32)]
    response = ask(gateway, [source(png(*size)) for size in sizes], mask_format="none")
    assert [(result["width"], result["height"]) for result in response.json()["results"]] == sizes
    assert 2 <= torchserve.most_at_once <= 8


@pytest.mark.parametrize("count", [1, 3])
def test_a_list_of_prompts_needs_one_for_each_image(gateway: TestClient, count: int) -> None:
    body = {"images": [source(png()), source(png())], "prompt": [{"text": "sofa"}] * count}
    response = gateway.post("/v1/segment", json=body)
    assert response.status_code == 400
    assert f"came {count} for 2" in response.json()["error"]["message"]


def test_a_bad_prompt_of_a_list_is_named(gateway: TestClient) -> None:
    body = {"images": [source(png()), source(png())], "prompt": [{"text": "sofa"}, {"text": " . "}]}
    response = gateway.post("/v1/segment", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith("prompt[1]: prompt.text")


def test_polygon_and_png_masks_are_the_same_masks(gateway: TestClient) -> None:
    polygons = ask(gateway, [source(png())], "sofa", mask_format="polygon").json()["results"][0]["instances"][0]["mask"]
    assert iou(from_polygons(polygons, HEIGHT, WIDTH), expected_mask()) > 0.99
    encoded = ask(gateway, [source(png())], "sofa", mask_format="png").json()["results"][0]["instances"][0]["mask"]
    assert np.array_equal(np.asarray(opened(encoded)), expected_mask() * np.uint8(255))
    bare = ask(gateway, [source(png())], "sofa", mask_format="none").json()["results"][0]["instances"][0]
    assert set(bare) == {"label", "score", "box", "area"}


def test_renders_are_pictures_of_the_result(gateway: TestClient) -> None:
    original = np.asarray(opened(source(png())["base64"]))
    kinds = ["overlay", "cutout", "mask", "crops"]
    renders = ask(gateway, [source(png())], "sofa", render=kinds).json()["results"][0]["renders"]
    assert set(renders) == set(kinds)
    mask = expected_mask()
    assert np.array_equal(np.asarray(opened(renders["mask"])) > 0, mask)
    cutout = np.asarray(opened(renders["cutout"]))
    assert np.array_equal(cutout[..., 3] > 0, mask)
    assert np.array_equal(cutout[mask][:, :3], original[mask])
    (crop,) = renders["crops"]
    assert np.array_equal(np.asarray(opened(crop)), original[HEIGHT // 2 :])
    overlay = np.asarray(opened(renders["overlay"]))
    assert overlay.shape == original.shape
    assert (overlay[-4:] != original[-4:]).any()


def test_accept_png_answers_the_overlay_itself(gateway: TestClient) -> None:
    body = {"images": [source(png())], "prompt": {"text": "sofa"}}
    wanted = ask(gateway, [source(png())], "sofa", render=["overlay"]).json()["results"][0]["renders"]["overlay"]
    response = gateway.post("/v1/segment", json=body, headers={"Accept": "image/png"})
    assert response.headers["content-type"] == "image/png"
    assert response.content == opened(wanted).fp.getvalue()  # type: ignore[union-attr]


def test_accept_npy_answers_the_stack_of_masks(gateway: TestClient) -> None:
    body = {"images": [source(png())], "prompt": {"text": "sofa. floor."}}
    response = gateway.post("/v1/segment", json=body, headers={"Accept": "application/x-npy"})
    stack = np.load(io.BytesIO(response.content), allow_pickle=False)
    assert stack.dtype == bool
    assert np.array_equal(stack, np.stack([expected_mask()] * 2))


def test_nothing_found_is_an_empty_result(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.react = lambda data, prompt: (200, {"width": WIDTH, "height": HEIGHT, "instances": []})
    result = ask(gateway, [source(png())], render=["overlay", "crops"]).json()["results"][0]
    assert result["instances"] == []
    assert result["renders"]["crops"] == []
    headers = {"Accept": "application/x-npy"}
    body = {"images": [source(png())], "prompt": {"text": "sofa"}}
    stack = np.load(io.BytesIO(gateway.post("/v1/segment", json=body, headers=headers).content), allow_pickle=False)
    assert stack.shape == (0, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("image/png;q=0.5, application/json", "application/json"),
        ("application/json;q=0.5, image/png", "image/png"),
        ("image/png;q=much", "application/json"),
    ],
)
def test_accept_is_weighed(gateway: TestClient, accept: str, kind: str) -> None:
    body = {"images": [source(png())], "prompt": {"text": "sofa"}}
    assert gateway.post("/v1/segment", json=body, headers={"Accept": accept}).headers["content-type"] == kind


def test_a_file_cannot_answer_several_images(gateway: TestClient) -> None:
    body = {"images": [source(png())] * 2, "prompt": {"text": "sofa"}}
    response = gateway.post("/v1/segment", json=body, headers={"Accept": "image/png"})
    assert response.status_code == 400
    assert "came 2" in response.json()["error"]["message"]
