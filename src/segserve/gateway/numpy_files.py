"""NumPy files (``.npy``) in memory, both ways. Nothing is ever unpickled."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segserve.errors import InternalError

MEDIA_TYPE = "application/x-npy"
_BROKEN = "The worker answered a NumPy file that cannot be read."


def to_npy(array: NDArray[Any]) -> bytes:
    """The array as a NumPy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def from_npy(data: bytes) -> NDArray[Any]:
    """The array of a NumPy file, read-only: it shares the file's memory.

    Raises:
        InternalError: the file is broken, or holds objects.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise InternalError(_BROKEN)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(stream)
        if dtype.hasobject:
            raise InternalError(_BROKEN)
        flat = np.frombuffer(data, dtype=dtype, offset=stream.tell())
        return flat.reshape(shape, order="F" if fortran_order else "C")
    except ValueError as error:
        raise InternalError(_BROKEN) from error
