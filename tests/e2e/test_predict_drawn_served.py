"""Seed 003's route before a real TorchServe: a checkpoint of detectron2, archived, served, drawn and measured."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from servers import ROOT, Served, serving

from segserve import imaging
from segserve.masks import Rle, decode_rle

GOLDEN = ROOT / "tests" / "data" / "detectron2"
EXPECTED: dict[str, Any] = {
    item["image"]: item for item in json.loads((GOLDEN / "expected.json").read_text())["images"]
}
LABELS = ("disc", "box", "triangle")


@pytest.fixture(scope="module")
def drawn_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The reference checkpoint under a name of its own."""
    folder = tmp_path_factory.mktemp("drawn")
    labels = folder / "labels.txt"
    labels.write_text("\n".join(LABELS))
    command = [sys.executable, "-m", "segserve.cli", "archive", "mask_rcnn", "--name", "shapes"]
    command += ["--weights", str(GOLDEN / "model_final.pth"), "--config", str(GOLDEN / "config.yaml")]
    command += ["--labels", str(labels), "--out", str(folder / "model_store")]
    subprocess.run(command, check=True, cwd=ROOT)
    with serving(folder / "served", folder / "model_store", models=("shapes",), workers=1) as service:
        yield service


def union(masks: list[Rle], height: int, width: int) -> np.ndarray:
    covered = np.zeros((height, width), dtype=bool)
    for mask in masks:
        covered |= decode_rle(mask)
    return covered


def ask(served: Served, name: str, **options: Any) -> requests.Response:
    with (GOLDEN / "images" / name).open("rb") as file:
        answer = requests.post(f"{served.url}/predict", files={"image": file}, timeout=60, **options)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_percentage_is_that_of_detectron2s_masks(drawn_served: Served, name: str) -> None:
    truth = EXPECTED[name]
    kept = [item for item in truth["instances"] if item["score"] >= 0.5]
    covered = union([item["mask"] for item in kept], truth["height"], truth["width"])
    answer = ask(drawn_served, name, headers={"Accept": "application/json"}).json()
    found = answer["instances"]
    assert sorted(item["label"] for item in found) == sorted(LABELS[item["category_id"]] for item in kept)
    ours = union([item["mask"] for item in found], truth["height"], truth["width"])
    assert answer["masked_percentage"] == round(100 * float(ours.mean()), 2)
    assert answer["masked_percentage"] == pytest.approx(100 * covered.mean(), rel=0.02)
    assert answer["masked_percentage"] + answer["unmasked_percentage"] == 100
    drawn = imaging.decode(base64.b64decode(answer["image"]))
    original = imaging.decode((GOLDEN / "images" / name).read_bytes())
    changed = (drawn != original).any(axis=2)
    assert changed[ours].mean() > 0.98 and changed.mean() < 1


def test_threshold_and_gray_background(drawn_served: Served) -> None:
    name = "90005.png"
    counts = []
    for threshold in (0.05, 0.5, 0.85, 1):
        answer = ask(drawn_served, name, data={"threshold": threshold}, headers={"Accept": "application/json"}).json()
        assert all(item["score"] >= threshold for item in answer["instances"])
        counts.append(len(answer["instances"]))
    assert counts[0] > counts[1] > counts[2] >= counts[3] == 0
    plain, gray = ask(drawn_served, name), ask(drawn_served, name, data={"remove_colors": "true"})
    assert plain.headers["X-Masked-Percentage"] == gray.headers["X-Masked-Percentage"]
    picture = imaging.decode(gray.content)
    found = ask(drawn_served, name, headers={"Accept": "application/json"}).json()["instances"]
    covered = union([item["mask"] for item in found], *picture.shape[:2])
    grayed = (picture == picture[..., :1]).all(axis=2)
    assert grayed[~covered].mean() > 0.7 and not grayed[covered].mean() > 0.3


@pytest.mark.parametrize("curl", sorted({shutil.which("curl") or "", ""}))
def test_documented_curl_works(drawn_served: Served, tmp_path: Path, curl: str) -> None:
    """The command of docs/api.md, word for word but for address and files; without curl, a stand-in runs it."""
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("curl") and "/predict " in line]
    line = line.replace("http://127.0.0.1:8080", drawn_served.url)
    line = line.replace("room.jpg", str(GOLDEN / "images" / "90001.png"))
    program = [curl] if curl else [sys.executable, str(Path(__file__).with_name("curl_stand_in.py"))]
    done = subprocess.run([*program, *shlex.split(line)[1:]], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "x-masked-percentage: " in done.stdout.lower()
    assert imaging.read_info((tmp_path / "drawn.png").read_bytes()).format == "PNG"
