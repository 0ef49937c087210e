"""The demo weights of mask_rcnn through the served path, on scenes that they were never trained on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import ROOT, SCENE_SEED, Served, serving

from segserve.client import Client
from segserve.torchserve.archive import build_archive
from segserve.training.scenes import CATEGORIES
from segserve.training.scenes.files import read_scenes, write_scenes

WEIGHTS = ROOT / "weights" / "demo" / "mask_rcnn"
SCENES = 12


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demo weights, served alone under the model's own name."""
    store = tmp_path_factory.mktemp("rooms_store")
    build_archive("mask_rcnn", WEIGHTS, store)
    with serving(tmp_path_factory.mktemp("rooms_served"), store, models=("mask_rcnn",), workers=1) as service:
        yield service


def test_evaluate_reaches_the_goal_through_the_served_path(rooms: Served, tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", SCENE_SEED + 300, SCENES)
    command = [sys.executable, "-m", "segserve.cli", "evaluate", "mask_rcnn", "--scenes", str(tmp_path / "scenes")]
    command += ["--url", rooms.url, "--out", str(tmp_path / "metrics.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert (report["asked"], report["scenes"]) == ("through the served path", SCENES)
    assert report["overall"]["mask_ap50"] >= 0.80
    assert report["overall"]["box_ap50"] >= 0.80
    assert report["overall"]["instances"] > 5 * SCENES


def test_a_request_names_neither_model_nor_prompt(rooms: Served, tmp_path: Path) -> None:
    write_scenes(tmp_path, SCENE_SEED + 400, 1)
    (scene,) = read_scenes(tmp_path)
    with Client(rooms.url) as client:
        (model,) = client.models()
        result = client.segment(scene.path, score_threshold=0.5)
    assert (model["name"], model["kind"], tuple(model["classes"])) == ("mask_rcnn", "mask_rcnn", tuple(CATEGORIES))
    asked = {thing.category for thing in scene.instances if not thing.ignore}
    assert {"floor", "wall"} <= {found.label for found in result.instances} & asked


def test_the_committed_metrics_meet_the_goal_and_name_their_commands() -> None:
    report = json.loads((WEIGHTS / "metrics.json").read_text("utf-8"))
    assert (report["scenes"], report["asked"]) == (200, "through the served path")
    assert report["commands"][0].startswith("segserve scenes --seed 5000000")
    assert report["trained_by"]["mask_rcnn"].startswith("segserve train mask-rcnn")
    assert report["overall"]["mask_ap50"] >= 0.80
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) <= 20 * 2**20
