"""SageMaker's hosting contract, checked by segserve's own kit on the image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from engine import Engine

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "image-test"


@pytest.mark.parametrize("mode", ["one-model", "multi-model"])
def test_the_image_keeps_every_promise(engine: Engine, image: str, artifacts: Path, mode: str) -> None:
    command = [sys.executable, "-m", "segserve.cli", "conform", "--image", image, "--hardened", "--engine", engine.name]
    if mode == "multi-model":
        command += ["--multi-model", "--artifact", str(artifacts)]
    done = subprocess.run([*command, "--markdown"], cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    (FOLDER / f"conformance-{mode}.md").write_text(done.stdout, "utf-8")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
