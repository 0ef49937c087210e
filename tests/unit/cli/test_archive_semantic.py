"""``segserve archive semantic``: weights of torchvision, checkpoint folders, ONNX files."""

import json
import zipfile

import onnx
import pytest
import torch

from onnx_files import brightest_class, damaged, external_bytes, with_external_data
from segserve.cli import main
from segserve.config import ArchivedModel
from segserve.models.semantic import Semantic
from segserve.models.semantic.architecture import SemanticConfig, build_network
from segserve.models.semantic.checkpoint import save_checkpoint
from segserve.torchserve.archive import read_archive

CLASSES = ("floor", "wall", "sky")
SIZE = (32, 48)
CONFIG = SemanticConfig(CLASSES, "lraspp_mobilenet_v3_large", SIZE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint folder without an ONNX file."""
    folder = tmp_path_factory.mktemp("trained")
    save_checkpoint(folder, CONFIG, build_network(CONFIG))
    return folder


@pytest.fixture
def good_onnx(tmp_path):
    file = tmp_path / "elsewhere" / "streets.onnx"
    file.parent.mkdir()
    onnx.save(brightest_class(3, SIZE), file)
    return file


def archive(tmp_path, *arguments):
    """Exit status of the command, run to the store of the test."""
    return main(["archive", *(str(argument) for argument in arguments), "--out", str(tmp_path / "store")])


def packed(tmp_path, name="semantic"):
    with zipfile.ZipFile(tmp_path / "store" / f"{name}.mar") as file:
        names = [entry for entry in file.namelist() if entry.startswith("checkpoint/")]
        file.extractall(tmp_path / "unpacked", names)
    return sorted(entry.removeprefix("checkpoint/") for entry in names)


def test_weights_of_torchvision_become_an_archive_of_both_engines(tmp_path, good_onnx):
    weights, labels = tmp_path / "model.pth", tmp_path / "labels.txt"
    torch.save({"model": {**build_network(CONFIG).state_dict(), "aux_classifier.0.weight": torch.zeros(1)}}, weights)
    labels.write_text("\n".join(CLASSES) + "\n")
    options = ["--architecture", CONFIG.architecture, "--labels", labels, "--input-size", "32x48", "--name", "streets"]
    assert archive(tmp_path, "semantic", "--weights", weights, *options, "--onnx", good_onnx, "--engine", "onnx") == 0
    assert read_archive(tmp_path / "store" / "streets.mar").about == ArchivedModel(
        "semantic", "onnx", CLASSES, ("torch", "onnx")
    )
    assert packed(tmp_path, "streets") == ["config.json", "model.onnx", "model.safetensors"]
    model = Semantic.from_folder(tmp_path / "unpacked" / "checkpoint", device="cpu")
    assert (model.classes, model.engines) == (CLASSES, ("torch", "onnx"))
    settings = json.loads((tmp_path / "unpacked" / "checkpoint" / "config.json").read_text())
    assert settings["input_size"] == list(SIZE)


def test_a_checkpoint_folder_with_and_without_an_onnx_file(tmp_path, checkpoint, good_onnx):
    assert archive(tmp_path, "semantic", "--weights", checkpoint) == 0
    assert packed(tmp_path) == ["config.json", "model.safetensors"]
    assert archive(tmp_path, checkpoint, "--onnx", good_onnx) == 0
    assert packed(tmp_path) == ["config.json", "model.onnx", "model.safetensors"]
    # What was packed lies together in the other archive's folder: packed again, it is the same.
    before = (tmp_path / "store" / "semantic.mar").read_bytes()
    assert archive(tmp_path, tmp_path / "unpacked" / "checkpoint") == 0
    assert (tmp_path / "store" / "semantic.mar").read_bytes() == before


def test_a_model_that_transformers_saved_is_packed_whole(tmp_path):
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    labels = dict(enumerate(["wall", "door", "sky", "door"]))
    shape = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1]}
    config = SegformerConfig(**shape, decoder_hidden_size=8, id2label=labels, label2id={"wall": 0, "door": 1, "sky": 2})
    folder = tmp_path / "segformer"
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": SIZE[0], "width": SIZE[1]}).save_pretrained(folder)
    onnx.save(brightest_class(4, SIZE, favorite=3), folder / "model.onnx")
    assert archive(tmp_path, "semantic", "--weights", folder) == 0
    assert packed(tmp_path) == ["config.json", "model.onnx", "model.safetensors", "preprocessor_config.json"]
    model = Semantic.from_folder(tmp_path / "unpacked" / "checkpoint", device="cpu")
    # What the archive tells before the model has loaded is what the model tells.
    about = read_archive(tmp_path / "store" / "semantic.mar").about
    assert about.classes == model.classes == ("wall", "door", "sky", "door 3")
    assert about.engines == model.engines == ("torch", "onnx")


def test_external_data_beside_the_onnx_file_comes_along(tmp_path, checkpoint, good_onnx):
    model = onnx.load(good_onnx)
    (good_onnx.parent / "streets.data").write_bytes(external_bytes(model))
    good_onnx.write_bytes(with_external_data(model, "streets.data").SerializeToString())
    assert archive(tmp_path, "semantic", "--weights", checkpoint, "--onnx", good_onnx) == 0
    assert packed(tmp_path) == ["config.json", "model.onnx", "model.safetensors", "streets.data"]


@pytest.mark.parametrize("way", ["truncated", "climbing", "absolute", "misshapen"])
def test_bad_onnx_files_are_refused_before_anything_is_packed(tmp_path, checkpoint, good_onnx, capsys, way):
    content, word = damaged(good_onnx, tmp_path)[way]
    bad = good_onnx.with_name("bad.onnx")
    bad.write_bytes(content)
    assert archive(tmp_path, "semantic", "--weights", checkpoint, "--onnx", bad) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("segserve archive: ")
    assert word in line
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["semantic", "--weights", "{folder}", "--engine", "onnx"], "needs a model.onnx"),
        (["semantic", "--weights", "{folder}", "--engine", "detectron2"], "expected torch or onnx"),
        (["semantic", "--weights", "{folder}", "--onnx", "{folder}/none.onnx"], "--onnx: there is no file"),
        (["semantic", "--weights", "{folder}", "--architecture", "fcn_resnet50"], "--architecture: goes with"),
        (["semantic", "--weights", "{folder}", "--input-size", "64x64"], "--input-size: goes with"),
        (
            ["semantic", "--weights", "{folder}", "--config", "{folder}/config.json"],
            "--config: is no option of semantic",
        ),
        (["mask_rcnn", "--weights", "{folder}", "--onnx", "{folder}/config.json"], "--onnx: is no option of mask_rcnn"),
        (["semantic", "--architecture", "fcn_resnet50"], "--architecture: belongs to --weights"),
        (["semantic", "--weights", "{folder}/model.safetensors"], "deeplabv3_mobilenet_v3_large"),
        (
            ["semantic", "--weights", "{folder}/model.safetensors", "--architecture", "lraspp_mobilenet_v3_large"],
            "3 classes",
        ),
        (["semantic", "--weights", "{folder}/model.safetensors", "--architecture", "unet"], "unet"),
        (["semantic", "--weights", "{folder}/config.json"], "config.json"),
    ],
)
def test_mistakes_with_semantic_weights_are_refused(tmp_path, checkpoint, capsys, arguments, named):
    assert archive(tmp_path, *(argument.format(folder=checkpoint) for argument in arguments)) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("segserve archive: ")
    assert named in line
    assert not (tmp_path / "store").exists()


def test_a_size_is_height_by_width(capsys):
    for text in ("512", "512x", "0.5x3", "ax b"):
        with pytest.raises(SystemExit) as stopped:
            main(["archive", "semantic", "--input-size", text])
        assert stopped.value.code == 2
        assert "expected HxW" in capsys.readouterr().err
