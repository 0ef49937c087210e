"""The files and snippets that the page offers: their content, against the server's answer."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from test_examples import stand_in_path

from segserve import imaging, label_maps, masks
from segserve.masks import encode_rle
from web_page.conftest import Room
from web_page.segmenting_page import SegmentingPage


@pytest.fixture
def found(page: SegmentingPage, room: Room) -> list[dict[str, Any]]:
    """The instances that the page shows."""
    page.choose(room.file)
    page.mode("text")
    (result,) = page.ask("floor. bed.")["results"]
    assert len(result["instances"]) >= 2
    instances: list[dict[str, Any]] = result["instances"]
    return instances


def decoded(instances: list[dict[str, Any]]) -> list[masks.Mask]:
    return [masks.decode_rle(instance["mask"]) for instance in instances]


def test_overlay(page: SegmentingPage, room: Room, found: list[dict[str, Any]]) -> None:
    page.element("#show-labels").uncheck()
    name, data = page.download("overlay")
    assert name == "room-overlay.png"
    drawn = imaging.decode(data)
    assert drawn.shape == room.scene.image.shape
    changed = (drawn != room.scene.image).any(axis=2)
    union = np.any(decoded(found), axis=0)
    assert changed[union].mean() > 0.95
    near = cv2.dilate(union.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    assert not changed[~near].any(), "outlines at most outside of the masks"


def test_cutout_has_the_mask_as_alpha(page: SegmentingPage, room: Room, found: list[dict[str, Any]]) -> None:
    name, data = page.download("cutout")
    assert name == "room-cutout.png"
    check_cutout(data, room, decoded(found))
    page.element("#results li[data-index='0'] input[type=checkbox]").uncheck()
    check_cutout(page.download("cutout")[1], room, decoded(found[1:]))


def check_cutout(data: bytes, room: Room, kept: list[masks.Mask]) -> None:
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == "RGBA"
        pixels = np.asarray(picture)
    union = np.any(kept, axis=0)
    np.testing.assert_array_equal(pixels[..., 3], np.where(union, 255, 0))
    np.testing.assert_array_equal(pixels[..., :3][union], room.scene.image[union])


def test_coco_json_is_what_pycocotools_reads(page: SegmentingPage, found: list[dict[str, Any]], tmp_path: Path) -> None:
    name, data = page.download("coco")
    assert name == "room-coco.json"
    file = tmp_path / name
    file.write_bytes(data)
    coco = COCO(str(file))
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["file_name"], image["width"], image["height"]) == ("room.png", 480, 640)
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) == len(found)
    for annotation, instance in zip(annotations, found, strict=True):
        np.testing.assert_array_equal(coco.annToMask(annotation), masks.decode_rle(instance["mask"]))
        assert coco.loadCats(annotation["category_id"])[0]["name"] == instance["label"]
        assert annotation["score"] == pytest.approx(instance["score"], abs=1e-3)
        assert annotation["area"] == masks.area(instance["mask"])
        assert annotation["bbox"] == coco_mask.toBbox(instance["mask"]).tolist(), "the mask's, not the detector's"


def test_coco_boxes_are_the_masks_and_else_the_answers(page: SegmentingPage) -> None:
    boxes = page.evaluate(_COCO_BOXES, [encode_rle(mask) for mask in odd_masks()])
    for mask, box in zip(odd_masks(), boxes, strict=False):
        assert box == (coco_mask.toBbox(encode_rle(mask)).tolist() if mask.any() else [1, 2, 3, 4])
    assert boxes[-1] == [1, 2, 3, 4], "without a mask"


def odd_masks() -> list[masks.Mask]:
    """Nothing, everything, one pixel in each corner, single columns and rows, and noise."""
    shape = (7, 5)
    found = [np.zeros(shape, bool), np.ones(shape, bool)]
    for cut in (np.s_[0, 0], np.s_[6, 4], np.s_[6, 0], np.s_[:, 2], np.s_[3], np.s_[5:, 1:3], np.s_[0, 3:]):
        mask = np.zeros(shape, bool)
        mask[cut] = True
        found.append(mask)
    return [*found, np.random.default_rng(1).random(shape) > 0.9]


_COCO_BOXES = """async (rles) => {
  const { Segments } = await import("/static/js/segments.js");
  const { cocoDocument } = await import("/static/js/coco.js");
  const instances = [...rles, null].map((mask) => ({ label: "it", score: 1, box: [1, 2, 4, 6], area: 0, mask }));
  const segments = await Segments.fromResult({ width: 5, height: 7, instances });
  return cocoDocument({ name: "it.png" }, segments).annotations.map(({ bbox }) => bbox);
}"""


def test_coco_json_of_classes(page: SegmentingPage, room: Room, tmp_path: Path) -> None:
    page.choose(room.file)
    page.mode("semantic")
    (result,) = page.run()["results"]
    file = tmp_path / "classes.json"
    file.write_bytes(page.download("coco")[1])
    coco = COCO(str(file))
    labels = label_maps.decode_png(base64.b64decode(result["label_map"]))
    for annotation in coco.loadAnns(coco.getAnnIds()):
        name = coco.loadCats(annotation["category_id"])[0]["name"]
        np.testing.assert_array_equal(coco.annToMask(annotation), labels == result["classes"].index(name))
    assert len(coco.getAnnIds()) == len(result["pixel_fraction"])


def test_snippets_run(page: SegmentingPage, room: Room, found: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "room.png").write_bytes(room.file.read_bytes())
    printed = run_in(tmp_path, ["bash", "-c", page.snippet("curl")])
    (result,) = json.loads(printed)["results"]
    assert result["instances"] == found
    printed = run_in(tmp_path, [sys.executable, "-c", page.snippet("python")])
    assert all(instance["label"] in printed for instance in found)


def test_snippets_of_clicks_and_of_tiling_run(page: SegmentingPage, room: Room, tmp_path: Path) -> None:
    (tmp_path / "room.png").write_bytes(room.file.read_bytes())
    page.choose(room.file)
    page.mode("click")
    (result,) = page.answer_to(lambda: page.click(240, 580))["results"]
    (again,) = json.loads(run_in(tmp_path, ["bash", "-c", page.snippet("curl")]))["results"]
    # The page asks for the masks that further clicks correct, too; for people they are noise.
    assert all(each.pop("low_res") for each in result["instances"])
    assert again["instances"] == result["instances"]
    assert "object" in run_in(tmp_path, [sys.executable, "-c", page.snippet("python")])
    page.mode("tile")
    page.element("#category").select_option("Flooring")
    (tiled,) = page.answer_to(page.element("#run").click, "/invocations")["processed_images"]
    assert json.loads(run_in(tmp_path, ["bash", "-c", page.snippet("curl")]))["processed_images"] == [tiled]
    run_in(tmp_path, [sys.executable, "-c", page.snippet("python")])
    np.testing.assert_array_equal(
        imaging.decode((tmp_path / "tiled.png").read_bytes()), imaging.decode(base64.b64decode(tiled))
    )


def run_in(folder: Path, command: list[str]) -> str:
    """What a command prints, run in a folder; it must succeed. Where there is no curl, its stand-in takes part."""
    path = os.environ["PATH"] if shutil.which("curl") else stand_in_path(folder)
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
