"""detectron2's weights (Wu et al., 2019): reading them safely, and making a checkpoint folder of them.

Three kinds of files: ``.pth`` (PyTorch's, in either of its formats), the model zoo's ``.pkl`` (a pickle of NumPy
arrays) and ``.safetensors``. They are told apart by their content. No code of a pickle is ever run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from segserve.errors import InvalidRequestError, NotFoundError, SegserveError
from segserve.models.mask_rcnn.architecture import DETECTRON2_FORMAT, MODEL_TYPE, Architecture
from segserve.models.mask_rcnn.checkpoint import CONFIG_FILE, WEIGHTS_FILE, save_checkpoint
from segserve.models.mask_rcnn.detectron2_config import read_classes, read_config
from segserve.models.mask_rcnn.detectron2_fit import NOT_NEEDED, fit_tensors
from segserve.models.mask_rcnn.detectron2_pickle import (
    STAND_INS,
    PlainArray,
    PlainType,
    UnsafePickleError,
    load_arrays,
)
from segserve.models.mask_rcnn.detectron2_settings import Settings
from segserve.models.mask_rcnn.network import MaskRcnnNetwork

DETECTRON2_CONFIG_FILE = "config.yaml"
"""In a checkpoint folder for the engine detectron2: its configuration."""

_ZIP = b"PK\x03\x04"
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle in files of PyTorch before 1.6: a magic number."""

_CAFFE2_NAME = re.compile(
    r"(conv1|conv_rpn|fpn_inner_res|fpn_res|res\d_\d+_branch\d|cls_score|bbox_pred|fc\d+)\w*_[wbs]$"
)
_BACKBONE_NAME = re.compile(r"(stem|res[2-5]|layer[1-4])\.")


def convert(weights: Path, config: Path, classes: Sequence[str] | None, out: Path) -> Path:
    """Make a checkpoint folder for the engine torchvision of detectron2's weights and configuration.

    Args:
        weights: ``.pth``, ``.pkl`` or ``.safetensors``.
        config: the YAML configuration.
        classes: the labels; see ``read_config``.
        out: the folder, which is made if need be.

    Returns:
        The folder.

    Raises:
        NotFoundError, InvalidRequestError: as network_from_detectron2.
    """
    save_checkpoint(out, network_from_detectron2(weights, config, classes))
    return out


def convert_for_detectron2(weights: Path, config: Path, classes: Sequence[str] | None, out: Path) -> Path:
    """Make a checkpoint folder for the engine detectron2 of any of its instance segmentation models.

    The package is not needed for it. The folder holds ``config.json`` (the labels), ``config.yaml`` (detectron2's
    configuration, bases merged in, without its training) and ``model.safetensors`` (the tensors, by their names there).

    Args:
        weights, config, classes, out: as convert's.

    Returns:
        The folder.

    Raises:
        NotFoundError: a file is not there.
        InvalidRequestError: a file is not what it should be or would run code, or the model outlines nothing.
    """
    settings = Settings.from_file(config)
    if settings.get("MODEL.MASK_ON") is not True:
        settings.fail("MODEL.MASK_ON", "true: a model without masks segments nothing")
    if settings.get("INPUT.FORMAT") not in ("BGR", "RGB"):
        settings.fail("INPUT.FORMAT", "'BGR' or 'RGB'")
    labels = read_classes(settings, classes)
    tensors = read_tensors(weights)
    refuse_other_models(tensors, weights.name)
    needed = {name: tensor.clone().contiguous() for name, tensor in tensors.items() if not NOT_NEEDED.fullmatch(name)}
    out.mkdir(parents=True, exist_ok=True)
    own = {"model_type": MODEL_TYPE, "format": DETECTRON2_FORMAT, "classes": labels}
    (out / CONFIG_FILE).write_text(json.dumps(own, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (out / DETECTRON2_CONFIG_FILE).write_text(settings.dump_for_inference(), "utf-8")
    partial = out / f".{WEIGHTS_FILE}.partial"
    save_file(needed, partial)
    partial.chmod(0o644)  # safetensors writes it for its owner alone
    partial.replace(out / WEIGHTS_FILE)
    return out


def network_from_detectron2(weights: Path, config: Path, classes: Sequence[str] | None = None) -> MaskRcnnNetwork:
    """The network of detectron2's weights and configuration: float32, on the CPU, in evaluation mode.

    Raises:
        NotFoundError: a file is not there.
        InvalidRequestError: a file is not what it should be or would run code; the configuration is of a network that
            this engine does not have; or weights and configuration do not fit each other.
    """
    architecture = read_config(config, classes)
    network = _build(architecture, config)
    tensors = read_tensors(weights)
    refuse_other_models(tensors, weights.name)
    fit_tensors(network, tensors, weights.name, config.name)
    return network.eval()


def _build(architecture: Architecture, config: Path) -> MaskRcnnNetwork:
    try:
        return MaskRcnnNetwork(architecture)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InvalidRequestError(f"{config.name}: there is no such network: {reason}") from error


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The model's tensors in a checkpoint of PyTorch or detectron2, by their names there.

    What else it holds (state of the optimizer, iteration) is dropped.

    Raises:
        NotFoundError: no such file.
        InvalidRequestError: no such checkpoint, a broken one, or a pickle that would run code; nothing was run.
    """
    if not file.is_file():
        raise NotFoundError(f"There are no weights {file.name}.")
    with file.open("rb") as stream:
        start = stream.read(64)
    _refuse_other_files(start, file.name)
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        elif start.startswith((_ZIP, _LEGACY_TORCH)):
            content = _load_torch(file)
        else:
            content = load_arrays(file)
    except UnsafePickleError as error:
        raise InvalidRequestError(
            f"{file.name}: its pickle would have called {error.name}. Only arrays and numbers are read from pickles; "
            "nothing was run. If you trust the file, load it where it comes from and save the weights alone: "
            'torch.save({"model": model.state_dict()}, "weights.pth").'
        ) from None
    except SegserveError as error:
        raise InvalidRequestError(f"{file.name}: its pickle holds {error.message}. Nothing was run.") from error
    except (SafetensorError, Exception) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InvalidRequestError(f"{file.name}: the weights cannot be read, the file is broken: {reason}") from error
    return _model_tensors(content, file.name)


def _refuse_other_files(start: bytes, name: str) -> None:
    if not start:
        raise InvalidRequestError(f"{name}: expected weights; the file is empty.")
    if start.lstrip()[:1] == b"<":
        raise InvalidRequestError(f"{name}: expected weights; this is a web page. Download the file itself.")
    if start.startswith(b"version https://git-lfs"):
        raise InvalidRequestError(
            f"{name}: expected weights; this is a pointer of Git LFS. Fetch it with git lfs pull."
        )


def _load_torch(file: Path) -> Any:
    """PyTorch's own reader, without pickles' powers. NumPy's numbers, which old trainings left beside the weights, pass
    through stand-ins."""
    admitted: list[Any] = [(make, name) for name, make in STAND_INS.items()]
    try:
        with torch.serialization.safe_globals([*admitted, PlainArray, PlainType]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error)) or re.search(
            r"unrecognized function <?([^>\n]{1,80})", str(error)
        )
        if named:
            raise UnsafePickleError(named[1].rstrip(".")) from None
        if "TorchScript" in str(error):
            raise UnsafePickleError("TorchScript code") from None
        if "Unsupported operand" in str(error):
            # PyTorch's own words end with the advice to read it with all of pickles' powers.
            raise InvalidRequestError(
                "instructions that are not read; save the weights again, with torch.save's own pickle_protocol (2)"
            ) from None
        raise


def _model_tensors(content: Any, name: str) -> dict[str, Tensor]:
    """The tensors of the model in what a file held."""
    state = content
    if isinstance(content, Mapping):
        inner = [content[key] for key in ("model", "state_dict", "blobs") if isinstance(content.get(key), Mapping)]
        state = inner[0] if inner else content
    tensors: dict[str, Tensor] = {}
    for key, value in state.items() if isinstance(state, Mapping) else ():
        tensor = _as_tensor(value)
        if isinstance(key, str) and tensor is not None:
            tensors[key] = tensor
    if tensors and all(key.startswith("module.") for key in tensors):
        # Saved from within DataParallel.
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    if not tensors:
        raise InvalidRequestError(
            f'{name}: expected tensors by name, alone or under "model" or "state_dict"; there are none.'
        )
    return tensors


def _as_tensor(value: Any) -> Tensor | None:
    if isinstance(value, PlainArray) and value.value is not None:
        array = value.value
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized:
        return value.detach()
    return None


def refuse_other_models(tensors: dict[str, Tensor], name: str) -> None:
    """Refuse what is no R-CNN of detectron2, and say what it is instead.

    Args:
        tensors: what read_tensors returned.
        name: the file's, for messages.

    Raises:
        InvalidRequestError: a backbone alone, Caffe2's or torchvision's names, or another model.
    """
    if any(key.startswith("backbone.body.") for key in tensors):
        raise InvalidRequestError(
            f"{name}: these weights have torchvision's names ({_first(tensors)}); its Mask R-CNN is another network, "
            "which no configuration of detectron2 describes. Give a Mask R-CNN that detectron2 trained."
        )
    if any(key.startswith("roi_heads.") for key in tensors):
        return
    if any(_CAFFE2_NAME.match(key) for key in tensors):
        raise InvalidRequestError(
            f"{name}: these weights have Caffe2's names ({_first(tensors)}), which detectron2 matches by guessing; "
            "they are not read. Give a Mask R-CNN that detectron2 trained or saved."
        )
    if any(_BACKBONE_NAME.match(key) for key in tensors):
        raise InvalidRequestError(
            f"{name}: this is a backbone alone ({_first(tensors)}), for trainings to start from. "
            "Give the weights of a trained Mask R-CNN."
        )
    raise InvalidRequestError(
        f"{name}: expected the tensors of an R-CNN of detectron2 (backbone.…, roi_heads.…); came {_first(tensors)}."
    )


def _first(tensors: dict[str, Tensor]) -> str:
    return ", ".join(key[:60] for key in sorted(tensors)[:3])
