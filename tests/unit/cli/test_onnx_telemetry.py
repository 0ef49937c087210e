"""ONNX Runtime, which archiving a semantic model runs, leaves nothing behind: told nothing, it keeps a machine's id."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WEIGHTS = Path(__file__).parents[3] / "weights" / "demo" / "semantic"


def files_after(folder: Path, *command: str) -> list[str]:
    home = folder / "home"
    home.mkdir(parents=True)
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, *command], env={**env, "HOME": str(home)}, check=True, capture_output=True)
    return [path.name for path in home.rglob("*") if path.is_file()]


def test_archiving_keeps_no_id_of_the_machine(tmp_path: Path) -> None:
    told_nothing = f"import onnxruntime; onnxruntime.InferenceSession({str(WEIGHTS / 'model.onnx')!r})"
    if "deviceid" not in files_after(tmp_path / "plain", "-c", told_nothing):
        return  # this version keeps none anyway
    archive = ("-m", "segserve.cli", "archive", "semantic", "--weights", str(WEIGHTS), "--out", str(tmp_path / "store"))
    assert "deviceid" not in files_after(tmp_path / "segserve", *archive)
    assert (tmp_path / "store" / "semantic.mar").is_file()
