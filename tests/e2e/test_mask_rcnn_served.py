"""detectron2's golden checkpoint through a real TorchServe, beside grounded_sam: the answers that detectron2 gave."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from servers import DEMO_WEIGHTS, ROOT, Served, serving

from segserve import boxes, imaging, masks
from segserve.client import Client
from segserve.errors import SegserveError
from segserve.masks import Rle
from segserve.torchserve.archive import build_archive

GOLDEN = ROOT / "tests" / "data" / "detectron2"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
LABELS = tuple(EXPECTED["classes"])
COMPARED_FROM = 0.1
"""Least score of the instances that have to agree; between threshold and this they come and go with rounding."""


@dataclass(frozen=True)
class Found:
    """One instance of an answer, whatever the route."""

    label: str
    score: float
    box: Sequence[float]
    rle: Rle


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two models: the golden checkpoint, archived by the command under a name of its own, and grounded_sam."""
    store = tmp_path_factory.mktemp("store")
    (store / "labels.txt").write_text("\n".join(LABELS) + "\n", "utf-8")
    command = [sys.executable, "-m", "segserve.cli", "archive", "mask_rcnn", "--name", "shapes", "--out", str(store)]
    command += ["--weights", str(GOLDEN / "model_final.pth"), "--config", str(GOLDEN / "config.yaml")]
    command += ["--labels", str(store / "labels.txt")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    build_archive("grounded_sam", DEMO_WEIGHTS, store)
    folder = tmp_path_factory.mktemp("shapes_served")
    models = ("grounded_sam", "shapes")
    with serving(folder, store, models=models, workers=1, batch_size=4, batch_delay_ms=200) as service:
        yield service


@pytest.fixture(params=EXPECTED["images"], ids=lambda picture: picture["image"])
def picture(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def file_of(picture: Mapping[str, Any]) -> Path:
    return GOLDEN / "images" / str(picture["image"])


def found_in(result: Mapping[str, Any]) -> list[Found]:
    """The instances of one result as JSON has it."""
    return [Found(each["label"], each["score"], each["box"], each["mask"]) for each in result["instances"]]


def assert_parity(answer: Sequence[Found], picture: Mapping[str, Any]) -> None:
    """Every recorded instance answered by one of its own class, and nothing else found."""
    left = [each for each in answer if each.score >= COMPARED_FROM - 2e-3]
    wanted = [each for each in picture["instances"] if each["score"] >= COMPARED_FROM]
    assert wanted, "a picture without instances proves nothing"
    for each in wanted:
        same = [one for one in left if one.label == LABELS[each["category_id"]]]
        assert same, f"nothing answers {each['category_id']} {each['score']:.3f} {each['box']}"
        overlaps = boxes.iou_matrix(np.array([one.box for one in same]), np.array([each["box"]]))[:, 0]
        match = same[int(overlaps.argmax())]
        left.remove(match)
        assert match.score == pytest.approx(each["score"], abs=2e-3)
        assert list(match.box) == pytest.approx(each["box"], abs=0.2)
        assert masks.iou(masks.decode_rle(match.rle), masks.decode_rle(each["mask"])) >= 0.99
    assert [each for each in left if each.score >= COMPARED_FROM] == []


def by_hand(served: Served, **request: Any) -> requests.Response:
    """POST to TorchServe itself, with its token."""
    headers = {**served.token(), **request.pop("headers", {})}
    return requests.post(f"{served.address.inference_url}/predictions/shapes", headers=headers, timeout=120, **request)


def test_the_client_gets_detectron2s_answers(shapes: Served, picture: dict[str, Any]) -> None:
    with Client(shapes.url) as client:
        result = client.segment(file_of(picture), model="shapes", score_threshold=0.05)
    assert (result.width, result.height) == (picture["width"], picture["height"])
    assert_parity([Found(each.label, each.score, each.box, each.rle) for each in result.instances], picture)
    for each in result.instances:
        assert each.area == each.mask.sum()


def test_all_golden_pictures_in_one_request(shapes: Served) -> None:
    """Of several sizes, so that they come to the worker in mixed batches."""
    form = [("image", (picture["image"], file_of(picture).read_bytes())) for picture in EXPECTED["images"]]
    request = json.dumps({"model": "shapes", "parameters": {"score_threshold": 0.05}})
    answer = requests.post(f"{shapes.url}/v1/segment", files=[*form, ("request", (None, request))], timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "shapes"
    for result, picture in zip(answer.json()["results"], EXPECTED["images"], strict=True):
        assert_parity(found_in(result), picture)


def test_invocations_takes_a_raw_image_with_attributes(shapes: Served) -> None:
    picture = EXPECTED["images"][0]
    data = file_of(picture).read_bytes()
    headers = {
        "Content-Type": "application/x-image",
        "X-Amzn-SageMaker-Custom-Attributes": "model=shapes;threshold=0.05",
    }
    answer = requests.post(f"{shapes.url}/invocations", data=data, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert_parity(found_in(answer.json()["results"][0]), picture)
    strict = {**headers, "X-Amzn-SageMaker-Custom-Attributes": "model=shapes;threshold=0.9"}
    few = requests.post(f"{shapes.url}/invocations", data=data, headers=strict, timeout=60).json()["results"][0]
    above = [each for each in answer.json()["results"][0]["instances"] if each["score"] > 0.9]
    assert few["instances"] == above != []
    drawn = requests.post(
        f"{shapes.url}/invocations", data=data, headers={**headers, "Accept": "image/png"}, timeout=60
    )
    overlay = imaging.decode(drawn.content)
    assert overlay.shape == (picture["height"], picture["width"], 3)
    assert (overlay != imaging.decode(data)).any()


def test_native_json_with_renders(shapes: Served) -> None:
    picture = EXPECTED["images"][1]
    image = {"base64": base64.b64encode(file_of(picture).read_bytes()).decode()}
    request = {
        "model": "shapes",
        "images": [image],
        "parameters": {"score_threshold": 0.5},
        "render": ["mask", "crops"],
    }
    for route in ("/v1/segment", "/invocations"):
        answer = requests.post(f"{shapes.url}{route}", json=request, timeout=60)
        assert answer.status_code == 200, answer.text
        (result,) = answer.json()["results"]
        wanted = sorted(LABELS[each["category_id"]] for each in picture["instances"] if each["score"] > 0.5)
        assert sorted(each["label"] for each in result["instances"]) == wanted
        assert len(result["renders"]["crops"]) == len(wanted)


def test_torchserves_own_api_gives_the_same(shapes: Served) -> None:
    picture = EXPECTED["images"][2]
    data = file_of(picture).read_bytes()
    prompt = json.dumps({"parameters": {"score_threshold": 0.05}})
    in_json = {"image": base64.b64encode(data).decode(), "prompt": json.loads(prompt)}
    answers = [
        by_hand(shapes, files={"image": data, "prompt": (None, prompt)}),
        by_hand(shapes, data=data, headers={"X-Segserve-Prompt": prompt, "Content-Type": "image/png"}),
        by_hand(shapes, json=in_json),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert_parity(found_in(answers[0].json()), picture)
    assert all(answer.json() == answers[0].json() for answer in answers)
    # Without a prompt, the checkpoint's own threshold: that of its configuration.
    bare = by_hand(shapes, data=data, headers={"Content-Type": "image/png"})
    assert bare.status_code == 200
    assert min(each["score"] for each in bare.json()["instances"]) >= 0.05


@pytest.mark.parametrize(
    ("prompt", "status", "code", "said"),
    [
        ({"text": "disc."}, 422, "invalid_prompt", "takes no prompt"),
        ({"points": [[1, 1, 1]]}, 422, "invalid_prompt", "points"),
        ({"parameters": {"box_threshold": 0.3}}, 400, "invalid_request", "score_threshold"),
        ({"parameters": {"score_threshold": -0.1}}, 400, "invalid_request", "score_threshold"),
        ({"parameters": {"max_instances": 0}}, 400, "invalid_request", "max_instances"),
    ],
)
def test_a_worker_refuses_what_is_not_its_own(
    shapes: Served, prompt: dict[str, Any], status: int, code: str, said: str
) -> None:
    data = file_of(EXPECTED["images"][0]).read_bytes()
    answer = by_hand(shapes, files={"image": data, "prompt": (None, json.dumps(prompt))})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert said in answer.json()["error"]["message"]


def test_bad_images_spare_the_good_ones_of_their_batch(shapes: Served) -> None:
    """Twelve at once, one worker, batches of up to four: every third is broken."""
    pictures = [EXPECTED["images"][index % 8] for index in range(12)]
    images = [b"broken" if index % 3 == 0 else file_of(picture).read_bytes() for index, picture in enumerate(pictures)]
    prompt = json.dumps({"parameters": {"score_threshold": 0.05}})

    def ask(image: bytes) -> requests.Response:
        return by_hand(shapes, files={"image": image, "prompt": (None, prompt)})

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, images))
    assert [answer.status_code for answer in answers] == [415 if index % 3 == 0 else 200 for index in range(12)]
    good = [(answer, picture) for answer, picture in zip(answers, pictures, strict=True) if answer.status_code == 200]
    for answer, picture in good:
        assert_parity(found_in(answer.json()), picture)
    # The items of a batch share its time: fewer times than answers means that batches had more than one item.
    assert len({answer.headers["X-Segserve-Model-Ms"] for answer, _ in good}) < len(good)


def test_through_the_gateway_each_image_has_its_own_error(shapes: Served) -> None:
    good = file_of(EXPECTED["images"][3])
    with Client(shapes.url) as client:
        first, bad, cut, last = client.segment_many(
            [good, b"no image", good.read_bytes()[:900], good], model="shapes", score_threshold=0.05
        )
    assert isinstance(bad, SegserveError) and bad.error_code == "not_an_image"
    assert isinstance(cut, SegserveError) and cut.error_code == "undecodable_image"
    for result in (first, last):
        assert not isinstance(result, SegserveError)
        assert_parity(
            [Found(each.label, each.score, each.box, each.rle) for each in result.instances], EXPECTED["images"][3]
        )


def test_both_models_are_served_and_told_apart(shapes: Served, scene_png: bytes) -> None:
    with Client(shapes.url) as client:
        models = {model["name"]: model for model in client.models()}
        rooms = client.segment(scene_png, "floor. wall.", model="grounded_sam")
        by_default = client.segment(scene_png, "floor. wall.")
        disc = client.segment(file_of(EXPECTED["images"][0]), model="shapes", max_instances=1)
        with pytest.raises(SegserveError, match="takes no prompt"):
            client.segment(scene_png, "floor.", model="shapes")
        with pytest.raises(SegserveError, match="'mask_rcnn' is not loaded here"):
            client.segment(scene_png, model="mask_rcnn")
    assert set(models) == {"grounded_sam", "shapes"}
    told = models["shapes"]
    assert (told["kind"], told["engine"], tuple(told["classes"])) == ("mask_rcnn", "torchvision", LABELS)
    assert (told["ready"], told["prompts"]) == (True, [])
    assert (models["grounded_sam"]["kind"], models["grounded_sam"]["classes"]) == ("grounded_sam", None)
    assert (
        {each.label for each in rooms.instances} == {each.label for each in by_default.instances} == {"floor", "wall"}
    )
    assert len(disc.instances) == 1 and disc.instances[0].label in LABELS


def test_a_worker_describes_itself(shapes: Served) -> None:
    url = f"{shapes.address.management_url}/models/shapes"
    answer = requests.get(url, params={"customized": "true"}, headers=shapes.token("management"), timeout=60)
    told = answer.json()[0]["customizedMetadata"]
    description = json.loads(told) if isinstance(told, str) else told
    assert (description["kind"], description["engine"]) == ("mask_rcnn", "torchvision")
    assert (description["classes"], description["prompts"]) == (list(LABELS), [])


def test_predict_from_the_command_line(shapes: Served, tmp_path: Path) -> None:
    picture = EXPECTED["images"][4]
    command = [sys.executable, "-m", "segserve.cli", "predict", str(file_of(picture)), "--model", "shapes", "--json"]
    command += ["--score-threshold", "0.05", "--url", shapes.url, "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (shown,) = json.loads(done.stdout)
    assert_parity(found_in(shown), picture)
    assert imaging.decode(Path(shown["overlay"]).read_bytes()).shape == (picture["height"], picture["width"], 3)
