"""``segserve compare mask-rcnn`` with two small real checkpoints of random weights, on scenes and on a COCO file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from segserve.cli import main
from segserve.models.mask_rcnn import Architecture
from segserve.models.mask_rcnn.architecture import BoxHeadShape, InputShape, MaskHeadShape, ResNetShape
from segserve.models.mask_rcnn.checkpoint import save_checkpoint
from segserve.models.mask_rcnn.network import MaskRcnnNetwork
from segserve.training.scenes import CATEGORIES
from segserve.training.scenes.files import write_scenes

COUNT = 3


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "scenes"
    write_scenes(folder, 600_000_800, COUNT, (96, 128))
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """small/model and large/model: they differ in their widths only, and know a class that no scene has."""
    folder = tmp_path_factory.mktemp("checkpoints")
    places = []
    for name, channels in (("small", 16), ("large", 48)):
        torch.manual_seed(1)
        shape = Architecture(
            classes=(*CATEGORIES, "spaceship"),
            backbone=ResNetShape(depth=50, stem_channels=8, res2_channels=16, width_per_group=8, norm="BN"),
            pyramid_channels=channels,
            input=InputShape(min_size=96, max_size=128),
            box_head=BoxHeadShape(layers=1, layer_channels=channels, max_instances=10, score_threshold=0.0),
            mask_head=MaskHeadShape(convolutions=1, conv_channels=channels),
        )
        save_checkpoint(folder / name / "model", MaskRcnnNetwork(shape))
        places.append(folder / name / "model")
    return places[0], places[1]


def run(*arguments: object) -> int:
    return main(["compare", "mask-rcnn", *(str(argument) for argument in arguments)])


def test_two_checkpoints_side_by_side(
    scenes: Path, checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "comparison"
    assert run(*checkpoints, "--scenes", scenes, "--out", out, "--device", "cpu", "--repeat", 2) == 0
    report = json.loads((out / "comparison.json").read_text("utf-8"))
    assert list(report["models"]) == ["small/model", "large/model"]
    assert report["pictures"] == COUNT and report["threads"] == 1
    assert report["command"].startswith("segserve compare mask-rcnn ")
    small, large = report["models"].values()
    assert small["parameters"] < large["parameters"]
    for folder, figures in zip(checkpoints, (small, large), strict=True):
        assert figures["file_bytes"] == (folder / "model.safetensors").stat().st_size
        assert 0 < figures["latency_ms"]["median"] <= figures["latency_ms"]["p90"]
        assert figures["cpu_time_ms"] > 0
        assert 0 <= figures["mask_ap"] <= figures["mask_ap50"] < 0.5, "random weights find little"
    assert small["latency_ratio"] == 1.0
    for name in ("comparison.png", "predictions.png"):
        with Image.open(out / name) as picture:
            assert picture.format == "PNG"
    with Image.open(out / "predictions.png") as picture:
        assert picture.width == 3 * 480, "truth and two models"
    printed = capsys.readouterr()
    for word in (
        "mask AP50",
        "latency median, ms",
        "CPU time median, ms",
        "pictures/s",
        "parameters, millions",
        "floor",
    ):
        assert word in printed.out
    assert f"{small['latency_ms']['median']:.1f}" in printed.out


def test_a_coco_file_and_names(
    scenes: Path, checkpoints: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ("--val", scenes / "instances.json", "--images", scenes, "--names", "one", "other one")
    assert run(*checkpoints, *arguments, "--out", tmp_path) == 0
    report = json.loads((tmp_path / "comparison.json").read_text("utf-8"))
    assert list(report["models"]) == ["one", "other one"]
    assert "'other one'" in report["command"]
    assert "other one" in capsys.readouterr().out


def test_without_out_nothing_is_written(
    scenes: Path, checkpoints: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(checkpoints[0], "--scenes", scenes) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{small}", "{small}", "--scenes", "{scenes}"], "given twice"),
        (["{small}", "{large}", "--scenes", "{scenes}", "--names", "a"], "--names: expected 2"),
        (["{small}", "{large}", "--scenes", "{scenes}", "--names", "a", "a"], "different one"),
        (["{small}", "--val", "{scenes}/instances.json"], "--images"),
        (["{small}", "--scenes", "{scenes}", "--images", "{scenes}"], "--images belongs to --val"),
        (["{small}", "--scenes", "{small}"], "holds no scenes"),
        (["{scenes}", "--scenes", "{scenes}"], "config.json"),
        (["{small}/nowhere", "--scenes", "{scenes}"], "nowhere"),
        (["{small}", "--scenes", "{scenes}", "--device", "toaster"], "toaster"),
    ],
)
def test_mistakes_are_told_in_one_line(
    scenes: Path,
    checkpoints: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    places = {"small": checkpoints[0], "large": checkpoints[1], "scenes": scenes}
    assert run(*(argument.format(**places) for argument in arguments)) == 1
    told = capsys.readouterr().err
    assert told.startswith("segserve compare: ")
    assert message in told
    assert told.count("\n") == 1


def test_scenes_or_annotations_must_be_given(checkpoints: tuple[Path, Path]) -> None:
    with pytest.raises(SystemExit):
        run(checkpoints[0])
