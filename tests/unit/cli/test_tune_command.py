"""``segserve tune``: what it refuses before anything starts, and what it makes of its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from segserve.cli import build_parser, main
from segserve.cli.tuning_trials import default_prompt, generated_pictures
from segserve.imaging import decode
from segserve.torchserve.archive import build_archive, source_folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the smallest demo weights."""
    folder = tmp_path_factory.mktemp("store")
    return str(build_archive("sam2", source_folder("weights") / "demo" / "sam2", folder))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--prompt", "{"], "--prompt"),
        (["--prompt", "[1]"], "--prompt"),
        (["--prompt", "{}", "--text", "sofa."], "--text"),
        (["--seconds", "nan"], "--seconds"),
        (["--warm-up", "-1"], "--warm-up"),
        (["--latency-target", "-5"], "--latency-target"),
        (["--time-limit", "0"], "--time-limit"),
        (["--images", "README.md"], "image"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    archive: str, options: list[str], named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert main(["tune", archive, "--profile", "cpu", "--log-dir", str(tmp_path / "logs"), *options]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("segserve tune: ")
    assert named in line
    assert not (tmp_path / "logs").exists()


def test_no_archive(capsys: pytest.CaptureFixture[str]):
    assert main(["tune", "none.mar"]) == 1
    assert "none.mar is not a model archive" in capsys.readouterr().err


def test_a_number_below_one_is_wrong_usage():
    with pytest.raises(SystemExit):
        build_parser().parse_args(["tune", "a.mar", "--batch-sizes", "0"])


def test_every_kind_has_a_prompt_and_the_pictures_differ():
    assert "sofa" in default_prompt("grounded_sam", 640, 480)["text"]
    assert default_prompt("sam2", 640, 480) == {"points": [[320, 240, 1]]}
    assert default_prompt("semantic", 640, 480) == default_prompt(None, 640, 480) == {}
    first, second = generated_pictures(2)
    assert first != second
    assert decode(first).shape == (480, 640, 3)
