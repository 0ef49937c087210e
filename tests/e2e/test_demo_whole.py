"""``segserve demo`` as a user runs it: the pictures it leaves, the processes it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from servers import DEMO_WEIGHTS, ROOT

from segserve import imaging
from segserve.training.scenes import CATEGORIES, make_scene

SEED = 10


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "segserve.cli", "demo", "--out", str(out), "--seeds", str(SEED)]
    return subprocess.Popen(
        [*command, "--weights", str(DEMO_WEIGHTS)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Where the tests run in the background of a shell, Ctrl-C is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one system call
    )


def test_demo(tmp_path: Path) -> None:
    demo = start(tmp_path / "out")
    printed, _ = demo.communicate(timeout=400)
    assert demo.returncode == 0, printed
    assert "IoU with the truth" in printed and "green table" in printed and "mean" in printed
    scene = make_scene(SEED, (480, 640))
    picture = imaging.decode((tmp_path / "out" / f"room_{SEED}_scene.png").read_bytes())
    assert (picture == scene.image).all()
    tiled = imaging.decode((tmp_path / "out" / f"room_{SEED}_tiled.png").read_bytes())
    changed = (tiled != scene.image).any(axis=2)
    assert changed[scene.semantic == CATEGORIES.index("floor")].mean() > 0.7
    assert changed[scene.semantic == CATEGORIES.index("ceiling")].mean() < 0.02
    overlay = imaging.decode((tmp_path / "out" / f"room_{SEED}_overlay.png").read_bytes())
    assert (overlay != scene.image).any(axis=2).mean() > 0.5
    assert "by class: mask_rcnn" in printed
    (total,) = [line.replace("│", " ").split() for line in printed.splitlines() if line.startswith("│ all ")]
    _, objects, found, _, iou = total
    assert int(found) >= 0.7 * int(objects) > 3 and float(iou) >= 0.7
    instances = imaging.decode((tmp_path / "out" / f"room_{SEED}_instances.png").read_bytes())
    assert (instances != scene.image).any(axis=2).mean() > 0.5 and (instances != overlay).any()
    assert "pixel by pixel: semantic" in printed
    classes = imaging.decode((tmp_path / "out" / f"room_{SEED}_classes.png").read_bytes())
    assert classes.shape[0] > 480, "a legend is below it"
    assert (classes[:480] != scene.image).any(axis=2).mean() > 0.9 and (classes[:480] != overlay).any()
    assert "by click and box: sam2" in printed and "click on the" in printed and "box around the" in printed
    clicks = imaging.decode((tmp_path / "out" / f"room_{SEED}_clicks.png").read_bytes())
    assert 0.02 < (clicks != scene.image).any(axis=2).mean() < 0.5
    overview = imaging.decode((tmp_path / "out" / "overview.jpg").read_bytes())
    assert overview.shape[1] > 6 * 350, "side by side: the room, by text, class, pixel and click, the new floor"


def test_interrupted_while_it_starts_nothing_stays_behind(tmp_path: Path) -> None:
    demo = start(tmp_path / "out")
    deadline = time.monotonic() + 200
    family: list[psutil.Process] = []
    while time.monotonic() < deadline and not any("java" in process.name() for process in family):
        time.sleep(0.2)
        family = psutil.Process(demo.pid).children(recursive=True)
    assert len(family) >= 2, "the gateway and TorchServe have been started"
    demo.send_signal(signal.SIGINT)
    printed, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130, printed
    assert "interrupted" in printed and "Traceback" not in printed
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
