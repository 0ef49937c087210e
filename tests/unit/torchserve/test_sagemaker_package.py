"""Archives packed as SageMaker takes them."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from segserve.cli import main
from segserve.errors import InvalidRequestError, NotFoundError
from segserve.torchserve.archive import find_archives
from segserve.torchserve.sagemaker_package import archives_of, write_package


def write_archive(folder: Path, name: str, weights: bytes = b"weights" * 1000) -> Path:
    """An archive with a manifest and one stored file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.mar"
    manifest = f'{{"model": {{"modelName": "{name}", "modelVersion": "1.0", "handler": "own_handler.py"}}}}'
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", manifest)
        archive.writestr("checkpoint/model.safetensors", weights)
    return file


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "model_store"
    for name in ("chairs", "balloons"):
        write_archive(folder, name)
    return folder


def test_a_package_is_what_sagemaker_unpacks_into_a_model_store(store: Path, tmp_path: Path) -> None:
    package = write_package(archives_of([], store), tmp_path / "out" / "model.tar.gz")
    unpacked = tmp_path / "opt_ml_model"
    with tarfile.open(package, "r:gz") as tar:
        tar.extractall(unpacked, filter="data")
    assert sorted(path.name for path in unpacked.iterdir()) == ["balloons.mar", "chairs.mar"]
    assert [info.name for info in find_archives(unpacked)] == ["balloons", "chairs"]
    for path in unpacked.iterdir():
        assert path.read_bytes() == (store / path.name).read_bytes()


def test_nothing_of_this_machine_is_in_a_package(store: Path, tmp_path: Path) -> None:
    first = write_package(archives_of([], store), tmp_path / "first.tar.gz")
    os.utime(store / "chairs.mar", (1, 1))
    (store / "chairs.mar").chmod(0o600)
    again = write_package(archives_of(["chairs", str(store / "balloons.mar")], store), tmp_path / "again.tar.gz")
    assert first.read_bytes() == again.read_bytes()
    with tarfile.open(first, "r:gz") as tar:
        entries = [(entry.name, entry.mtime, entry.uid, entry.uname, entry.mode) for entry in tar]
    assert entries == [(f"{name}.mar", 0, 0, "", 0o644) for name in ("balloons", "chairs")]


def test_progress_ends_at_the_whole(store: Path, tmp_path: Path) -> None:
    archives = archives_of([], store)
    told: list[tuple[int, int]] = []
    write_package(archives, tmp_path / "model.tar.gz", lambda done, total: told.append((done, total)))
    total = sum(archive.file.stat().st_size for archive in archives)
    assert told[-1] == (total, total)


def test_a_damaged_archive_is_not_packed(store: Path, tmp_path: Path) -> None:
    file = store / "chairs.mar"
    file.write_bytes(file.read_bytes().replace(b"weights", b"weighty", 1))
    with pytest.raises(InvalidRequestError, match=r"chairs\.mar is damaged"):
        archives_of([], store)
    file.write_bytes(b"not a zip file")
    with pytest.raises(InvalidRequestError, match="not a model archive"):
        archives_of([str(file)], store)


def test_two_archives_of_one_name_are_refused(store: Path, tmp_path: Path) -> None:
    other = write_archive(tmp_path / "other", "chairs")
    with pytest.raises(InvalidRequestError, match="Two archives of the name chairs"):
        archives_of(["chairs", str(other)], store)


@pytest.mark.parametrize("name", ["tables", "tables.mar", "elsewhere/chairs.mar"])
def test_what_is_not_there_is_named(name: str, store: Path) -> None:
    with pytest.raises(NotFoundError, match=name):
        archives_of([name], store)


def test_a_package_that_failed_leaves_the_old_one(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_package(archives_of([], store), tmp_path / "model.tar.gz")
    before = target.read_bytes()
    archives = archives_of([], store)
    archives[0].file.unlink()
    with pytest.raises(OSError, match="balloons"):
        write_package(archives, target)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_the_command_packs_one_for_an_endpoint(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.tar.gz"
    assert main(["package-sagemaker", "--model-store", str(store), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert out.is_file()
    assert "balloons 1.0, chairs 1.0" in printed
    assert f"aws s3 cp {out} s3://BUCKET/PREFIX/model.tar.gz" in printed


def test_the_command_packs_one_for_each_model(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "packages"
    assert main(["package-sagemaker", "--model-store", str(store), "--multi-model", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["balloons.tar.gz", "chairs.tar.gz"]
    with tarfile.open(folder / "chairs.tar.gz", "r:gz") as tar:
        assert tar.getnames() == ["chairs.mar"]
    assert "TargetModel=balloons.tar.gz" in capsys.readouterr().out


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["package-sagemaker", "--model-store", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("segserve package-sagemaker: No model archive in")
    write_archive(tmp_path, "chairs")
    assert main(["package-sagemaker", "--model-store", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err
