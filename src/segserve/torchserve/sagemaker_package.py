"""Model archives as SageMaker takes them: a model.tar.gz with ``.mar`` files at its root.

The same archives give the same bytes: no time, owner or path of this machine is in a package.
"""

from __future__ import annotations

import gzip
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.torchserve.archive import ArchiveInfo, Progress, find_archives, read_archive

_LEVEL = 1
"""Weights hardly compress: more effort costs minutes and wins nothing."""

_CHUNK = 4 * 2**20


def archives_of(given: Sequence[str], model_store: Path) -> list[ArchiveInfo]:
    """The archives that paths, or names of a model store, stand for; without one, all of the store.

    Raises:
        NotFoundError: a file or name that is not there.
        InvalidRequestError: a file is no archive or is damaged, or two have the same name.
    """
    if not given:
        found = find_archives(model_store)
    else:
        found = [_archive_of(text, model_store) for text in given]
    names = [info.name for info in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidRequestError(f"Two archives of the name {', '.join(twice)}: each model needs a name of its own.")
    for info in found:
        _check_whole(info)
    return found


def write_package(archives: Sequence[ArchiveInfo], target: Path, progress: Progress | None = None) -> Path:
    """Write a model.tar.gz; one that is there is replaced once the new one is whole.

    Args:
        archives: each becomes NAME.mar at the root.
        progress: called with (bytes read, bytes in all).

    Raises:
        InvalidRequestError: target is a folder.
        OSError: the disk is full, or target cannot be written.
    """
    if target.is_dir():
        raise InvalidRequestError(f"--out: {target} is a folder; expected a file such as model.tar.gz.")
    target.parent.mkdir(parents=True, exist_ok=True)
    total = sum(info.file.stat().st_size for info in archives)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with partial.open("wb") as raw:
            _write(archives, raw, _Counter(total, progress))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


class _Counter:
    """Adds up what was read of all files."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, counter: _Counter) -> None:
        self._file, self._counter = file, counter

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._counter.add(len(data))
        return data


def _write(archives: Sequence[ArchiveInfo], raw: BinaryIO, counter: _Counter) -> None:
    # The gzip header would otherwise hold the time and the name of the file.
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK) as tar,
    ):
        for info in sorted(archives, key=lambda info: info.name):
            entry = tarfile.TarInfo(f"{info.name}.mar")
            entry.size = info.file.stat().st_size
            entry.mode = 0o644
            with info.file.open("rb") as reader:
                tar.addfile(entry, _Counted(reader, counter))


def _archive_of(text: str, model_store: Path) -> ArchiveInfo:
    path = Path(text)
    if path.is_file():
        return read_archive(path)
    if path.suffix == ".mar" or "/" in text:
        raise NotFoundError(f"No file {text} here.")
    return find_archives(model_store, [text])[0]


def _check_whole(info: ArchiveInfo) -> None:
    """Whether every file in an archive can be read and has the checksum that was noted.

    Raises:
        InvalidRequestError: it is damaged.
    """
    try:
        with zipfile.ZipFile(info.file) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidRequestError(f"{info.file} is damaged ({error}). Build it again: segserve archive") from error
    if broken is not None:
        raise InvalidRequestError(f"{info.file} is damaged: {broken}. Build it again: segserve archive")
