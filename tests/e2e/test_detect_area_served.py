"""Seed 001's routes on a real service whose Mask R-CNN is detectron2's: its answers, and the files of the folder."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from servers import ROOT, Served, serving

from segserve import boxes as geometry
from segserve.imaging import decode, encode

GOLDEN = ROOT / "tests" / "data" / "detectron2"
IMAGES = {path.name: path.read_bytes() for path in sorted((GOLDEN / "images").iterdir())}
EXPECTED: dict[str, list[dict[str, Any]]] = {
    each["image"]: each["instances"] for each in json.loads((GOLDEN / "expected.json").read_text("utf-8"))["images"]
}
SCORE, BOX = 2e-3, 0.2
"""How far an answer may be from detectron2's: the score, and each side of a box in pixels."""


def segserve(*arguments: object, given: bytes = b"") -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "segserve.cli", *map(str, arguments)], input=given, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detections") / "made" / "by the service"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("detect_area")
    (place / "labels.txt").write_text("disc\nbox\ntriangle\n", "utf-8")
    weights = ("--weights", GOLDEN / "model_final.pth", "--config", GOLDEN / "config.yaml")
    segserve("archive", "mask_rcnn", *weights, "--labels", place / "labels.txt", "--out", place / "store")
    options = ("--detection-dir", str(folder))
    with serving(place / "logs", place / "store", models=("mask_rcnn",), workers=1, options=options) as served:
        yield served


def ask(service: Served, route: str, **body: Any) -> requests.Response:
    return requests.post(f"{service.url}/api/detect-area-{route}", json=body, timeout=60)


def check_found(data: dict[str, Any], name: str, threshold: float) -> None:
    """The instances are detectron2's, by falling score, and the crops are what the boxes hold."""
    found = [
        (pair[0][f"box_{index}"], pair[1][f"score_{index}"])
        for index, pair in enumerate(data["detected_bounding_boxes"])
    ]
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    left = list(EXPECTED[name])
    for box, score in found:
        assert score >= threshold
        overlaps = geometry.iou_matrix(np.array([box]), np.array([each["box"] for each in left]))[0]
        best = left.pop(int(overlaps.argmax()))
        assert score == pytest.approx(best["score"], abs=SCORE)
        assert box == pytest.approx(best["box"], abs=BOX)
    assert all(each["score"] < threshold + SCORE for each in left)
    picture = decode(IMAGES[name])
    height, width = picture.shape[:2]
    assert decode(base64.b64decode(data["output_image"])).shape == picture.shape
    assert len(data["partial_images"]) == len(found)
    for index, ((box, _), part) in enumerate(zip(found, data["partial_images"], strict=True)):
        x0, y0, x1, y1 = geometry.outer_pixels(box, width, height)
        crop = base64.b64decode(part[f"partial_image_{index}"])
        assert decode(crop).shape == (y1 - y0, x1 - x0, 3)
        assert crop == encode(picture[y0:y1, x0:x1], "JPEG")


def check_files(folder: Path, name: str, data: dict[str, Any]) -> None:
    images, texts = folder / "output" / "images", folder / "output" / "string_images"
    encoded = {name: data["output_image"]}
    for index, part in enumerate(data["partial_images"]):
        encoded[f"OUTPUT_PARTIAL_IMAGE_{name}_{index}.jpg"] = part[f"partial_image_{index}"]
    own = (name, f"OUTPUT_PARTIAL_IMAGE_{name}_")
    assert {path.name for path in images.iterdir() if path.name.startswith(own)} == set(encoded)
    for each, text in encoded.items():
        assert (images / each).read_bytes() == base64.b64decode(text)
        assert (texts / f"{each}.txt").read_text("ascii") == text


def test_a_picture_in_base64(service: Served, folder: Path, tmp_path: Path) -> None:
    for name, image in list(IMAGES.items())[:4]:
        (tmp_path / name).write_bytes(image)
        response = ask(
            service,
            "base64",
            input_image_name=f"in_{name}",
            output_image_name=f"out_{name}",
            threshold_value=0.5,
            image_string=segserve("encode-image", tmp_path / name).decode("ascii"),
        )
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["status_code"] == 200
        check_found(answer["data"], name, 0.5)
        check_files(folder, f"out_{name}", answer["data"])
        assert (folder / "input" / "images" / f"in_{name}").read_bytes() == image
        (folder / "input" / "images" / f"in_{name}").unlink()
        drawn = segserve("encode-image", "-", "--decode", given=answer["data"]["output_image"].encode("ascii"))
        assert drawn == (folder / "output" / "images" / f"out_{name}").read_bytes()


def test_every_picture_of_the_folder_and_some_by_name(service: Served, folder: Path) -> None:
    inputs = folder / "input" / "images"
    assert ask(service, "all", threshold_value=0.5).json() == {"message": "no input files"}
    for name, image in IMAGES.items():
        (inputs / name).write_bytes(image)
    (inputs / "broken.png").write_bytes(b"no picture")
    answer = ask(service, "all", threshold_value=0.5).json()
    entries = {entry["input_image_name"]: entry for entry in answer["data"]}
    assert list(entries) == [*sorted(IMAGES), "broken.png"]
    assert entries.pop("broken.png")["error"]["code"] == "not_an_image"
    for name, entry in entries.items():
        check_found(entry, name, 0.5)
        check_files(folder, name, entry)
    first, second = list(IMAGES)[:2]
    named = ask(service, "by-name", image_names=[second, first]).json()
    assert [entry["input_image_name"] for entry in named["data"]] == [second, first]
    assert named["data"][1]["detected_bounding_boxes"] == entries[first]["detected_bounding_boxes"]
    gone = ask(service, "by-name", image_names=[first, "gone.png"])
    assert (gone.status_code, gone.json()) == (404, {"message": "no such image gone.png"})


def test_thresholds_reach_the_model(service: Served, folder: Path) -> None:
    name, image = next(iter(IMAGES.items()))
    body = {"input_image_name": name, "output_image_name": "t.png", "image_string": base64.b64encode(image).decode()}
    counts = {}
    for value in (0, 0.05, "0.5", 0.5, 1):
        response = ask(service, "base64", threshold_value=value, **body)
        assert response.status_code == 200, response.text
        counts[value] = len(response.json()["data"]["detected_bounding_boxes"])
        check_files(folder, "t.png", response.json()["data"])
    assert counts[0] <= 100
    assert counts[0] > counts[0.05] >= counts[0.5] == counts["0.5"] > counts[1] == 0
    assert counts[0.05] == pytest.approx(len(EXPECTED[name]), abs=1)
    for value in (-1, None, "abc"):
        assert ask(service, "base64", threshold_value=value, **body).status_code == 400


def test_requests_at_once_do_not_mix(service: Served, folder: Path) -> None:
    def one(name: str) -> tuple[str, dict[str, Any]]:
        image = base64.b64encode(IMAGES[name]).decode("ascii")
        names = {"input_image_name": f"c_{name}", "output_image_name": f"d_{name}"}
        return name, ask(service, "base64", threshold_value=0.5, image_string=image, **names).json()["data"]

    with ThreadPoolExecutor(8) as pool:
        for name, data in pool.map(one, IMAGES):
            check_found(data, name, 0.5)
            check_files(folder, f"d_{name}", data)


def test_names_that_lead_out_touch_nothing(service: Served, folder: Path) -> None:
    before = sorted((path, path.lstat().st_mtime_ns) for path in folder.parent.parent.rglob("*"))
    for name in ("../../x.png", "/tmp/x.png", "..", "x\x00.png", "x" * 10_000 + ".png", "．．／x.png"):
        for field in ("input_image_name", "output_image_name"):
            names = {"input_image_name": "a.png", "output_image_name": "a.png"} | {field: name}
            image = base64.b64encode(next(iter(IMAGES.values()))).decode("ascii")
            response = ask(service, "base64", threshold_value=0.5, image_string=image, **names)
            assert response.status_code == 400, name[:40]
            assert field in response.json()["error"]["message"]
        assert ask(service, "by-name", image_names=[name]).status_code == 400
    assert sorted((path, path.lstat().st_mtime_ns) for path in folder.parent.parent.rglob("*")) == before


def test_the_page_is_up(service: Served) -> None:
    page = requests.get(f"{service.url}/api/", timeout=10)
    assert (page.status_code, "segserve is up" in page.text) == (200, True)
