"""``segserve train``: two real steps of the demo detector, from the command line to a folder that loads."""

import argparse
import json
from pathlib import Path

import pytest
from transformers import AutoModelForZeroShotObjectDetection

from segserve.cli import train


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    train.add_parser(parser.add_subparsers())
    return parser.parse_args(["train", "demo-grounded-sam", *arguments])


def test_the_command_trains_resumes_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ("--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"))
    for steps in ("1", "2"):
        options = parse("--only", "detector", "--steps-detector", steps, "--batch-detector", "1", *folders)
        assert options.run(options) == 0
    printed = capsys.readouterr().out
    assert "detector 1/1 " in printed
    assert "detector 2/2 " in printed
    assert "detector 1/2 " not in printed  # the second call went on where the first one stopped
    model = AutoModelForZeroShotObjectDetection.from_pretrained(tmp_path / "out" / "grounding_dino")
    assert model.config.d_model == 96
    assert not (tmp_path / "out" / "sam").exists()
    made_by = json.loads((tmp_path / "out" / train.TRAINING_FILE).read_text("utf-8"))
    words = made_by["detector"].split()
    assert parse(*words[3:]).steps_detector == 2 and words[:3] == ["segserve", "train", "demo-grounded-sam"]
    assert "segmenter" not in made_by


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--steps-detector", "0"), "at least 1"),
        (("--batch-segmenter", "-3"), "at least 1"),
        (("--only", "everything"), "invalid choice"),
    ],
)
def test_wrong_usage_is_refused(arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(*arguments)
    assert stopped.value.code == 2
    assert problem in capsys.readouterr().err
