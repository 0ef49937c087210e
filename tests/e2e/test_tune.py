"""``segserve tune`` on a real archive: it serves, loads, measures, stops, and says what to use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import yaml


def tune(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segserve.cli", "tune", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd=cwd)


def test_a_setting_is_served_loaded_and_measured(store: Path, tmp_path: Path):
    archive, out = store / "grounded_sam.mar", tmp_path / "out" / "tune.json"
    options = ["--workers", "1", "--batch-sizes", "2", "--batch-delays", "20", "--clients", "4", "--scenes", "2"]
    options += ["--seconds", "3", "--warm-up", "1", "--text", "sofa. floor.", "--profile", "cpu", "--out", str(out)]
    done = tune(str(archive), *options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    # What it started is gone.
    left = [process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info["cmdline"])]
    assert left == []
    report = json.loads(out.read_text("utf-8"))
    (trial,) = report["trials"]
    assert report["best"] == trial
    assert (trial["workers"], trial["batch_size"], trial["batch_delay_ms"]) == (1, 2, 20)
    assert trial["errors"] == {}
    assert trial["answers"] == round(trial["throughput"] * 3) > 0
    assert 0 < trial["p50_ms"] <= trial["p95_ms"] <= trial["p99_ms"]
    assert trial["worker_rss"] >= trial["worker_pss"] > 100 * 2**20
    assert trial["ready_rss"] >= trial["ready_pss"] > 100 * 2**20
    # Two pictures, one worker: nearly all embeddings were kept ones.
    assert 0 < trial["cached"] <= 1
    assert report["load"]["prompt"] == {"text": "sofa. floor."}
    assert "segserve serve --models grounded_sam --workers 1 --batch-size 2 --batch-delay 20" in done.stdout
    profiles = yaml.safe_load(done.stdout[done.stdout.index("profiles:") :])
    assert profiles == {"profiles": {"cpu": {"workers": 1, "batch_size": 2, "batch_delay_ms": 20}}}
