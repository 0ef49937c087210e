"""Seed 001's working directory: pictures to work on, and what was found in them. Nothing outside it is touched.

    input/images/            pictures that callers leave or send
    output/images/           NAME, drawn on; OUTPUT_PARTIAL_IMAGE_{NAME}_{i}.jpg, what was found, cut out
    output/string_images/    each file of output/images as base64 text, under its name and .txt

A name reaches a system call only after it was checked, and then as the last component under an open folder: no path
is ever put together from what a caller sent. Links are not followed. Files appear whole, by renaming, and the files of
one name all belong to one request. Everything here blocks on the disk and belongs into a thread.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import itertools
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from segserve.errors import InvalidRequestError, NotFoundError, ServiceError, TooLargeError
from segserve.imaging import SUFFIXES

MAX_NAME_CHARACTERS = 128

_NAME = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{MAX_NAME_CHARACTERS - 1}}}")
_INPUTS = ("input", "images")
_OUTPUTS = ("output", "images")
_TEXTS = ("output", "string_images")
_PARTIAL = "OUTPUT_PARTIAL_IMAGE_"
_MOST_SKIPPED = 100


@dataclass(frozen=True)
class Listing:
    """The input pictures by name, and the files that are none: ``(name as text, why)``, hidden files left out."""

    names: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def name_fault(name: str) -> str | None:
    """What keeps a text from being the name of a picture in the folder; None: nothing does."""
    if len(name) > MAX_NAME_CHARACTERS:
        return f"expected at most {MAX_NAME_CHARACTERS} characters, came {len(name)}"
    if not _NAME.fullmatch(name):
        return "expected a plain file name of letters A-Z a-z, digits, '.', '_' and '-' that does not begin with '.'"
    if PurePath(name).suffix.lower() not in SUFFIXES:
        return f"expected a name that ends with {', '.join(SUFFIXES)}"
    if name.startswith(_PARTIAL):
        return f"{_PARTIAL} begins the names of what is cut out; expected another name"
    return None


def partial_name(output_name: str, index: int) -> str:
    """The file name of what was cut out of a picture, by its place among the instances."""
    return f"{_PARTIAL}{output_name}_{index}.jpg"


class DetectionFolder:
    """One working directory, made if it is not there. Only one service may work in it at a time.

    Args:
        root: may be reached through links; below it none is followed.

    Raises:
        InvalidRequestError: root cannot be a folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._writing = threading.Lock()
        try:
            root.mkdir(parents=True, exist_ok=True)
            for parts in (_INPUTS, _OUTPUTS, _TEXTS):
                with self._opened(parts):
                    pass
        except (OSError, ServiceError) as error:
            raise InvalidRequestError(
                f"SEGSERVE_DETECTION_DIR (--detection-dir): {str(root)!r} cannot be used as the folder of detections: "
                f"{_reason(error)}."
            ) from error

    def inputs(self) -> Listing:
        """The files of ``input/images``, in the order of their names.

        Raises:
            ServiceError: the folder cannot be read.
        """
        listing = Listing()
        with self._opened(_INPUTS) as folder, _disk("read"), os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                fault = name_fault(entry.name)
                if fault is None and not entry.is_file(follow_symlinks=False):
                    fault = "expected a file; this is a folder, a link or a device"
                if fault is None:
                    listing.names.append(entry.name)
                elif len(listing.skipped) < _MOST_SKIPPED:
                    listing.skipped.append((_shown(entry.name), fault))
        return listing

    def check(self, name: str) -> None:
        """Whether ``input/images`` has a file of this name.

        Raises:
            InvalidRequestError: the name breaks the rule, or is not a regular file's.
            NotFoundError: there is none.
            ServiceError: the folder cannot be read.
        """
        with self._file(name):
            pass

    def read(self, name: str, max_bytes: int) -> bytes:
        """A file of ``input/images``.

        Raises:
            InvalidRequestError, NotFoundError, ServiceError: as check.
            TooLargeError: more than max_bytes.
        """
        with self._file(name) as (descriptor, size):
            data = b""
            if size <= max_bytes:
                with _disk("read"), os.fdopen(descriptor, "rb", closefd=False) as stream:
                    # One byte more tells a file that is growing.
                    data = stream.read(max_bytes + 1)
            if max(size, len(data)) > max_bytes:
                raise TooLargeError(
                    f"The image {name} has more than {max_bytes:,} bytes. Put a smaller file there.",
                    code="image_too_large",
                )
            return data

    def store(
        self, output_name: str, drawn: bytes, partials: Sequence[bytes], received: tuple[str, bytes] | None = None
    ) -> None:
        """Write what was found in a picture, as files and as base64 texts; replaces all that the name had before.

        Args:
            output_name: of the drawn picture; part of the names of all the others.
            drawn: the drawn picture as a file.
            partials: what was cut out of it, as JPEG files.
            received: name and bytes of the input picture, where it came with the request.

        Raises:
            InvalidRequestError: a name breaks the rule, or something other than a file has it.
            ServiceError: the disk failed.
        """
        for name in (output_name, *(received or ())[:1]):
            _check_name(str(name))
        files = {output_name: drawn} | {partial_name(output_name, index): data for index, data in enumerate(partials)}
        texts = {f"{name}.txt": base64.b64encode(data) for name, data in files.items()}
        places = [(_OUTPUTS, files), (_TEXTS, texts)] + ([(_INPUTS, dict([received]))] if received else [])
        with contextlib.ExitStack() as stack:
            pending = [
                stack.enter_context(_Pending(stack.enter_context(self._opened(parts)), contents))
                for parts, contents in places
            ]
            for each in pending:
                each.write()
            with self._writing:
                for each in pending:
                    each.check()
                for each in pending:
                    each.commit()
                pending[0].remove_from(len(partials), lambda index: partial_name(output_name, index))
                pending[1].remove_from(len(partials), lambda index: f"{partial_name(output_name, index)}.txt")

    @contextlib.contextmanager
    def _file(self, name: str) -> Iterator[tuple[int, int]]:
        """An input file's descriptor and size."""
        _check_name(name)
        with self._opened(_INPUTS) as folder:
            try:
                # Without O_NONBLOCK, opening a pipe would wait for someone to write into it.
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                raise NotFoundError(f"no such image {name}", code="image_not_found") from None
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):
                    raise _no_file(name) from error
                with _disk("read"):
                    raise
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise _no_file(name)
                yield descriptor, status.st_size
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def _opened(self, parts: Sequence[str]) -> Iterator[int]:
        """A descriptor of a folder below the root; made if it is not there."""
        with contextlib.ExitStack() as stack:
            with _disk("open"):
                current = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, current)
                for part in parts:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=current)
                    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                    current = os.open(part, flags, dir_fd=current)
                    stack.callback(os.close, current)
            yield current


class _Pending:
    """Files on their way into one folder: written under hidden names, then renamed together.

    Args:
        folder: its descriptor.
        files: contents by name.
    """

    def __init__(self, folder: int, files: Mapping[str, bytes]) -> None:
        self._folder = folder
        self._files = files
        self._hidden: dict[str, str] = {}

    def __enter__(self) -> _Pending:
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove what was written and not renamed."""
        for hidden in self._hidden.values():
            with contextlib.suppress(OSError):
                os.unlink(hidden, dir_fd=self._folder)

    def write(self) -> None:
        """Write every file under a hidden name.

        Raises:
            ServiceError: the disk failed.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _disk("write"):
            for name, data in self._files.items():
                hidden = f".{secrets.token_hex(8)}.tmp"
                descriptor = os.open(hidden, flags, 0o666, dir_fd=self._folder)
                self._hidden[name] = hidden
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(data)

    def check(self) -> None:
        """Whether the files can take their names.

        Raises:
            InvalidRequestError: a folder, a link or a device has one of them.
            ServiceError: the disk failed.
        """
        for name in self._files:
            with _disk("read"):
                try:
                    mode = os.stat(name, dir_fd=self._folder, follow_symlinks=False).st_mode
                except FileNotFoundError:
                    continue
            if not stat.S_ISREG(mode):
                raise _no_file(name)

    def commit(self) -> None:
        """Rename every file to its name.

        Raises:
            ServiceError: the disk failed.
        """
        with _disk("write"):
            for name in self._files:
                os.rename(self._hidden[name], name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
                del self._hidden[name]

    def remove_from(self, first: int, named: Callable[[int], str]) -> None:
        """Remove the numbered files that an earlier, larger result left behind.

        Raises:
            ServiceError: the disk failed.
        """
        with _disk("write"), contextlib.suppress(FileNotFoundError):
            for index in itertools.count(first):
                os.unlink(named(index), dir_fd=self._folder)


@contextlib.contextmanager
def _disk(doing: str) -> Iterator[None]:
    """Translates the system's errors, whose texts name paths."""
    try:
        yield
    except OSError as error:
        raise ServiceError(f"The server could not {doing} its folder of detections: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, ServiceError) else error
    return cause.strerror or "unknown" if isinstance(cause, OSError) else str(error)


def _check_name(name: str) -> None:
    fault = name_fault(name)
    if fault is not None:
        raise InvalidRequestError(f"{name[:60]!r}: {fault}.")


def _no_file(name: str) -> InvalidRequestError:
    return InvalidRequestError(f"{name}: expected a regular file; links, folders and devices are not touched.")


def _shown(name: str) -> str:
    """A name from the disk as text, whatever its bytes are."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")[:MAX_NAME_CHARACTERS]
