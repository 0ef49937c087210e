"""Low-resolution mask logits as text: what an answer hands out and a correction sends back.

A NumPy file in base64. Logits are positive where the mask is.
"""

from __future__ import annotations

import base64
import binascii
import io

import numpy as np
from numpy.typing import NDArray

from segserve.errors import InvalidPromptError, InvalidRequestError

Logits = NDArray[np.float32]

MAX_SIDE = 4096
"""Of the logits, whatever a NumPy file says of itself before its data is read."""


def to_text(logits: NDArray[np.floating]) -> str:
    """The h x w logits as base64 of a NumPy file of float16; what is beyond its range becomes its limit."""
    limit = float(np.finfo(np.float16).max)
    stream = io.BytesIO()
    np.save(stream, np.clip(logits, -limit, limit).astype(np.float16), allow_pickle=False)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def from_text(text: str, field: str) -> Logits:
    """The h x w logits of such a text, float32.

    Args:
        text: base64 of a NumPy file of float16, float32 or float64, of shape h x w or 1 x h x w.
        field: of the request, for messages.

    Raises:
        InvalidRequestError: no base64 of a NumPy file.
        InvalidPromptError: an array of another shape or type, or one with values that are no numbers.
    """
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError(f"{field}: expected a NumPy file in base64; it cannot be decoded.") from error
    array = _read(data, field)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.dtype.kind != "f" or array.size == 0:
        raise InvalidPromptError(
            f"{field}: expected the h x w floats of an answer's low_res, came {array.shape} {array.dtype}."
        )
    with np.errstate(over="ignore"):
        logits = array.astype(np.float32)
    if not np.isfinite(logits).all():
        raise InvalidPromptError(f"{field}: expected finite numbers; there are others (NaN or infinity).")
    return logits


def _read(data: bytes, field: str) -> NDArray[np.generic]:
    """The array; its header's claims are checked first, since NumPy makes room for what it says."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        sound = not dtype.hasobject and all(0 <= side <= MAX_SIDE for side in shape)
        if sound and stream.tell() + dtype.itemsize * int(np.prod(shape, dtype=np.int64)) == len(data):
            stream.seek(0)
            array: NDArray[np.generic] = np.lib.format.read_array(stream, allow_pickle=False)
            return array
    except Exception as error:
        # A header is parsed as Python, so that a broken one raises nearly anything.
        raise InvalidRequestError(f"{field}: expected a NumPy file in base64; it cannot be read.") from error
    raise InvalidRequestError(f"{field}: expected a NumPy file of numbers in base64, as long as it says it is.")
