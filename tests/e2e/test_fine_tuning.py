"""docs/fine-tuning.md runs as written: from a labelme folder to an answer, by its own commands.

What is changed: the training is short, the scenes are few and small, and the server gets free ports.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from servers import ROOT, Served, serving

from segserve import imaging, masks
from segserve.training.scenes import Scene, make_scene

SIZE = (240, 320)
SMALL = "--count 24 --size 320x240"
SHORT = "--epochs 2 --rate 1e-4"
ROOM_SEEDS = (600_100_013, 600_100_029)
"""Held out, each with a window that nothing hides."""

BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "fine-tuning.md").read_text("utf-8"), re.DOTALL)
TRAIN, ASK, SCENES = BLOCKS[:3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place like the source tree, with the demo weights, and programs to be found in bin/."""
    folder = tmp_path_factory.mktemp("fine_tuning")
    (folder / "weights").symlink_to(ROOT / "weights")
    (folder / "bin").mkdir()
    curl = Path(__file__).with_name("curl_stand_in.py")
    for name, program in (("segserve", "-m segserve.cli"), ("curl", f'"{curl}"')):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {program} "$@"\n')
        script.chmod(0o755)
    return folder


def run(folder: Path, commands: str) -> str:
    """What the commands print; they must succeed."""
    environment = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}
    done = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """The folder after all documented commands but ``segserve serve``."""
    assert SCENES.count("--count 60") == 1
    run(folder, SCENES.replace("--count 60", SMALL))
    *before, serve = TRAIN.replace("\\\n", " ").splitlines()
    assert serve == "segserve serve"
    convert, train = before
    printed = run(folder, convert)
    assert "coco.train.json" in printed and "sofa" in printed and "window" in printed
    assert train.rstrip().endswith("--archive")
    printed = run(folder, f"{train} {SHORT}")
    assert "epoch 2: mask ap" in printed
    return folder


def rooms() -> list[Scene]:
    return [make_scene(seed, SIZE) for seed in ROOM_SEEDS]


def ask(folder: Path, served: Served, room: Scene) -> dict:
    """The answers to the documented requests: the JSON of the first."""
    (folder / "room.jpg").write_bytes(imaging.encode(room.image, "JPEG"))
    segment, predict = ASK.replace("http://127.0.0.1:8080", served.url).splitlines()
    run(folder, predict)
    assert imaging.decode((folder / "drawn.png").read_bytes()).shape == room.image.shape
    (result,) = json.loads(run(folder, segment))["results"]
    return result


def test_three_commands_lead_to_an_endpoint(trained: Path) -> None:
    metrics = json.loads((trained / "build" / "mine" / "weights" / "metrics.json").read_text("utf-8"))
    assert len(metrics["epochs"]) == 2
    assert len(list((trained / "build" / "mine" / "weights" / "samples").glob("*.jpg"))) == 2
    with serving(trained / "served", trained / "model_store", models=("mask_rcnn",), workers=1) as served:
        for room in rooms():
            found = ask(trained, served, room)["instances"]
            assert {instance["label"] for instance in found} <= {"window", "sofa"}
            (window,) = (item for item in room.objects if item.category == "window" and not item.ignore)
            ious = [
                masks.iou(masks.decode_rle(instance["mask"]), room.mask(window))
                for instance in found
                if instance["label"] == "window"
            ]
            assert max(ious, default=0.0) >= 0.7, f"scene {room.seed}: {np.round(ious, 2)}"
