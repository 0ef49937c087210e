"""Which checkpoint folders ``segserve archive`` packs; those of foreign weights are made for the occasion."""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segserve.errors import InvalidRequestError, NotFoundError

_OF_MASK_RCNN = ("config",)
_OF_SEMANTIC = ("architecture", "input_size", "onnx")


@contextlib.contextmanager
def checkpoint_folders(args: argparse.Namespace, options: dict[str, Any]) -> Iterator[dict[str, Path]]:
    """Checkpoint folder by model name; one that was made of foreign weights is removed again.

    Args:
        args: the command's arguments.
        options: those of the handler, engine included.

    Raises:
        NotFoundError: nothing where the weights should be, or an unknown model.
        InvalidRequestError: options that do not go together, or weights that cannot be read.
    """
    _check_options(args)
    with contextlib.ExitStack() as stack:
        if args.weights is None:
            folders = _found_folders(args.source, args.models)
        else:
            model = _model_of_weights(args)
            folder = args.weights
            if not folder.is_dir():
                folder = _temporary(stack)
                _convert(model, args, options.get("engine"), folder)
            folders = {model: folder}
        if args.onnx:
            folders = {"semantic": _with_onnx(folders, args.onnx, _temporary(stack))}
        yield folders


def size_of(text: str) -> tuple[int, int]:
    """(height, width) of a text such as ``512x768``, for argparse."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected HxW in pixels, such as 512x512, came {text!r}")
    return int(match[1]), int(match[2])


def _check_options(args: argparse.Namespace) -> None:
    given = [name for name in ("config", "labels", "architecture", "input_size") if getattr(args, name)]
    if given and not args.weights:
        raise InvalidRequestError(f"{_flag(given[0])}: belongs to --weights, which is missing.")


def _model_of_weights(args: argparse.Namespace) -> str:
    """The model that --weights are for.

    Raises:
        NotFoundError: no such model, or nothing where the weights should be.
        InvalidRequestError: no single model, or options that do not go together.
    """
    from segserve.catalog import MASK_RCNN, SEMANTIC
    from segserve.torchserve.checkpoint_folder import PARTS

    names: list[str] = args.models if args.source == "demo" else [args.source, *args.models]
    if len(names) != 1:
        came = " ".join(names) or "none"
        raise InvalidRequestError(f"--weights: expected one model beside it ({', '.join(PARTS)}), came {came}.")
    (model,) = names
    if model not in PARTS:
        raise NotFoundError(f"--weights: {model!r} is no model; expected one of {', '.join(PARTS)}.")
    if not args.weights.exists():
        raise NotFoundError(f"--weights: there is no {args.weights}.")
    for name in _OF_SEMANTIC if model != SEMANTIC.name else _OF_MASK_RCNN:
        if getattr(args, name):
            raise InvalidRequestError(f"{_flag(name)}: is no option of {model}.")
    if args.weights.is_dir():
        for name in ("config", "labels", "architecture", "input_size"):
            if getattr(args, name):
                if model not in (MASK_RCNN.name, SEMANTIC.name):
                    raise InvalidRequestError(f"{_flag(name)}: is no option of {model}.")
                kind = "detectron2's" if model == MASK_RCNN.name else "torchvision's"
                raise InvalidRequestError(f"{_flag(name)}: goes with {kind} weights; {args.weights} has its own.")
    elif model not in (MASK_RCNN.name, SEMANTIC.name):
        raise InvalidRequestError(f"--weights: expected a checkpoint folder of {model}, came the file {args.weights}.")
    elif model == MASK_RCNN.name and args.config is None:
        raise InvalidRequestError("--config: missing; detectron2's weights need the configuration (.yaml) beside them.")
    return model


def _convert(model: str, args: argparse.Namespace, engine: str | None, folder: Path) -> None:
    """Make a checkpoint folder of weights of detectron2 or torchvision."""
    from rich.console import Console

    from segserve.catalog import SEMANTIC
    from segserve.models.labels import read_labels

    labels = read_labels(args.labels) if args.labels else None
    with Console(stderr=True).status("reading the weights"):
        if model == SEMANTIC.name:
            from segserve.models.semantic.architecture import DEFAULT_ARCHITECTURE
            from segserve.models.semantic.checkpoint import convert_torchvision

            size = {"input_size": args.input_size} if args.input_size else {}
            convert_torchvision(args.weights, args.architecture or DEFAULT_ARCHITECTURE, labels, folder, **size)
            return
        from segserve.models.mask_rcnn import detectron2_checkpoint

        make = detectron2_checkpoint.convert
        if engine == "detectron2":
            make = detectron2_checkpoint.convert_for_detectron2
        make(args.weights, args.config, labels, folder)


def _with_onnx(folders: dict[str, Path], onnx: Path, folder: Path) -> Path:
    """A copy of the semantic checkpoint among the folders, with another ONNX file in it."""
    from segserve.models.semantic.onnx_engine import external_data_files
    from segserve.torchserve.checkpoint_folder import ONNX_FILE, check_checkpoint, checkpoint_files

    if list(folders) != ["semantic"]:
        raise InvalidRequestError(f"--onnx: belongs to the model semantic alone, came {', '.join(folders)}.")
    if not onnx.is_file():
        raise NotFoundError(f"--onnx: there is no file {onnx}.")
    source = folders["semantic"]
    check_checkpoint("semantic", source)
    replaced = {ONNX_FILE}
    if (source / ONNX_FILE).is_file():
        replaced.update(file.relative_to(source).as_posix() for file in external_data_files(source / ONNX_FILE))
    files = {name: file for name, file in checkpoint_files("semantic", source) if name not in replaced}
    for file in external_data_files(onnx):
        name = file.relative_to(onnx.parent).as_posix()
        if name in files:
            raise InvalidRequestError(f"--onnx: its external data {name} has the name of a file of the checkpoint.")
        files[name] = file
    for name, file in {**files, ONNX_FILE: onnx}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)
    return folder


def _found_folders(source: str, models: list[str]) -> dict[str, Path]:
    from segserve.torchserve.archive import source_folder
    from segserve.torchserve.checkpoint_folder import PARTS, models_in

    if source in PARTS and not Path(source).is_dir():
        source, models = "demo", [source, *models]
    root = source_folder("weights") / "demo" if source == "demo" else Path(source)
    if not root.is_dir():
        raise NotFoundError(f"{root} is not a folder. Expected demo, a model, or the folder of a checkpoint.")
    wanted = models or [name for name in PARTS if (root / name).is_dir()] or models_in(root)
    if not wanted:
        raise NotFoundError(f"{root} holds no checkpoint of {', '.join(PARTS)}.")
    return {name: root / name if (root / name).is_dir() else root for name in wanted}


def _temporary(stack: contextlib.ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="segserve-archive-")))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
