"""``segserve train semantic``: real steps, from the command line to a folder that loads."""

import argparse
import json
from pathlib import Path

import pytest

from segserve.cli import train
from segserve.errors import InvalidRequestError
from segserve.models.semantic.checkpoint import load_checkpoint
from segserve.training.scenes import CATEGORIES

WEIGHTS = Path(__file__).parents[3] / "weights" / "demo" / "semantic"
SMALL = ("--batch", "2", "--early-size", "32", "--input-size", "64", "--precision", "float32")


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    train.add_parser(parser.add_subparsers())
    return parser.parse_args(["train", "semantic", *arguments])


def test_the_command_trains_resumes_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ("--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"))
    for steps in ("1", "2"):
        options = parse("--steps", steps, *SMALL, *folders)
        assert options.run(options) == 0
    printed = capsys.readouterr().out
    assert "semantic 1/1 " in printed and "semantic 2/2 " in printed
    assert "semantic 1/2 " not in printed  # the second call went on where the first one stopped
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.classes == CATEGORIES
    assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["input_size"] == [64, 64]
    made_by = json.loads((tmp_path / "out" / "training.json").read_text("utf-8"))["semantic"]
    words = made_by.split()
    assert words[:3] == ["segserve", "train", "semantic"]
    again = parse(*words[3:])
    for name in ("steps", "batch", "early_size", "input_size", "precision", "rate", "architecture", "seed"):
        assert getattr(again, name) == getattr(options, name), name


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--steps", "0"), "at least 1"),
        (("--input-size", "100"), "multiple of 32"),
        (("--precision", "int4"), "invalid choice"),
    ],
)
def test_wrong_usage_is_refused(arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(*arguments)
    assert stopped.value.code == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--rate", "2"), ("--architecture", "unet")])
def test_values_that_cannot_be_trained_with_are_refused(option: str, value: str, tmp_path: Path) -> None:
    options = parse(option, value, *SMALL, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"))
    with pytest.raises(InvalidRequestError, match=option.removeprefix("--")):
        options.run(options)
    assert not (tmp_path / "out").exists()


def test_the_committed_weights_were_made_by_the_documented_command() -> None:
    command = json.loads((WEIGHTS / "training.json").read_text("utf-8"))["semantic"]
    words = command.split()
    given, defaults = parse(*words[3:]), parse()
    for name in ("steps", "batch", "rate", "early_size", "input_size", "architecture", "precision", "seed", "out"):
        assert getattr(given, name) == getattr(defaults, name), name
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 20_000_000
