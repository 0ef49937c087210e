"""``segserve archive`` as it is called."""

import json
import pickle
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from segserve.cli import main
from segserve.models.mask_rcnn import MaskRcnn
from segserve.torchserve.archive import read_archive

DETECTRON2 = Path(__file__).parents[2] / "data" / "detectron2"


@pytest.fixture
def checkpoint(tmp_path):
    """Checkpoints of grounded_sam under their model's name."""
    root = tmp_path / "checkpoints" / "grounded_sam"
    for part, family in (("grounding_dino", "mm-grounding-dino"), ("sam", "sam_hq")):
        (root / part).mkdir(parents=True)
        (root / part / "config.json").write_text(json.dumps({"model_type": family}))
        (root / part / "model.safetensors").write_bytes(b"weights")
        (root / part / "tokenizer.json").write_text("{}")
    return root


def yaml_of(path):
    with zipfile.ZipFile(path) as archive:
        return yaml.safe_load(archive.read("grounded_sam.yaml"))


def test_a_folder_of_checkpoints_and_a_checkpoint_itself(checkpoint, tmp_path, capsys):
    out = tmp_path / "store"
    for source in (checkpoint.parent, checkpoint):
        assert main(["archive", str(source), "--out", str(out)]) == 0
        path = out / "grounded_sam.mar"
        assert capsys.readouterr().out == f"{path} (0.0 MiB)\n"
        assert zipfile.is_zipfile(path)
        path.unlink()


def test_the_demo_weights_are_the_default(checkpoint, tmp_path, monkeypatch):
    work = tmp_path / "tree"
    (work / "weights").mkdir(parents=True)
    checkpoint.parent.rename(work / "weights" / "demo")
    monkeypatch.chdir(work)
    for arguments in ((), ("demo",), ("grounded_sam",), ("demo", "grounded_sam")):
        assert main(["archive", *arguments]) == 0
        (work / "model_store" / "grounded_sam.mar").unlink()


def test_options_end_up_in_the_archive(checkpoint, tmp_path):
    options = ["--name", "mine", "--model-version", "3.1", "--workers", "2", "--batch-size", "4", "--batch-delay", "30"]
    settings = ["--set", "dtype=float32", "--set", "box_threshold=0.4", "--set", "refine=true"]
    assert main(["archive", str(checkpoint), "--out", str(tmp_path), *options, *settings]) == 0
    config = yaml_of(tmp_path / "mine.mar")
    for profile in ("cpu", "gpu"):
        assert config["profiles"][profile] == {"workers": 2, "batch_size": 4, "batch_delay_ms": 30}
    assert config["handler"]["dtype"] == "float32"
    assert config["handler"]["box_threshold"] == 0.4
    assert config["handler"]["refine"] is True
    with zipfile.ZipFile(tmp_path / "mine.mar") as archive:
        assert json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"] == "3.1"


@pytest.fixture
def trained(tmp_path):
    """A checkpoint folder of mask_rcnn."""
    folder = tmp_path / "balloons_run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "mask_rcnn", "classes": ["balloon"]}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_trained_mask_rcnn_is_packed_by_its_folder(trained, tmp_path):
    out = tmp_path / "store"
    for arguments in ([str(trained)], ["mask_rcnn", "--weights", str(trained)], [str(trained), "mask_rcnn"]):
        assert main(["archive", *arguments, "--name", "balloons", "--out", str(out)]) == 0
        about = read_archive(out / "balloons.mar").about
        assert (about.kind, about.classes) == ("mask_rcnn", ("balloon",))
        (out / "balloons.mar").unlink()


def test_the_demo_packs_every_model_that_has_weights(checkpoint, trained, tmp_path, monkeypatch):
    work = tmp_path / "tree"
    (work / "weights").mkdir(parents=True)
    trained.rename(checkpoint.parent / "mask_rcnn")
    checkpoint.parent.rename(work / "weights" / "demo")
    monkeypatch.chdir(work)
    assert main(["archive", "demo"]) == 0
    assert sorted(path.name for path in (work / "model_store").iterdir()) == ["grounded_sam.mar", "mask_rcnn.mar"]
    assert main(["archive", "mask_rcnn", "--out", "other"]) == 0
    assert [path.name for path in (work / "other").iterdir()] == ["mask_rcnn.mar"]


def test_weights_for_detectron2_itself_keep_its_configuration(tmp_path, capsys):
    weights = ["--weights", str(DETECTRON2 / "model_final.pth"), "--config", str(DETECTRON2 / "config.yaml")]
    options = ["--engine", "detectron2", "--name", "shapes", "--out", str(tmp_path / "store")]
    assert main(["archive", "mask_rcnn", *weights, *options]) == 0
    about = read_archive(tmp_path / "store" / "shapes.mar").about
    assert (about.kind, about.engine, about.classes) == ("mask_rcnn", "detectron2", ("class 0", "class 1", "class 2"))
    with zipfile.ZipFile(tmp_path / "store" / "shapes.mar") as archive:
        packed = [name.removeprefix("checkpoint/") for name in archive.namelist() if name.startswith("checkpoint/")]
        assert packed == ["config.json", "config.yaml", "model.safetensors"]
        archive.extractall(tmp_path / "unpacked")
    folder = tmp_path / "unpacked" / "checkpoint"
    assert main(["archive", str(folder), "--out", str(tmp_path / "other")]) == 1
    assert "add --engine detectron2" in capsys.readouterr().err
    assert main(["archive", str(folder), "--engine", "detectron2", "--out", str(tmp_path / "other")]) == 0


class _Runs:
    """What a pickle calls when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
@pytest.mark.parametrize("engine", ["torchvision", "detectron2"])
def test_weights_whose_pickle_would_run_code_run_nothing(tmp_path, capsys, write, engine):
    bad, ran = tmp_path / "model_final.pth", tmp_path / "ran"
    write({"model": _Runs(ran)}, bad)
    weights = ["--weights", str(bad), "--config", str(DETECTRON2 / "config.yaml"), "--engine", engine]
    assert main(["archive", "mask_rcnn", *weights, "--out", str(tmp_path / "store")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("segserve archive: model_final.pth: its pickle would have called")
    assert not ran.exists()
    assert not (tmp_path / "store").exists()


def test_weights_of_detectron2_become_an_archive_without_a_pickle(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("disc\nbox\ntriangle\n")
    weights = ["--weights", str(DETECTRON2 / "model_final.pth"), "--config", str(DETECTRON2 / "config.yaml")]
    options = ["--labels", str(labels), "--name", "shapes", "--out", str(tmp_path / "store")]
    assert main(["archive", "mask_rcnn", *weights, *options]) == 0
    path = tmp_path / "store" / "shapes.mar"
    about = read_archive(path).about
    assert (about.kind, about.engine, about.classes) == ("mask_rcnn", "torchvision", ("disc", "box", "triangle"))
    with zipfile.ZipFile(path) as archive:
        packed = [name for name in archive.namelist() if name.startswith("checkpoint/")]
        assert packed == ["checkpoint/config.json", "checkpoint/model.safetensors"]
        (folder := tmp_path / "unpacked").mkdir()
        archive.extractall(folder, packed)
    predictor = MaskRcnn.from_folder(folder / "checkpoint", device="cpu")
    assert predictor.classes == ("disc", "box", "triangle")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["mask_rcnn", "--weights", "{pth}"], "--config: missing"),
        (["mask_rcnn", "--config", "{config}"], "--config: belongs to --weights"),
        (["mask_rcnn", "--labels", "{labels}"], "--labels: belongs to --weights"),
        (["--weights", "{pth}", "--config", "{config}"], "expected one model beside it"),
        (["mask_rcnn", "grounded_sam", "--weights", "{trained}"], "expected one model beside it"),
        (["llama", "--weights", "{trained}"], "'llama' is no model"),
        (["mask_rcnn", "--weights", "{tmp}/none.pth", "--config", "{config}"], "there is no {tmp}/none.pth"),
        (["mask_rcnn", "--weights", "{pth}", "--config", "{tmp}/none.yaml"], "none.yaml"),
        (["mask_rcnn", "--weights", "{trained}", "--config", "{config}"], "--config: goes with detectron2's"),
        (["mask_rcnn", "--weights", "{trained}", "--labels", "{labels}"], "--labels: goes with detectron2's"),
        (["grounded_sam", "--weights", "{pth}", "--config", "{config}"], "checkpoint folder of grounded_sam"),
        (["grounded_sam", "--weights", "{trained}"], "no grounded_sam checkpoint"),
        (["mask_rcnn", "--weights", "{pth}", "--config", "{config}", "--labels", "{labels}"], "expected 3 labels"),
        (["mask_rcnn", "--weights", "{config}", "--config", "{config}"], "config.yaml"),
        (["grounded_sam", "--weights", "{checkpoint}", "--engine", "torchvision"], "engine"),
        (["{trained}", "--engine", "detectron2"], "needs a config.yaml"),
        (["{trained}", "--set", "engine=onnx"], "handler.engine"),
        (["{trained}", "--set", "box_threshold=0.3"], "box_threshold"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(checkpoint, trained, tmp_path, capsys, arguments, named):
    labels = tmp_path / "two.txt"
    labels.write_text("disc\nbox\n")
    places = {
        "tmp": tmp_path,
        "checkpoint": checkpoint,
        "trained": trained,
        "labels": labels,
        "pth": DETECTRON2 / "model_final.pth",
        "config": DETECTRON2 / "config.yaml",
    }
    filled = [argument.format(**places) for argument in arguments]
    assert main(["archive", *filled, "--out", str(tmp_path / "store")]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("segserve archive: ")
    assert named.format(**places) in line
    assert not list(tmp_path.glob("store/*"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["{tmp}/nowhere"], "nowhere"),
        (["{tmp}"], "holds no checkpoint"),
        (["{checkpoint}", "llama"], "llama"),
        (["{checkpoint}", "--workers", "-1"], "workers"),
        (["{checkpoint}", "--batch-size", "0"], "batch_size"),
        (["{checkpoint}", "--set", "dtype"], "KEY=VALUE"),
        (["{checkpoint}", "--set", "box_treshold=0.4"], "box_treshold"),
        (["{checkpoint}", "--name", "a/b"], "name"),
    ],
)
def test_mistakes_get_one_clear_line_and_no_archive(checkpoint, tmp_path, capsys, arguments, named):
    filled = [argument.format(tmp=tmp_path, checkpoint=checkpoint) for argument in arguments]
    assert main(["archive", *filled, "--out", str(tmp_path / "store")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("segserve archive: ")
    assert named in line
    assert not list(tmp_path.glob("store/*"))


def test_the_script_is_the_command():
    script = Path(__file__).parents[3] / "archive.sh"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: segserve archive")
