"""``segserve evaluate`` with the demo weights in process, on two scenes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from segserve.cli import evaluate
from segserve.errors import InvalidRequestError
from segserve.training.scenes.files import write_scenes

WEIGHTS = Path(__file__).parents[3] / "weights" / "demo" / "grounded_sam"


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    options = parser.parse_args(["evaluate", "grounded_sam", *arguments])
    return int(options.run(options))


def test_metrics_are_printed_and_written_with_the_commands_that_give_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path / "scenes", 600_000_700, 2)
    (tmp_path / "training.json").write_text('{"detector": "segserve train …"}', "utf-8")
    out = tmp_path / "metrics.json"
    assert run("--scenes", str(tmp_path / "scenes"), "--local", str(WEIGHTS), "--out", str(out)) == 0
    report = json.loads(out.read_text("utf-8"))
    assert report["scenes"] == 2 and report["asked"] == "in process"
    assert report["commands"][0] == "segserve scenes --seed 600000700 --count 2 --out SCENES"
    assert report["trained_by"] == {"detector": "segserve train …"}
    assert report["overall"]["recall"] > 0.8 and report["overall"]["mean_mask_iou"] > 0.8
    printed = capsys.readouterr().out
    assert "floor" in printed and f"{report['overall']['recall']:.3f}" in printed


def test_a_folder_without_scenes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="no scenes"):
        run("--scenes", str(tmp_path), "--local", str(WEIGHTS))


def test_the_committed_metrics_meet_the_goals_and_name_their_commands() -> None:
    report = json.loads((WEIGHTS / "metrics.json").read_text("utf-8"))
    assert report["scenes"] == 200 and report["asked"] == "through the served path"
    assert set(report["trained_by"]) == {"detector", "segmenter"}
    for figures in (report["overall"], *report["by_question"].values()):
        assert min(figures["recall"], figures["precision"]) >= 0.85
        assert figures["absent_silent"] >= 0.95 and figures["mean_mask_iou"] >= 0.80
