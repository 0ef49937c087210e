"""``segserve archive sam2``: whose checkpoints it takes, and what of them."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml

from segserve.cli import main
from segserve.torchserve.archive import read_archive
from segserve.torchserve.plan import Overrides, plan_serving
from unit.models.sam2_checkpoints import save_sam2

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture
def checkpoint(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "clicks"))


def entries(path):
    with zipfile.ZipFile(path) as archive:
        return {name.removeprefix("checkpoint/") for name in archive.namelist() if name.startswith("checkpoint/")}


def test_a_checkpoint_folder_is_packed_without_what_no_worker_reads(checkpoint, tmp_path):
    others = {"pytorch_model.bin", "sam2_hiera_small.pt", "README.md", "training.json"}
    for name in others:
        (checkpoint / name).write_bytes(b"other")
    out = tmp_path / "store"
    assert main(["archive", "sam2", "--weights", str(checkpoint), "--name", "clicks", "--out", str(out)]) == 0
    names = entries(out / "clicks.mar")
    assert {"config.json", "model.safetensors"} <= names
    assert any(name.endswith("processor_config.json") for name in names)
    assert not names & others
    info = read_archive(out / "clicks.mar")
    assert (info.name, info.about.kind, info.about.classes) == ("clicks", "sam2", None)


def test_a_checkpoint_of_the_video_model_is_one(checkpoint, tmp_path):
    # As SAM 2's authors publish it for transformers.
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    (checkpoint / "config.json").write_text(json.dumps({**config, "model_type": "sam2_video"}), "utf-8")
    assert main(["archive", str(checkpoint), "--out", str(tmp_path / "store")]) == 0
    assert read_archive(tmp_path / "store" / "sam2.mar").about.kind == "sam2"


def test_a_cpu_gets_one_worker_with_all_cores_unless_the_operator_says_otherwise(checkpoint, tmp_path):
    assert main(["archive", "sam2", "--weights", str(checkpoint), "--out", str(tmp_path)]) == 0
    archive = read_archive(tmp_path / "sam2.mar")
    assert archive.config["handler"]["threads"] == 0
    assert plan_serving([archive], "cpu").models[0].workers == 1
    assert plan_serving([archive], "cpu", Overrides(workers=3)).models[0].workers == 3


def test_the_cache_is_set_as_any_option(checkpoint, tmp_path, capsys):
    command = ["archive", "sam2", "--weights", str(checkpoint), "--out", str(tmp_path)]
    assert main([*command, "--set", "embedding_cache_mb=64"]) == 0
    with zipfile.ZipFile(tmp_path / "sam2.mar") as archive:
        assert yaml.safe_load(archive.read("sam2.yaml"))["handler"]["embedding_cache_mb"] == 64
    assert main([*command, "--set", "embedding_cache_mb=-1"]) == 1
    assert "handler.embedding_cache_mb" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--config", "sam2.yaml"], "--config: is no option of sam2"),
        (["--labels", "labels.txt"], "--labels: is no option of sam2"),
        (["--architecture", "fcn_resnet50"], "--architecture: is no option of sam2"),
        (["--engine", "onnx"], "engine"),
    ],
)
def test_options_of_other_models_are_refused(checkpoint, tmp_path, capsys, arguments, named):
    assert main(["archive", "sam2", "--weights", str(checkpoint), "--out", str(tmp_path), *arguments]) == 1
    assert named in capsys.readouterr().err
    assert not list(tmp_path.glob("*.mar"))


def test_what_is_no_sam2_is_refused(checkpoint, tmp_path, capsys):
    (checkpoint / "model.safetensors").unlink()
    assert main(["archive", "sam2", "--weights", str(checkpoint), "--out", str(tmp_path)]) == 1
    assert "no weights" in capsys.readouterr().err
    sam = ROOT / "weights" / "demo" / "grounded_sam" / "sam"
    assert main(["archive", "sam2", "--weights", str(sam), "--out", str(tmp_path)]) == 1
    assert "expected a model of sam2 or sam2_video" in capsys.readouterr().err
