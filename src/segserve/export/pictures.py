"""The pictures of a folder, for exports and comparisons; read one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from segserve.errors import InvalidRequestError, NotFoundError, RequestError
from segserve.imaging import SUFFIXES, ImageLimits, Rgb, decode

_LIMITS = ImageLimits(max_bytes=2**30)
_Item = TypeVar("_Item")


def picture_files(folder: Path) -> list[Path]:
    """The picture files of a folder and its subfolders, by name.

    Raises:
        NotFoundError: no such folder.
        InvalidRequestError: no picture in it.
    """
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: there is no such folder.")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InvalidRequestError(f"{folder}: there is no picture in it; {', '.join(SUFFIXES)} are read.")
    return found


def read_picture(file: Path) -> Rgb:
    """The upright picture of a file, H x W x 3 uint8.

    Raises:
        RequestError: of the kind that says why it cannot be read, with the file's name.
        OSError: the file cannot be opened.
    """
    try:
        return decode(file.read_bytes(), _LIMITS)
    except RequestError as error:
        raise type(error)(f"{file.name}: {error.message}", code=error.error_code) from error


def evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """At most so many of the items, from the beginning to the end at even distances."""
    chosen = min(count, len(items))
    return [items[(2 * number + 1) * len(items) // (2 * chosen)] for number in range(chosen)]
