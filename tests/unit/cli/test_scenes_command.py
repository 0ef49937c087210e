"""``segserve scenes``: arguments, output, refusals."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from segserve.cli import scenes
from segserve.errors import InvalidRequestError
from segserve.training.scenes.files import read_scenes


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="segserve")
    scenes.add_parser(root.add_subparsers())
    return root


def test_it_writes_consecutive_seeds_of_the_given_size(
    parser: argparse.ArgumentParser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = parser.parse_args(
        ["scenes", "--seed", "424242", "--count", "3", "--out", str(tmp_path / "out"), "--size", "160x120"]
    )
    assert args.run(args) == 0
    written = list(read_scenes(tmp_path / "out"))
    assert [scene.seed for scene in written] == [424242, 424243, 424244]
    assert all(scene.image.shape == (120, 160, 3) for scene in written)
    assert "3 scenes (seeds 424242 to 424244)" in capsys.readouterr().out


def test_labelme_files_of_some_categories(parser: argparse.ArgumentParser, tmp_path: Path) -> None:
    options = ["--size", "160x120", "--format", "labelme", "--categories", "wall,floor"]
    args = parser.parse_args(["scenes", "--seed", "424242", "--count", "3", "--out", str(tmp_path / "out"), *options])
    assert args.run(args) == 0
    expected = {f"{seed}.{kind}" for seed in (424242, 424243, 424244) for kind in ("json", "png")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    files = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    assert {(content["imageHeight"], content["imageWidth"]) for content in files} == {(120, 160)}
    assert {shape["label"] for content in files for shape in content["shapes"]} == {"wall", "floor"}


def test_coco_has_all_categories(parser: argparse.ArgumentParser, tmp_path: Path) -> None:
    args = parser.parse_args(["scenes", "--seed", "1", "--out", str(tmp_path / "out"), "--categories", "window"])
    with pytest.raises(InvalidRequestError, match="--categories: goes with --format labelme only"):
        args.run(args)
    assert not (tmp_path / "out").exists()


def test_one_scene_of_its_own_size_is_the_default(parser: argparse.ArgumentParser) -> None:
    args = parser.parse_args(["scenes", "--seed", "1", "--out", "x"])
    assert (args.count, args.size) == (1, None)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--size", "640", "expected WIDTHxHEIGHT such as 640x480, got '640'"),
        ("--size", "640x", "expected WIDTHxHEIGHT"),
        ("--size", "-1x20", "expected WIDTHxHEIGHT"),
        ("--count", "0", "expected 1 or more, got 0"),
        ("--seed", "-3", "expected 0 or more, got -3"),
        ("--seed", "x", "invalid"),
    ],
)
def test_wrong_usage_is_explained(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    arguments = {"--seed": "1", "--count": "1", "--out": "x", option: value}
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["scenes", *(f"{name}={text}" for name, text in arguments.items())])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_foreign_folder_is_refused(parser: argparse.ArgumentParser, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    args = parser.parse_args(["scenes", "--seed", "1", "--out", str(tmp_path)])
    with pytest.raises(InvalidRequestError, match="is not empty and holds no scenes"):
        args.run(args)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
