"""``segserve train demo-sam2``: real steps, from the command line to a folder that loads."""

import argparse
import json
from pathlib import Path

import pytest
from transformers import Sam2Model, Sam2Processor

from segserve.cli import train

WEIGHTS = Path(__file__).parents[3] / "weights" / "demo" / "sam2"


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    train.add_parser(parser.add_subparsers())
    return parser.parse_args(["train", "demo-sam2", *arguments])


def test_the_command_trains_resumes_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ("--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"))
    for steps in ("1", "2"):
        options = parse("--steps", steps, "--batch", "1", *folders)
        assert options.run(options) == 0
    printed = capsys.readouterr().out
    assert "sam2 1/1 " in printed and "sam2 2/2 " in printed
    assert "sam2 1/2 " not in printed  # the second call went on where the first one stopped
    model = Sam2Model.from_pretrained(tmp_path / "out")
    assert Sam2Processor.from_pretrained(tmp_path / "out").target_size == model.config.prompt_encoder_config.image_size
    words = json.loads((tmp_path / "out" / "training.json").read_text("utf-8"))["sam2"].split()
    assert words[:3] == ["segserve", "train", "demo-sam2"]
    again = parse(*words[3:])
    for name in ("steps", "batch", "seed", "device", "out"):
        assert getattr(again, name) == getattr(options, name), name


def test_wrong_usage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse("--steps", "0")
    assert stopped.value.code == 2
    assert "at least 1" in capsys.readouterr().err


def test_the_committed_weights_were_made_by_the_documented_command() -> None:
    words = json.loads((WEIGHTS / "training.json").read_text("utf-8"))["sam2"].split()
    given, defaults = parse(*words[3:]), parse()
    for name in ("steps", "batch", "seed", "out"):
        assert getattr(given, name) == getattr(defaults, name), name
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 20_000_000
