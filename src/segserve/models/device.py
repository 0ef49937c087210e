"""Where a predictor computes, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from segserve.errors import InvalidRequestError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """A device and the precision of the heavy operations on it.

    Weights, box coordinates and scores stay float32 whatever dtype says: in bfloat16 a coordinate of a picture
    of 1000 pixels would be known to 4 pixels only.
    """

    device: torch.device
    dtype: torch.dtype

    def precision(self) -> AbstractContextManager[object]:
        """The context to run a model in: automatic mixed precision where dtype is not float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def choose_placement(device: str = "auto", dtype: str = "auto") -> Placement:
    """The device and dtype to use.

    Args:
        device: ``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda`` or ``cuda:1``.
        dtype: ``auto`` (bfloat16 on a GPU that has it, else float32), ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        InvalidRequestError: an unknown name, or a GPU that is not there.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise InvalidRequestError(f"device: expected auto, cpu, cuda or cuda:N, came {device!r}.") from error
    if chosen.type not in ("cpu", "cuda"):
        raise InvalidRequestError(f"device: expected auto, cpu, cuda or cuda:N, came {device!r}.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InvalidRequestError(f"device: {device!r} is not there; there are {torch.cuda.device_count()} GPUs.")
    return Placement(chosen, _choose_dtype(dtype, chosen))


def _choose_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    if name not in DTYPES:
        raise InvalidRequestError(f"dtype: expected auto, {', '.join(DTYPES)}, came {name!r}.")
    return DTYPES[name]
