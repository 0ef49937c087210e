"""The demo weights of sam2 through the served path, on scenes that they were never trained on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import ROOT, SCENE_SEED, Served, serving

from segserve import masks
from segserve.client import Client
from segserve.torchserve.archive import build_archive
from segserve.training.scenes import make_scene
from segserve.training.scenes.files import write_scenes

WEIGHTS = ROOT / "weights" / "demo" / "sam2"
SCENES = 12

NOISE = 0.02
"""Of the mean IoU of some 90 objects, between two ways to ask for them."""


@pytest.fixture(scope="module")
def pointed_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demo weights, served alone under the model's own name."""
    store = tmp_path_factory.mktemp("pointed_store")
    build_archive("sam2", WEIGHTS, store)
    with serving(tmp_path_factory.mktemp("pointed_served"), store, models=("sam2",), workers=1) as service:
        yield service


def test_evaluate_reaches_the_goal_through_the_served_path(pointed_at: Served, tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", SCENE_SEED + 500, SCENES)
    command = [sys.executable, "-m", "segserve.cli", "evaluate", "sam2", "--scenes", str(tmp_path / "scenes")]
    command += ["--url", pointed_at.url, "--out", str(tmp_path / "metrics.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert (report["asked"], report["scenes"]) == ("through the served path", SCENES)
    overall = report["overall"]
    assert overall["objects"] > 5 * SCENES
    assert overall["click"] >= 0.75
    assert overall["box"] >= 0.85
    # A further click goes with the mask of the answer that it corrects; without, it is read as a new question.
    assert overall["second_click_with_mask"] >= max(overall["click"], overall["second_click"]) - NOISE


def test_a_request_names_no_model(pointed_at: Served) -> None:
    scene = make_scene(SCENE_SEED + 540)
    things = sorted((thing for thing in scene.objects if not thing.ignore), key=lambda each: -each.area)
    with Client(pointed_at.url) as client:
        (model,) = client.models()
        found = client.segment(scene.image, boxes=[thing.box for thing in things[:3]]).instances
    assert (model["name"], model["kind"]) == ("sam2", "sam2") and "low_res" in model["parameters"]
    by_object = {each.object: each for each in found}
    for index, thing in enumerate(things[:3]):
        assert masks.iou(by_object[index].mask, scene.mask(thing)) >= 0.6, thing.category


def test_the_committed_metrics_meet_the_goal_and_name_their_commands() -> None:
    report: dict[str, Any] = json.loads((WEIGHTS / "metrics.json").read_text("utf-8"))
    assert (report["scenes"], report["asked"]) == (200, "through the served path")
    assert report["commands"][0].startswith("segserve scenes --seed 5000000")
    assert report["trained_by"]["sam2"].startswith("segserve train demo-sam2")
    overall, poor = report["overall"], report["poor_first_answer"]
    assert overall["click"] >= 0.75 and overall["box"] >= 0.85
    assert overall["second_click_with_mask"] > overall["click"]
    assert poor["second_click_with_mask"] > poor["click"]
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) <= 20 * 2**20
