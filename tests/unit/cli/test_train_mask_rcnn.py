"""``segserve train mask-rcnn``: from COCO annotations to weights, a report and an archive; resuming; wrong usage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segserve.cli import main
from segserve.models.mask_rcnn.checkpoint import load_checkpoint
from segserve.torchserve.archive import read_archive
from segserve.training.scenes.files import write_scenes

SMALL = ["--backbone", "mobilenet_v3_large", "--channels", "16", "--box-channels", "32", "--min-size", "64"]
SMALL += ["--max-size", "96", "--batch", "2"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 3_200_000, 4, (64, 96))
    return folder


def train(scenes: Path, folder: Path, *options: str) -> int:
    data = ["--train", str(scenes / "instances.json"), "--images", str(scenes)]
    place = ["--out", str(folder / "out"), "--work", str(folder / "work")]
    return main(["train", "mask-rcnn", *data, *SMALL, *place, *options])


def test_writes_weights_report_samples_and_archive_and_resumes(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validated = ["--val", str(scenes / "instances.json"), "--half"]
    packed = ["--archive", "rooms", "--model-store", str(tmp_path / "store")]
    assert train(scenes, tmp_path, *validated, *packed, "--epochs", "1") == 0
    printed = capsys.readouterr().out
    assert "4 pictures to learn, 4 to score" in printed
    assert "epoch 1: mask ap" in printed
    out = tmp_path / "out"
    assert len(load_checkpoint(out).architecture.classes) == 13
    assert (out / "samples" / "epoch_001.jpg").read_bytes()[:2] == b"\xff\xd8"
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    assert metrics["epochs"][0]["scores"]["pictures"] == 4
    assert metrics["trained_by"] == json.loads((out / "training.json").read_text("utf-8"))["mask_rcnn"]
    for part in ("--epochs 1", "--backbone mobilenet_v3_large", "--half", "--batch 2"):
        assert part in metrics["trained_by"]
    assert read_archive(tmp_path / "store" / "rooms.mar").name == "rooms"

    assert train(scenes, tmp_path, *validated, "--epochs", "2") == 1
    assert "--resume" in capsys.readouterr().err
    assert train(scenes, tmp_path, *validated, "--epochs", "2", "--resume") == 0
    assert [entry["number"] for entry in json.loads((out / "metrics.json").read_text("utf-8"))["epochs"]] == [1, 2]


def test_starts_from_weights_whose_classes_it_knows(scenes: Path, tmp_path: Path) -> None:
    assert train(scenes, tmp_path / "first", "--epochs", "1") == 0
    assert train(scenes, tmp_path / "second", "--epochs", "1", "--weights", str(tmp_path / "first" / "out")) == 0
    metrics = json.loads((tmp_path / "second" / "out" / "metrics.json").read_text("utf-8"))
    assert "--weights" in metrics["trained_by"]
    assert metrics["best_epoch"] is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--resume"], "holds no checkpoint"),
        (["--weights", "nowhere"], "nowhere"),
        (["--rate", "0"], "--rate"),
        (["--scale", "2", "1"], "--scale"),
        (["--min-size", "900", "--max-size", "800"], "--min-size"),
        (["--device", "cuda:7"], "cuda:7"),
        (["--train", "nowhere.json"], "nowhere.json"),
        (["--archive", "../rooms"], "'../rooms' will not do"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    assert train(scenes, tmp_path, "--epochs", "1", *options) == 1
    captured = capsys.readouterr()
    assert reason in captured.err
    assert "Traceback" not in captured.err
    assert "epoch 1" not in captured.out, "refused before the training, not after it"


@pytest.mark.parametrize("option", ["--seed", "--loaders"])
def test_numbers_below_zero_are_wrong_usage(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        train(scenes, tmp_path, "--epochs", "1", option, "-1")
    assert ended.value.code == 2
    assert f"argument {option}: expected a number of at least 0, got -1" in capsys.readouterr().err


def test_validation_of_other_classes_is_refused(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((scenes / "instances.json").read_text("utf-8"))
    content["categories"][0]["name"] = "moon"
    other = scenes / "other.json"
    other.write_text(json.dumps(content), "utf-8")
    assert train(scenes, tmp_path, "--val", str(other), "--epochs", "1") == 1
    assert "moon" in capsys.readouterr().err
