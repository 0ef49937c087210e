"""The examples run as written, against a real service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from servers import ROOT, Served

from segserve import imaging, masks
from segserve.training.scenes import CATEGORIES, Scene

EXAMPLES = ROOT / "examples"


def run(*command: str | Path, path: str | None = None) -> str:
    """What a command prints; it must succeed. path: its PATH, where it differs."""
    environment = {**os.environ, "PATH": path} if path else None
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def floor_of(scene: Scene) -> np.ndarray:
    return np.asarray(scene.semantic == CATEGORIES.index("floor"))


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")} == {
        "segment_by_text.py",
        "invocations.py",
        "semantic_client.py",  # by test_infer_served.py
        "curl.sh",
    }


def test_segment_by_text(served: Served, scene: Scene, scene_png: bytes, tmp_path: Path) -> None:
    image, overlay = tmp_path / "room.png", tmp_path / "overlay.png"
    image.write_bytes(scene_png)
    printed = run(
        sys.executable, EXAMPLES / "segment_by_text.py", image, "floor. wall. giraffe.", overlay, "--url", served.url
    )
    assert "\nfloor " in printed and "\nwall " in printed and "giraffe" not in printed
    drawn = imaging.decode(overlay.read_bytes())
    assert drawn.shape == scene.image.shape
    assert (drawn != scene.image).any(axis=2)[floor_of(scene)].mean() > 0.8, "the floor is tinted"


def test_invocations(served: Served, scene: Scene, scene_png: bytes, tmp_path: Path) -> None:
    image = tmp_path / "room.png"
    image.write_bytes(scene_png)
    printed = run(sys.executable, EXAMPLES / "invocations.py", image, tmp_path / "out", "--url", served.url)
    assert "Healthy" in printed and "floor: score" in printed
    assert imaging.decode((tmp_path / "out" / "overlay.png").read_bytes()).shape == scene.image.shape
    tiled = imaging.decode((tmp_path / "out" / "tiled.png").read_bytes())
    changed = (tiled != scene.image).any(axis=2)
    assert masks.iou(changed, floor_of(scene)) > 0.7, "the floor was tiled, and little else"


def stand_in_path(folder: Path) -> str:
    """A PATH on which curl is the stand-in beside this file."""
    program = folder / "curl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).with_name("curl_stand_in.py")}" "$@"\n')
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("curl", sorted({shutil.which("curl") or "stand-in", "stand-in"}))
def test_curl(served: Served, scene: Scene, scene_png: bytes, tmp_path: Path, curl: str) -> None:
    path = stand_in_path(tmp_path) if curl == "stand-in" else os.environ["PATH"]
    image, out = tmp_path / "room.png", tmp_path / "out"
    image.write_bytes(scene_png)
    printed = run("bash", EXAMPLES / "curl.sh", image, out, served.url, path=path)
    assert '"grounded_sam"' in printed
    assert '"invalid_request"' in printed and "box_threshold" in printed
    (result,) = json.loads((out / "answer.json").read_text())["results"]
    labels = {instance["label"] for instance in result["instances"]}
    assert labels == {"floor", "wall"}
    assert masks.decode_rle(result["instances"][0]["mask"]).shape == scene.image.shape[:2]
    assert imaging.decode((out / "overlay.png").read_bytes()).shape == scene.image.shape
