"""Arrays as JSON text, in pieces: a tensor of a hundred megabytes of text is never in memory as a whole."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

_PIECE_NUMBERS = 65_536
"""How many numbers a piece has, about: 0.8 MB of text. orjson holds the interpreter's lock while it writes one."""

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_LEVEL = 1


def text(value: str) -> bytes:
    """A text as JSON."""
    return orjson.dumps(value)


def matrix(values: NDArray[Any], before: bytes = b"") -> Iterator[bytes]:
    """The pieces of an H x W array of finite numbers, ``[[…],…]``; each number has the digits that its type needs.

    Args:
        values: neither side is 0.
        before: opens the first piece.
    """
    height, width = values.shape
    rows = max(1, _PIECE_NUMBERS // width)
    for start in range(0, height, rows):
        strip = orjson.dumps(np.ascontiguousarray(values[start : start + rows]), option=orjson.OPT_SERIALIZE_NUMPY)
        opening = b"," if start else before + b"["
        yield opening + strip[1:-1] + (b"]" if start + rows >= height else b"")


def stack(planes: Iterable[NDArray[Any]]) -> Iterator[bytes]:
    """The pieces of a list of matrices; each matrix is asked for when its turn has come, and there is at least one."""
    opening = b"["
    for plane in planes:
        yield from matrix(plane, opening)
        opening = b","
    yield b"]"


def document(head: Mapping[str, Any], name: str, members: Mapping[str, Iterable[bytes]]) -> Iterator[bytes]:
    """The pieces of a JSON object: the fields of head, then one called name that holds the members.

    Args:
        head: at least one field, with plain values.
        name: of the last field.
        members: by name, the pieces of each value.
    """
    opening = orjson.dumps(dict(head))[:-1] + b"," + orjson.dumps(name) + b":{"
    for member, pieces in members.items():
        yield opening + orjson.dumps(member) + b":"
        yield from pieces
        opening = b","
    yield b"}}"


def compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of the gzip file of a text; fewer than came, and none is empty."""
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    for piece in pieces:
        packed = packer.compress(piece)
        if packed:
            yield packed
    yield packer.flush()
