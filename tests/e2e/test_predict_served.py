"""``segserve predict`` against a real service, and the same without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import DEMO_WEIGHTS, ROOT, Served

from segserve import imaging, masks

TEXT = "floor. wall. window. giraffe."


def predict(image: Path, out: Path, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "segserve.cli", "predict", str(image), "--text", TEXT, "--json"]
    done = subprocess.run(
        [*command, "--out", str(out), *options], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_local_and_served_answers_agree(served: Served, scene_png: bytes, tmp_path: Path) -> None:
    image = tmp_path / "room.png"
    image.write_bytes(scene_png)
    (remote,) = predict(image, tmp_path / "served", "--url", served.url, "--box-threshold", "0.35")
    (local,) = predict(image, tmp_path / "local", "--local", "--weights", str(DEMO_WEIGHTS), "--box-threshold", "0.35")
    assert {"floor", "wall"} <= {found["label"] for found in remote["instances"]} <= {"floor", "wall", "window"}
    assert len(remote["instances"]) == len(local["instances"])
    for one, other in zip(remote["instances"], local["instances"], strict=True):
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], abs=2e-3)
        assert one["box"] == pytest.approx(other["box"], abs=0.5)
        assert masks.iou(masks.decode_rle(one["mask"]), masks.decode_rle(other["mask"])) > 0.99
    first, second = (imaging.decode(Path(shown["overlay"]).read_bytes()) for shown in (remote, local))
    assert first.shape == second.shape
    assert np.abs(first.astype(int) - second).mean() < 2
