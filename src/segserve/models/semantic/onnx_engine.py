"""Runs the ONNX file of a semantic checkpoint with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from segserve.errors import InvalidRequestError
from segserve.models.semantic.onnx_file import (
    INPUT_NAME,
    OUTPUT_NAME,
    check_external_data,
    check_operators,
    check_signature,
    external_data_files,
    read_model,
)

__all__ = ["OnnxEngine", "external_data_files"]

_TRIAL_SIDE = 256
_FATAL_ONLY = 4
"""Of ONNX Runtime's log: its errors come as exceptions anyway."""


class OnnxEngine:
    """The network of an ONNX file: input ``pixel_values`` N x 3 x H x W, output ``logits`` N x C x h x w, float32.

    The file is checked, and run once with two pictures, before anything else is asked of it.

    Args:
        path: of the file. Weights outside of it have to lie in its folder.
        classes: C.
        input_size: (height, width) of every input; None: they differ.
        threads: that compute one run on a CPU; 0: as many as there are cores.
        device: with ``cuda`` the CUDA provider computes where ONNX Runtime has it, else the CPU.

    Attributes:
        providers: what computes, in ONNX Runtime's names, the first preferred.

    Raises:
        InvalidRequestError: not such a file; says why.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        classes: int,
        input_size: tuple[int, int] | None = None,
        threads: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        path = Path(path)
        model = read_model(path)
        check_operators(path, model)
        check_external_data(path, model)
        check_signature(path, model, classes, input_size)
        del model  # it holds the weights a second time
        self._name = path.name
        self._session = _session(path, threads, torch.device(device))
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        self._try(classes, input_size or (_TRIAL_SIDE, _TRIAL_SIDE))

    def run(self, pixel_values: Tensor) -> Tensor:
        """Logits, N x C x h x w float32 on the CPU, of normalized pictures, N x 3 x H x W.

        Raises:
            MemoryError: the batch does not fit into memory.
            InvalidRequestError: the file cannot be run with pictures of this size.
        """
        pixels = np.ascontiguousarray(pixel_values.detach().cpu().numpy(), dtype=np.float32)
        try:
            (logits,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: pixels})
        except Exception as error:
            if "allocate memory" in str(error) or "bad_alloc" in str(error):
                raise MemoryError("out of memory in ONNX Runtime") from error
            shape = " x ".join(map(str, pixels.shape))
            raise InvalidRequestError(
                f"{self._name} cannot be run with an input of {shape}: {_reason(error)}"
            ) from error
        return torch.from_numpy(np.asarray(logits, dtype=np.float32))

    def _try(self, classes: int, size: tuple[int, int]) -> None:
        """Two pictures: what a file declares as open may yet be fixed within it."""
        try:
            found = self.run(torch.zeros((2, 3, *size)))
        except MemoryError as error:
            raise InvalidRequestError(f"{self._name} needs more memory for two pictures than there is.") from error
        if found.dim() != 4 or tuple(found.shape[:2]) != (2, classes) or 0 in found.shape:
            raise InvalidRequestError(
                f"{self._name}: output {OUTPUT_NAME}: expected 2 x {classes} x h x w for two pictures and {classes} "
                f"classes, came {' x '.join(map(str, found.shape))}."
            )
        if not found.isfinite().all():
            raise InvalidRequestError(
                f"{self._name}: output {OUTPUT_NAME}: expected finite numbers, came others. Are its weights damaged?"
            )


def _session(path: Path, threads: int, device: torch.device) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    # Its plans are kept for every size of batch that was seen, each with memory of its own.
    options.enable_mem_pattern = False
    # Threads that wait in a loop would take the cores from the engine torch and from other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        # The file's own content: unknown operators and opsets, shapes that do not fit each other.
        raise InvalidRequestError(f"{path.name} cannot be loaded: {_reason(error, path)}") from error


def _reason(error: Exception, path: Path | None = None) -> str:
    """ONNX Runtime's first line without the machine's paths."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    for known in (str(path), str(path.parent), str(path.resolve().parent)) if path else ():
        text = text.replace(known, path.name if path else "")
    return text[:300]
