"""Loading of local checkpoint folders in the layout of Hugging Face transformers.

Nothing is fetched and no code of a checkpoint is run: the model classes are named here, weights are read from
safetensors files only.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segserve.errors import InvalidRequestError, NotFoundError

DETECTORS = {
    "grounding-dino": "GroundingDinoForObjectDetection",
    "mm-grounding-dino": "MMGroundingDinoForObjectDetection",
}
"""``model_type`` of a detector's config.json, and the class of transformers that runs it."""

SEGMENTERS = {"sam": "SamModel", "sam_hq": "SamHQModel"}
"""The same for segmenters that take boxes."""

CLICK_SEGMENTERS = {"sam2": "Sam2Model", "sam2_video": "Sam2Model"}
"""The same for segmenters that take clicks. SAM 2's published checkpoints are of the video model, which has the weights
for single pictures among its own."""


def load_model(folder: Path, classes: dict[str, str]) -> Any:
    """The model of a checkpoint folder, float32, on the CPU, in evaluation mode.

    Args:
        folder: has ``config.json`` and ``*.safetensors``.
        classes: the allowed model types, each with its class of transformers.

    Raises:
        NotFoundError: no such folder, or a file is missing from it.
        InvalidRequestError: a checkpoint of another model, or one that cannot be read.
    """
    kind = model_type(folder)
    if kind not in classes:
        raise InvalidRequestError(
            f"{folder.name}/config.json: expected model_type {' or '.join(classes)}, came {kind!r}. "
            "Give a checkpoint of such a model."
        )
    if not list(folder.glob("*.safetensors")):
        raise NotFoundError(
            f"{folder.name} has no *.safetensors file. Pickled weights (*.bin) are not read, since they can run code: "
            "convert them with save_pretrained(..., safe_serialization=True)."
        )
    import transformers

    try:
        with _quiet():
            model, report = getattr(transformers, classes[kind]).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype="float32", output_loading_info=True
            )
    except Exception as error:
        raise InvalidRequestError(f"{folder.name}: the checkpoint cannot be loaded: {_first_line(error)}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise InvalidRequestError(f"{folder.name}: the weights lack {len(missing)} tensors ({', '.join(missing[:3])}).")
    return model.eval()


def load_processor(folder: Path, name: str = "AutoProcessor") -> Any:
    """The processor (image processor and, for a detector, tokenizer) of a checkpoint folder.

    Args:
        name: its class of transformers, where the folder may name another than is wanted.

    Raises:
        NotFoundError: no such folder.
        InvalidRequestError: its processor files are missing or wrong.
    """
    model_type(folder)
    import transformers

    try:
        return getattr(transformers, name).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise InvalidRequestError(
            f"{folder.name}: the processor files (preprocessor_config.json, tokenizer.json, …) cannot be loaded: "
            f"{_first_line(error)}"
        ) from error


def model_type(folder: Path) -> str | None:
    """``model_type`` of a checkpoint folder's config.json.

    Raises:
        NotFoundError: no such folder, or no config.json in it.
        InvalidRequestError: its config.json is no JSON object.
    """
    if not folder.is_dir():
        raise NotFoundError(f"There is no checkpoint folder {folder.name} in {folder.parent.name or folder.parent}.")
    config = folder / "config.json"
    if not config.is_file():
        raise NotFoundError(f"{folder.name} has no config.json: it is not a checkpoint folder of transformers.")
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidRequestError(f"{folder.name}/config.json is not JSON: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise InvalidRequestError(f"{folder.name}/config.json: expected a JSON object.")
    kind = content.get("model_type")
    return kind if isinstance(kind, str) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars, and its advice to whoever designs a model."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*embed_dim.*", category=UserWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
