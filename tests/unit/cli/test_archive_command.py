"""``segserve archive`` as it is called."""

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from segserve.cli import main


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
