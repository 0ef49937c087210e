"""``segserve export-onnx``: what it prints, writes and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segserve.cli import main
from segserve.export.exporter import read_metadata


def run(*arguments: object) -> int:
    return main(["export-onnx", "semantic", *(str(argument) for argument in arguments)])


def test_an_export_past_the_tolerance_is_not_put_in_place(
    transformers_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Float rounding alone is past a tolerance of 0. Nothing of the exporter's own prints is seen."""
    out = tmp_path / "new" / "model.onnx"
    assert run("--weights", transformers_folder, "--out", out, "--tolerance", 0, "--count", 2) == 1
    printed = capfd.readouterr()
    assert list(out.parent.iterdir()) == []
    message = printed.err.strip().splitlines()[-1]
    assert message.startswith("segserve export-onnx: model.onnx is refused")
    assert "logits differ by up to" in message
    assert "torch.onnx" not in printed.err + printed.out
    assert "Warning" not in printed.err
    assert printed.out.strip() == ""


def test_weights_of_torchvision_are_exported_as_they_are(
    torchvision_folder: Path, exported_folder: Path, scenes: Path, tmp_path: Path
) -> None:
    """Nothing but the file and its report is left, and it is a file for the checkpoint that archive makes of them."""
    labels, out = tmp_path / "labels.txt", tmp_path / "out" / "mine.onnx"
    labels.write_text("wall\nfloor\nsofa\nlamp\nrug\n", "utf-8")
    weights = tmp_path / "mine.pth"
    torch.save(load_file(torchvision_folder / "model.safetensors"), weights)
    options = ["--architecture", "lraspp_mobilenet_v3_large", "--labels", labels, "--input-size", "64x96"]
    assert run("--weights", weights, *options, "--pictures", scenes / "images", "--count", 1, "--out", out) == 0
    assert sorted(path.name for path in out.parent.iterdir()) == ["mine.export.json", "mine.onnx"]
    ours, theirs = read_metadata(out), read_metadata(exported_folder / "model.onnx")
    assert ours["classes"] == theirs["classes"]
    assert ours["weights_sha256"] == theirs["weights_sha256"]


def test_weights_that_are_a_file_need_a_place_for_the_export(
    torchvision_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--weights", torchvision_folder / "model.safetensors") == 1
    assert "--out: missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "{model}", "--opset", "9"], "opset: expected 18 to 23, came 9"),
        (["--weights", "{model}", "--tolerance", "2"], "tolerance: expected 0 or more and less than 1, came 2"),
        (["--weights", "{model}", "--agreement", "99.9"], "label agreement: expected 0 to 1, came 99.9"),
        (["--weights", "{model}", "--pictures", "{model}/nowhere"], "no such folder"),
        (["--weights", "{model}", "--pictures", "{model}"], "no picture in it"),
        (["--weights", "{model}/nowhere"], "nowhere"),
        (["--weights", "{model}", "--architecture", "fcn_resnet50"], "--architecture: goes with torchvision's weights"),
        (["--weights", "{model}/model.safetensors", "--architecture", "fcn_resnet50"], "weights of fcn_resnet50"),
        (["--weights", "{model}/model.safetensors", "--architecture", "lraspp_mobilenet_v3_large"], "5 classes"),
        (["--weights", "{scenes}"], "config.json"),
    ],
)
def test_mistakes_are_told_in_one_line(
    torchvision_folder: Path,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    places = {"model": torchvision_folder, "scenes": scenes}
    out = tmp_path / "model.onnx"
    assert run(*(argument.format(**places) for argument in arguments), "--out", out, "--count", 1) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1].startswith("segserve export-onnx: ")
    assert message in told[-1]
    assert list(tmp_path.iterdir()) == []
