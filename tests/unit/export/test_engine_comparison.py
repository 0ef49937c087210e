"""``segserve compare onnx`` on a real export, and on one whose weights were tampered with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from segserve.cli import main
from segserve.errors import InvalidRequestError
from segserve.export.engine_comparison import Runtimes, compare_engines

PICTURE = np.zeros((8, 8, 3), np.uint8)


def run(*arguments: object) -> int:
    return main(["compare", "onnx", *(str(argument) for argument in arguments)])


def test_both_engines_side_by_side(
    exported_folder: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "engines"
    assert run(exported_folder, "--scenes", scenes, "--out", out, "--batch", 2, "--repeat", 2) == 0
    report = json.loads((out / "engines.json").read_text("utf-8"))
    assert (report["pictures"], report["batch_size"], report["batches"]) == (5, 2, 10)
    assert report["file_bytes"] == {
        "torch": (exported_folder / "model.safetensors").stat().st_size,
        "onnx": (exported_folder / "model.onnx").stat().st_size,
    }
    assert report["engines"]["torch"]["latency_ratio"] == 1
    assert report["engines"]["onnx"]["latency_ratio"] > 0
    answers = report["answers"]
    assert answers["label_agreement"] >= 0.999
    assert 0 <= answers["max_logit_difference_of_range"] < 1e-4
    assert 0 < answers["logits_l2"] < 0.1
    assert (report["threads"], report["made_of_other_weights"]) == (1, False)
    assert report["onnx"]["opset"] == "18"
    assert report["command"].startswith("segserve compare onnx ")
    with Image.open(out / "engines.png") as picture:
        assert picture.width > 600
        assert len(picture.convert("RGB").getcolors(1_000_000) or []) > 20
    printed = capsys.readouterr().out
    assert "L2 of the logits" in printed
    assert "other weights" not in printed


def test_a_tampered_file_shows(exported_folder: Path, scenes: Path, tmp_path: Path) -> None:
    """The classes' biases changed, so that whole areas get another class: in the numbers and in red."""
    model = onnx.load(exported_folder / "model.onnx")
    for tensor in model.graph.initializer:
        if list(tensor.dims) == [5]:
            shift = np.float32([0, 0, 0, 0, 50])
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + shift, tensor.name))
    file = tmp_path / "tampered.onnx"
    onnx.save(model, file)
    out = tmp_path / "out"
    assert run(exported_folder, "--onnx", file, "--images", scenes / "images", "--out", out) == 0
    answers = json.loads((out / "engines.json").read_text("utf-8"))["answers"]
    assert answers["label_agreement"] < 0.5
    assert answers["max_abs_logit_difference"] > 40
    assert answers["label_map_l2"] > 1
    with Image.open(out / "engines.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels == (255, 0, 0)).all(2).sum() > 1000


def test_a_file_of_older_weights_is_told(
    exported_folder: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(exported_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, folder / "model.safetensors")
    assert run(folder, "--scenes", scenes) == 0
    assert "other weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{plain}", "--scenes", "{scenes}"], "make it with segserve export-onnx semantic --weights"),
        (["{model}", "--scenes", "{model}"], "holds no scenes"),
        (["{model}", "--images", "{model}"], "no picture in it"),
        (["{model}", "--scenes", "{scenes}", "--onnx", "{model}/config.json"], "config.json is not an ONNX file"),
        (["{model}", "--scenes", "{scenes}", "--device", "toaster"], "toaster"),
    ],
)
def test_mistakes_are_told_in_one_line(
    exported_folder: Path,
    torchvision_folder: Path,
    scenes: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    places = {"model": exported_folder, "plain": torchvision_folder, "scenes": scenes}
    assert run(*(argument.format(**places) for argument in arguments)) == 1
    told = capsys.readouterr().err
    assert told.startswith("segserve compare: ")
    assert message in told
    assert told.count("\n") == 1


def test_a_broken_picture_is_named(exported_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert run(exported_folder, "--images", tmp_path) == 1
    assert "broken.png: The bytes are not an image" in capsys.readouterr().err


def test_engines_take_turns_and_who_begins_alternates() -> None:
    calls: list[str] = []

    def engine(name: str):  # type: ignore[no-untyped-def]
        def run(pixels: torch.Tensor) -> np.ndarray:
            calls.append(name)
            return np.zeros((len(pixels), 2, 4, 4), np.float32)

        return run

    pictures = [(str(number), PICTURE) for number in range(3)]
    engines = {"a": engine("a"), "b": engine("b")}
    compare_engines(engines, pictures, lambda image: torch.zeros(3, 4, 4), count=3, rounds=2)
    assert "".join(calls[4:]) == "abba" + "baab" + "abba"


def test_the_worst_picture_is_named_even_if_its_logits_are_no_numbers() -> None:
    def ours(pixels: torch.Tensor) -> np.ndarray:
        return pixels.numpy()

    def theirs(pixels: torch.Tensor) -> np.ndarray:
        logits = pixels.numpy().copy()
        logits[pixels.numpy() == 7] = np.nan
        logits[pixels.numpy() == 5] = 100
        return logits

    levels = {"good": 1, "far": 5, "broken": 7, "fine": 2}
    pictures = [(name, np.full((4, 4, 3), level, np.uint8)) for name, level in levels.items()]
    found = compare_engines(
        {"a": ours, "b": theirs},
        pictures,
        lambda image: torch.from_numpy(image).permute(2, 0, 1).float(),
        count=len(pictures),
    )
    assert found.worst == "broken"


def test_figures_of_runtimes() -> None:
    slow, fast = Runtimes((10, 20, 40), (1, 2, 3), 4), Runtimes((5, 20, 10), (1, 1, 1), 4)
    assert (slow.median, slow.cpu_median, fast.ratio_to(slow)) == (20, 2, 0.5)
    assert slow.pictures_per_second == pytest.approx(1000 * 12 / 70)


def test_without_pictures_or_with_other_shapes_there_is_no_comparison() -> None:
    def ours(pixels: torch.Tensor) -> np.ndarray:
        return np.zeros((len(pixels), 2, 4, 4), np.float32)

    def theirs(pixels: torch.Tensor) -> np.ndarray:
        return np.zeros((len(pixels), 2, 4, 5), np.float32)

    def prepare(image: np.ndarray) -> torch.Tensor:
        return torch.zeros(3, 4, 4)

    with pytest.raises(InvalidRequestError, match="no pictures"):
        compare_engines({"a": ours, "b": ours}, [], prepare, count=0)
    with pytest.raises(InvalidRequestError, match="one: the engines answer with logits of different shapes"):
        compare_engines({"a": ours, "b": theirs}, [("one", PICTURE)], prepare, count=1)
