"""Checkpoint folders of Mask R-CNN: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.models.mask_rcnn.architecture import Architecture
from segserve.models.mask_rcnn.network import MaskRcnnNetwork

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def save_checkpoint(folder: Path, network: MaskRcnnNetwork, *, half: bool = False) -> None:
    """Write a network into a folder, which is made if need be.

    Args:
        half: store float16, for the file's size; networks are always loaded as float32.
    """
    write_checkpoint(folder, network.architecture.to_dict(), network, half=half)


def write_checkpoint(folder: Path, config: dict[str, Any], network: nn.Module, *, half: bool = False) -> None:
    """Write ``config.json`` and any network's tensors into a folder; see save_checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG_FILE).write_text(text, "utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if half:
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    partial = folder / f".{WEIGHTS_FILE}.partial"
    save_file(tensors, partial)
    partial.chmod(0o644)  # safetensors writes it for its owner alone
    partial.replace(folder / WEIGHTS_FILE)


def load_checkpoint(folder: Path) -> MaskRcnnNetwork:
    """The network of a checkpoint folder: float32, on the CPU, in evaluation mode.

    Raises:
        NotFoundError: no such folder, or a file is missing from it.
        InvalidRequestError: a checkpoint of another model, or a broken one.
    """
    if not folder.is_dir():
        raise NotFoundError(f"There is no checkpoint folder {folder.name}.")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise NotFoundError(f"{folder.name} has no {name}: it is not a checkpoint folder of Mask R-CNN.")
    try:
        values = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    except ValueError as error:
        raise InvalidRequestError(f"{folder.name}/{CONFIG_FILE} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise InvalidRequestError(f"{folder.name}/{CONFIG_FILE}: expected a JSON object.")
    network = MaskRcnnNetwork(Architecture.from_dict(values))
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (SafetensorError, OSError) as error:
        raise InvalidRequestError(f"{folder.name}/{WEIGHTS_FILE} cannot be read: {error}.") from error
    load_tensors(network, tensors, f"{folder.name}/{WEIGHTS_FILE}")
    return network.eval()


def load_tensors(network: nn.Module, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Put tensors into a network, all of them and nothing else.

    Raises:
        InvalidRequestError: tensors are missing, too many, or of another shape; names the first ones.
    """
    wanted = network.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    extra = sorted(tensors.keys() - wanted.keys())
    # A counter that batch norm keeps while training.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    misfits = [name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape]
    for problem, names in (("lacks", missing), ("has unknown", extra), ("has misshapen", sorted(misfits))):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            shapes = "".join(
                f" ({name}: expected {tuple(wanted[name].shape)}, came {tuple(tensors[name].shape)})"
                for name in names[:1]
                if name in wanted and name in tensors
            )
            raise InvalidRequestError(f"{where} {problem} tensors: {', '.join(names[:3])}{more}{shapes}.")
    network.load_state_dict(tensors, strict=False)
