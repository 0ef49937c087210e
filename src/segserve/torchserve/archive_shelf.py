"""The archives that may be loaded while TorchServe runs: found, checked, and linked into its model store.

TorchServe loads from one folder only. Here that is a folder of links of its own, so that archives may lie in several
places, none of which need be writable.
"""

from __future__ import annotations

import re
import threading
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from segserve.errors import InvalidRequestError, NoRoomError, SegserveError
from segserve.machine_memory import MemoryRoom, memory_room
from segserve.placement import Placement
from segserve.torchserve.archive import ArchiveInfo, read_archive
from segserve.torchserve.load_failures import load_failures
from segserve.torchserve.plan import Overrides, link_name
from segserve.torchserve.profiles import ProfileName, profile_of

_WORKER_BYTES = 1200 * 2**20
"""What a worker takes at most beside its archive: the interpreter, torch, and a picture's buffers. Rounded up from the
largest difference that was measured, PSS at work less the archive: 1186 MiB (the table in docs/operations.md)."""

_NO_MEMORY = re.compile(r"out of memory|OutOfMemory|MemoryError|cannot allocate|can't allocate", re.IGNORECASE)
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/'\":;,()]+/)+")


class ArchiveShelf:
    """Brings archives into TorchServe's model store, as links.

    Args:
        folder: TorchServe's model store; nothing else writes there.
        roots: archives may lie in these folders, and below them; a relative url is looked for in the first.
        log_file: TorchServe's log, where workers tell why they cannot load.
        profile: cpu or gpu.
        overrides: the operator's numbers in place of the archives' own.
        room: tells how much memory is left, None where that is not known.
    """

    def __init__(
        self,
        folder: Path,
        roots: Sequence[Path],
        log_file: Path,
        profile: ProfileName,
        *,
        overrides: Overrides | None = None,
        room: Callable[[], MemoryRoom | None] = memory_room,
    ) -> None:
        self._folder = folder
        self._roots = tuple(roots)
        self._log_file = log_file
        self._profile = profile
        self._overrides = overrides or Overrides()
        self._room = room
        self._log_ends: dict[str, int] = {}
        self._set_aside: dict[str, int] = {}
        self._lock = threading.Lock()

    def place(self, name: str, url: str) -> Placement:
        """Check the archive at url and link it for a model of that name.

        It gets one worker unless its profile or the operator says otherwise: where models come and go, each taking
        every core would leave the next one no memory.

        Raises:
            InvalidRequestError: no archive of a segserve model is there, or it lies outside the folders.
            NoRoomError: its workers would not fit into the memory that is left.
        """
        archive = self._find(url)
        profile = self._overrides.applied(profile_of(archive.config, self._profile))
        workers = profile.workers or 1
        self._set_memory_aside(name, archive, workers)
        self._log_ends[name] = self._log_file.stat().st_size if self._log_file.exists() else 0
        self.link(name, archive.file)
        return Placement(link_name(name), archive.about, workers, profile.batch_size, profile.batch_delay_ms)

    def link(self, name: str, archive: Path) -> None:
        """Make an archive that needs no checks known under a model's name."""
        link = self._folder / link_name(name)
        link.unlink(missing_ok=True)
        link.symlink_to(archive.resolve())

    def settle(self, name: str) -> None:
        """The model has been loaded: what was set aside for it is in use now."""
        self._set_aside.pop(name, None)

    def remove(self, name: str) -> None:
        """Remove the link of a model; nothing happens if there is none."""
        self.settle(name)
        (self._folder / link_name(name)).unlink(missing_ok=True)
        self._log_ends.pop(name, None)

    def failure(self, name: str) -> SegserveError | None:
        """Why a worker could not load the model since it was placed; None while none has said so."""
        told = load_failures(self._log_file, [name], self._log_ends.get(name, 0))
        if not told:
            return None
        # What libraries say may name folders of the server.
        reason = _FOLDERS.sub("", told[0].partition(": ")[2])[:500]
        if _NO_MEMORY.search(reason):
            return NoRoomError(f"The model {name} does not fit into the memory that is left: {reason}")
        return InvalidRequestError(f"The model {name} cannot be loaded: {reason}", code="load_failed")

    def _find(self, url: str) -> ArchiveInfo:
        path = self._within(url)
        if path.is_dir():
            found = sorted(path.glob("*.mar"))
            if len(found) != 1:
                raise InvalidRequestError(
                    f"url: expected a folder that holds one archive (.mar); it holds {len(found)}."
                )
            path = self._within(str(found[0]))
        if path.suffix != ".mar" or not path.is_file():
            raise InvalidRequestError("url: expected an archive (.mar) or a folder that holds one; there is none.")
        try:
            archive = read_archive(path)
        except InvalidRequestError as error:
            raise InvalidRequestError(
                f"url: {path.name} is not a model archive, or a broken one. Build it with: segserve archive"
            ) from error
        if archive.about.kind is None:
            raise InvalidRequestError(
                f"url: {path.name} holds none of segserve's models. Build its archive with: segserve archive"
            )
        return archive

    def _within(self, url: str) -> Path:
        """The file or folder that a url means, links followed.

        Raises:
            InvalidRequestError: it lies outside the folders that may be loaded from, whether it is there or not; or no
                file system has such a path.
        """
        roots = [root.resolve() for root in self._roots]
        try:
            # A path may not hold a null character.
            path = (roots[0] / url.replace("\0", "")).resolve()
            path.exists()
        except (OSError, RuntimeError) as error:
            raise InvalidRequestError(
                "url: no path can be of that form: a name in it is too long, or its links lead to each other."
            ) from error
        if "://" in url or not any(path.is_relative_to(root) for root in roots):
            raise InvalidRequestError(
                "url: expected a path within the model store or the folder of models that may be loaded "
                "(--multi-model-dir); it lies elsewhere."
            )
        return path

    def _set_memory_aside(self, name: str, archive: ArchiveInfo, workers: int) -> None:
        """Two models that are loaded at once may not both count on the same memory."""
        needed = workers * (_WORKER_BYTES + _unpacked_bytes(archive.file))
        with self._lock:
            room = self._room()
            if room is not None:
                free = max(0, room.available - sum(self._set_aside.values()))
                if needed > free:
                    raise NoRoomError(
                        f"The model {name} needs about {needed >> 20:,} MiB ({workers} workers); {free >> 20:,} MiB "
                        "are free. Unload another model first."
                    )
            self._set_aside[name] = needed


def _unpacked_bytes(archive: Path) -> int:
    with zipfile.ZipFile(archive) as opened:
        return sum(entry.file_size for entry in opened.infolist())
