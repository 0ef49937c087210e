"""Both engines of a semantic checkpoint as functions of prepared pictures, run just as the predictor runs them."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from segserve.errors import InvalidRequestError
from segserve.export.exporter import read_metadata
from segserve.export.verification import Runner
from segserve.imaging import Rgb
from segserve.models.device import choose_placement
from segserve.models.semantic import Semantic
from segserve.models.semantic.checkpoint import ONNX_FILE, Checkpoint, load_checkpoint
from segserve.models.semantic.onnx_engine import OnnxEngine, external_data_files

TORCH, ONNX = "torch", "onnx"


@dataclass(frozen=True)
class Engines:
    """What is to be compared.

    Attributes:
        run: ``torch`` and ``onnx``.
        prepare: the network's input of a picture.
        classes: the labels.
        device: where torch runs.
        providers: of ONNX Runtime, the first preferred.
        file_bytes: of each engine's weights.
        metadata: of the ONNX file.
        stale: the file says that it was made of other weights.
    """

    run: Mapping[str, Runner]
    prepare: Callable[[Rgb], Tensor]
    classes: tuple[str, ...]
    device: torch.device
    providers: tuple[str, ...]
    file_bytes: dict[str, int]
    metadata: dict[str, str]
    stale: bool


def load_engines(folder: Path, file: Path | None = None, *, device: str = "cpu", threads: int = 1) -> Engines:
    """The engines of a checkpoint folder.

    Args:
        folder: a checkpoint of either kind.
        file: the ONNX file; None: the folder's own.
        device: see ``choose_placement``; both engines run in float32.
        threads: of each engine on a CPU.

    Raises:
        NotFoundError: the folder or a file of it is missing.
        InvalidRequestError: a broken checkpoint, or an ONNX file that is not of this checkpoint.
    """
    file = file or folder / ONNX_FILE
    if not file.is_file():
        raise InvalidRequestError(f"There is no {file}: make it with segserve export-onnx semantic --weights {folder}.")
    torch.set_num_threads(threads)
    placement = choose_placement(device, "float32")
    checkpoint = load_checkpoint(folder)
    engine = onnx_engine(file, checkpoint, threads, placement.device)
    predictor = Semantic(checkpoint, placement, engine)
    metadata = read_metadata(file)
    made_of = metadata.get("weights_sha256")
    own, external = weight_files(folder), external_data_files(file)
    return Engines(
        run={TORCH: torch_runner(predictor), ONNX: onnx_runner(predictor)},
        prepare=checkpoint.preprocessing,
        classes=checkpoint.classes,
        device=placement.device,
        providers=engine.providers,
        file_bytes={TORCH: _bytes(own), ONNX: _bytes([file, *external])},
        metadata=metadata,
        stale=made_of is not None and made_of != weights_digest(folder),
    )


def onnx_engine(file: Path, checkpoint: Checkpoint, threads: int = 0, device: torch.device | str = "cpu") -> OnnxEngine:
    """An ONNX file, held against a checkpoint's classes and input size.

    Raises:
        InvalidRequestError: it is not a file of this checkpoint.
    """
    size = checkpoint.preprocessing.input_size
    return OnnxEngine(file, classes=len(checkpoint.classes), input_size=size, threads=threads, device=device)


def torch_runner(predictor: Semantic) -> Runner:
    """The predictor's network, where and how it is placed."""

    def run(pixels: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode(), predictor.placement.precision():
            batch = pixels.to(predictor.placement.device).contiguous(memory_format=torch.channels_last)
            logits: Tensor = predictor.network(batch)
        return np.asarray(logits.float().cpu().numpy(), dtype=np.float32)

    return run


def onnx_runner(predictor: Semantic) -> Runner:
    """The predictor's ONNX Runtime.

    Raises:
        InvalidRequestError: it has none.
    """
    engine = predictor.onnx
    if engine is None:
        raise InvalidRequestError("engine: this checkpoint has torch alone.")
    return lambda pixels: np.asarray(engine.run(pixels).numpy(), dtype=np.float32)


def machine(device: torch.device, threads: int, providers: tuple[str, ...]) -> dict[str, Any]:
    """What the figures were measured on: processor or GPU, threads of each engine, and the engines' versions."""
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "providers": list(providers)}
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), **versions}
    return {"device": f"cpu: {_processor()}, {os.cpu_count()} cores", "threads": threads, **versions}


def weights_digest(folder: Path) -> str:
    """SHA-256 over a checkpoint's weight files, by which an ONNX file made of others is told."""
    digest = hashlib.sha256()
    for file in weight_files(folder):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's weights, by name."""
    return sorted(folder.glob("*.safetensors"))


def _bytes(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
