"""A semantic model through /v1/segment and /invocations: label maps, scores, renders with legends, what is refused."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx2
import numpy as np
import pytest
from fake_torchserve import CLASSES, FakeTorchServe, scores_of, striped_classes
from gateways import OpenGateway
from pictures import HEIGHT, WIDTH, noise, opened, png, rotated_jpeg, source
from starlette.testclient import TestClient

from segserve import imaging, label_render
from segserve.colors import class_colors
from segserve.config import ArchivedModel, Settings
from segserve.label_maps import decode_png
from segserve.schema import SegmentAnswer

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
NPY = {"Accept": "application/x-npy"}
EXPECTED = scores_of(HEIGHT, WIDTH).argmax(axis=0)
ARCHIVE = ArchivedModel("semantic", "torch", CLASSES, ("torch", "onnx"))


@pytest.fixture
def semantic(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> TestClient:
    torchserve.models = {"semantic": ["READY"]}
    torchserve.react = striped_classes
    return open_gateway(Settings(models=("semantic",), archives={"semantic": ARCHIVE}))


def ask(gateway: TestClient, *images: bytes, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
    body = {"model": "semantic", "images": [source(image) for image in images or (png(),)], **fields}
    return gateway.post("/v1/segment", json=body, headers=headers)


def ask_raw(gateway: TestClient, accept: str = "*/*", **query: str) -> httpx2.Response:
    headers = {"Content-Type": "image/png", "Accept": accept}
    return gateway.post("/v1/segment", params=query, content=png(), headers=headers)


def refused(response: httpx2.Response, *words: str) -> None:
    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == "invalid_request"
    for word in words:
        assert word in response.json()["error"]["message"]


def test_json_has_label_map_classes_and_fractions(semantic: TestClient, torchserve: FakeTorchServe) -> None:
    response = ask(semantic, png(), rotated_jpeg(), parameters={"engine": "onnx", "size": "original"})
    assert response.status_code == 200
    (result, upright) = response.json()["results"]
    assert set(result) == {"width", "height", "classes", "label_map", "pixel_fraction"}
    assert (result["width"], result["height"], result["classes"]) == (WIDTH, HEIGHT, list(CLASSES))
    labels = decode_png(base64.b64decode(result["label_map"]))
    assert labels.dtype == np.uint8 and np.array_equal(labels, EXPECTED)
    assert result["pixel_fraction"] == {name: pytest.approx(1 / 3) for name in CLASSES}
    assert (upright["width"], upright["height"]) == (WIDTH, HEIGHT)
    SegmentAnswer.model_validate_json(response.content)
    assert [prompt for _, prompt in torchserve.seen] == [{"parameters": {"engine": "onnx", "size": "original"}}] * 2


def test_the_only_model_is_the_default_and_needs_no_prompt(semantic: TestClient) -> None:
    answer = semantic.post("/v1/segment", json={"images": [source(png())]})
    assert answer.status_code == 200 and answer.json()["model"] == "semantic"


def test_a_label_map_of_the_models_size(semantic: TestClient) -> None:
    result = ask(semantic, parameters={"size": "model"}).json()["results"][0]
    assert (result["width"], result["height"]) == (WIDTH, HEIGHT), "the picture's"
    assert decode_png(base64.b64decode(result["label_map"])).shape == (24, 32)


def test_mask_format_none_leaves_the_label_map_out(semantic: TestClient) -> None:
    result = ask(semantic, mask_format="none", render=["mask"]).json()["results"][0]
    assert set(result) == {"width", "height", "classes", "pixel_fraction", "renders"}
    for form in ("rle", "png"):
        assert "label_map" in ask(semantic, mask_format=form).json()["results"][0]


@pytest.mark.parametrize("size", ["original", "model"])
def test_renders_are_the_picture_with_a_legend_below(semantic: TestClient, size: str) -> None:
    response = ask(semantic, render=["overlay", "mask", "cutout"], parameters={"size": size})
    renders = response.json()["results"][0]["renders"]
    overlay, mask, cutout = (np.asarray(opened(renders[kind])) for kind in ("overlay", "mask", "cutout"))
    for picture in (overlay, mask):
        assert picture.shape[1:] == (WIDTH, 3) and picture.shape[0] > HEIGHT + 20, "higher by the legend"
        legend = picture[HEIGHT:]
        for color in class_colors(CLASSES[1:]):
            assert (legend == color).all(axis=2).sum() > 20, "a swatch for each class"
    colors = np.asarray([(0, 0, 0), *class_colors(CLASSES[1:])])
    assert np.array_equal(mask[:HEIGHT], colors[EXPECTED])
    assert np.array_equal(overlay[: HEIGHT // 3], noise()[: HEIGHT // 3]), "background stays as it is"
    assert np.array_equal(overlay[:HEIGHT], label_render.overlay(noise(), EXPECTED.astype(np.uint8), CLASSES)[:HEIGHT])
    assert cutout.shape == (HEIGHT, WIDTH, 4)
    assert np.array_equal(cutout[..., 3] > 0, EXPECTED > 0)


def test_nothing_is_cut_out_without_a_background(semantic: TestClient, torchserve: FakeTorchServe) -> None:
    def without(data: bytes, prompt: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, answer = striped_classes(data, prompt)
        assert isinstance(answer, dict)
        return status, {**answer, "classes": ["ceiling", "floor", "wall"]}

    torchserve.react = without
    cutout = opened(ask(semantic, render=["cutout"]).json()["results"][0]["renders"]["cutout"])
    assert cutout.mode == "RGBA" and (np.asarray(cutout)[..., 3] == 255).all()


def test_png_is_the_overlay(semantic: TestClient) -> None:
    response = ask(semantic, headers={"Accept": "image/png"})
    assert response.headers["content-type"] == "image/png"
    rendered = ask(semantic, render=["overlay"]).json()["results"][0]["renders"]["overlay"]
    assert np.array_equal(imaging.decode(response.content), np.asarray(opened(rendered)))


def test_npy_is_the_label_map(semantic: TestClient) -> None:
    response = ask(semantic, headers=NPY)
    assert response.headers["content-type"] == "application/x-npy"
    labels = np.load(io.BytesIO(response.content), allow_pickle=False)
    assert labels.dtype == np.uint8 and np.array_equal(labels, EXPECTED)


@pytest.mark.parametrize(("size", "shape"), [("original", (HEIGHT, WIDTH)), ("model", (24, 32))])
def test_npy_of_logits_and_probabilities(semantic: TestClient, size: str, shape: tuple[int, int]) -> None:
    logits, probabilities = (
        np.load(io.BytesIO(ask(semantic, headers=NPY, parameters={"output": output, "size": size}).content))
        for output in ("logits", "probabilities")
    )
    assert logits.dtype == np.float32 and np.array_equal(logits, scores_of(*shape))
    assert np.abs(probabilities.sum(axis=0) - 1).max() < 1e-6
    assert np.array_equal(probabilities.argmax(axis=0), logits.argmax(axis=0))


@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("accept", ["application/json", "*/*", "image/png"])
def test_scores_in_another_form_are_refused_before_a_worker_is_asked(
    semantic: TestClient, torchserve: FakeTorchServe, output: str, accept: str
) -> None:
    response = ask(semantic, headers={"Accept": accept}, parameters={"output": output})
    refused(response, "parameters.output", output, "Accept: application/x-npy")
    assert torchserve.seen == []


def test_scores_of_an_archive_that_answers_them_by_default(semantic: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.react = lambda data, prompt: striped_classes(data, {"parameters": {"output": "logits"}})
    refused(ask(semantic), "Accept: application/x-npy")
    refused(ask(semantic, headers={"Accept": "image/png"}), "Accept: application/x-npy")
    assert np.array_equal(np.load(io.BytesIO(ask(semantic, headers=NPY).content)), scores_of(HEIGHT, WIDTH))


def test_files_are_of_one_image(semantic: TestClient) -> None:
    refused(ask(semantic, png(), png(), headers=NPY), "one image", "came 2")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"render": ["overlay", "crops"]}, ("render", "crops", "label map")),
        ({"mask_format": "polygon"}, ("mask_format", "polygon", "png")),
        ({"parameters": {"score_threshold": 0.5}}, ("score_threshold", "engine, output, size")),
        ({"parameters": {"engine": "tflite"}}, ("parameters.engine", "'torch' or 'onnx'")),
        ({"parameters": {"output": "map"}}, ("parameters.output", "'probabilities'")),
        ({"parameters": {"size": 512}}, ("parameters.size", "'model'")),
    ],
)
def test_what_does_not_fit_a_label_map_is_refused(
    semantic: TestClient, torchserve: FakeTorchServe, fields: dict[str, Any], words: tuple[str, ...]
) -> None:
    refused(ask(semantic, **fields), *words)
    assert torchserve.seen == []


def test_a_prompt_is_refused(semantic: TestClient) -> None:
    response = ask(semantic, prompt={"text": "floor."})
    assert response.status_code == 422 and "prompt.text" in response.json()["error"]["message"]


def test_parameters_of_semantic_are_refused_by_other_models(gateway: TestClient) -> None:
    body = {"images": [source(png())], "prompt": {"text": "sofa"}, "parameters": {"engine": "onnx"}}
    refused(gateway.post("/v1/segment", json=body), "parameters.engine", "grounded_sam does not know it")


def test_a_raw_image_with_query_parameters(semantic: TestClient, torchserve: FakeTorchServe) -> None:
    answer = ask_raw(semantic, model="semantic", engine="onnx", size="model", render="overlay,mask")
    assert set(answer.json()["results"][0]["renders"]) == {"overlay", "mask"}
    assert torchserve.seen[0][1] == {"parameters": {"engine": "onnx", "size": "model"}}
    scores = ask_raw(semantic, "application/x-npy", output="logits", size="model")
    assert np.load(io.BytesIO(scores.content)).shape == (3, 24, 32)
    refused(ask_raw(semantic, engine="tflite"), "query parameter engine: ")
    refused(ask_raw(semantic, engine="onnx", render="crops"), "crops")


def test_a_raw_image_with_custom_attributes(semantic: TestClient, torchserve: FakeTorchServe) -> None:
    headers = {"Content-Type": "image/png", ATTRIBUTES: "model=semantic;engine=onnx;output=probabilities;size=model"}
    response = semantic.post("/invocations", content=png(), headers={**headers, **NPY})
    assert np.load(io.BytesIO(response.content)).shape == (3, 24, 32)
    assert torchserve.seen[0][1] == {"parameters": {"engine": "onnx", "output": "probabilities", "size": "model"}}
    refused(semantic.post("/invocations", content=png(), headers=headers), "Accept: application/x-npy")
    wrong = {**headers, ATTRIBUTES: "model=semantic;threshold=0.5"}
    refused(semantic.post("/invocations", content=png(), headers=wrong), "threshold", "engine, output, size")


def test_a_native_body_through_invocations(semantic: TestClient) -> None:
    body = {"model": "semantic", "images": [source(png())], "render": ["mask"]}
    assert (
        semantic.post("/invocations", json=body).json()["results"] == ask(semantic, render=["mask"]).json()["results"]
    )


def test_one_bad_image_leaves_the_others_alone(semantic: TestClient) -> None:
    results = ask(semantic, b"no image", png(), render=["overlay"]).json()["results"]
    assert results[0]["error"]["code"] == "not_an_image"
    assert set(results[1]["renders"]) == {"overlay"}


@pytest.mark.parametrize(
    "broken",
    [
        {"label_map": "no base64!"},
        {"label_map": base64.b64encode(b"no PNG").decode()},
        {"label_map": base64.b64encode(imaging.encode(np.full((HEIGHT, WIDTH), 3, np.uint8))).decode()},
        {"label_map": None},
    ],
    ids=["base64", "png", "index", "null"],
)
def test_a_broken_label_map_is_the_workers_fault(
    semantic: TestClient, torchserve: FakeTorchServe, broken: dict[str, Any]
) -> None:
    whole = striped_classes(png(), {})[1]
    assert isinstance(whole, dict)
    torchserve.react = lambda data, prompt: (200, {**whole, **broken})
    for asked in ({"headers": NPY}, {"headers": {"Accept": "image/png"}}, {"render": ["mask"]}):
        response = ask(semantic, **asked)
        assert response.status_code == 500
        assert "label map" in response.json()["error"]["message"]


def test_an_answer_that_is_too_large_names_the_way_out(semantic: TestClient) -> None:
    # 3 x 1800 x 1400 x 4 bytes.
    response = ask(semantic, png(1800, 1400), headers=NPY, parameters={"output": "logits"})
    assert response.status_code == 413
    assert "size model" in response.json()["error"]["message"]


def test_models_tells_classes_and_engines(semantic: TestClient) -> None:
    (described,) = semantic.get("/v1/models").json()["models"]
    assert {key: described[key] for key in ("kind", "prompts", "parameters", "returns", "engine")} == {
        "kind": "semantic",
        "prompts": [],
        "parameters": ["engine", "output", "size"],
        "returns": "label_map",
        "engine": "torch",
    }
    assert (described["classes"], described["engines"]) == (list(CLASSES), ["torch", "onnx"])
    assert semantic.get("/v1/models/semantic").json() == described


def test_the_document_describes_label_maps(semantic: TestClient) -> None:
    document = semantic.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"classes", "label_map", "pixel_fraction"} <= set(schemas["ImageResult"]["properties"])
    assert {"engine", "output", "size"} <= set(schemas["Parameters"]["properties"])
    assert "engines" in schemas["ModelDescription"]["properties"]
    operation = document["paths"]["/v1/segment"]["post"]
    assert {"engine", "output", "size"} <= {parameter["name"] for parameter in operation["parameters"]}
    assert "logits" in operation["responses"]["200"]["content"]["application/x-npy"]["schema"]["description"]


def test_the_route_that_draws_instances_refuses_a_semantic_model(
    semantic: TestClient, torchserve: FakeTorchServe
) -> None:
    headers = {"Content-Type": "image/png"}
    refused(semantic.post("/predict?model=semantic", content=png(), headers=headers), "is of the kind semantic")
    assert semantic.post("/predict", content=png(), headers=headers).status_code == 404
    assert torchserve.seen == []
