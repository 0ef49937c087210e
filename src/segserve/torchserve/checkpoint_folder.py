"""Which folders are checkpoints that a model can be archived from, looked at without loading a weight."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segserve.errors import InvalidRequestError, NotFoundError

_TOKENIZERS = ("tokenizer.json", "vocab.txt")
# Other copies of the weights, as model hubs offer them side by side: for other frameworks, or pickled, which are never
# read since they can run code.
_FOREIGN = (".h5", ".msgpack", ".onnx", ".tflite", ".bin", ".pt", ".pth", ".pkl")


@dataclass(frozen=True)
class Part:
    """One sub-folder of a checkpoint. families: the ``model_type`` values of its config.json that will do."""

    folder: str
    families: tuple[str, ...]
    needs_tokenizer: bool = False


PARTS: dict[str, tuple[Part, ...]] = {
    "grounded_sam": (
        Part("grounding_dino", ("grounding-dino", "mm-grounding-dino"), needs_tokenizer=True),
        Part("sam", ("sam", "sam_hq")),
    ),
}
"""What each model's checkpoint folder consists of."""


def check_checkpoint(model: str, folder: Path) -> None:
    """Whether folder holds a checkpoint of the model.

    Raises:
        NotFoundError: an unknown model, or no such folder.
        InvalidRequestError: a part is missing or is something else; says what belongs where.
    """
    if model not in PARTS:
        raise NotFoundError(f"Unknown model {model!r}; segserve archives {', '.join(PARTS)}.")
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is not a folder.")
    layout = " and ".join(f"{part.folder}/" for part in PARTS[model])
    for part in PARTS[model]:
        if not (folder / part.folder).is_dir():
            raise InvalidRequestError(
                f"{folder} is no {model} checkpoint: {part.folder}/ is missing. Expected a folder with {layout}."
            )
        _check_part(folder / part.folder, part)


def _check_part(folder: Path, part: Part) -> None:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        family = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequestError(f"{folder}: config.json is missing or names no model_type.") from error
    if family not in part.families:
        raise InvalidRequestError(f"{folder}: expected a model of {' or '.join(part.families)}, came {family!r}.")
    if not any(folder.glob("*.safetensors")):
        raise InvalidRequestError(f"{folder}: no weights; expected *.safetensors (pickled weights are not read).")
    if part.needs_tokenizer and not any((folder / name).is_file() for name in _TOKENIZERS):
        raise InvalidRequestError(f"{folder}: no tokenizer; expected {' or '.join(_TOKENIZERS)}.")


def checkpoint_files(model: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """(path within the checkpoint, file) of everything that the model needs, sorted.

    Hidden files stay out, and so do copies of the weights for other frameworks and pickled ones.
    """
    for part in PARTS[model]:
        root = folder / part.folder
        for file in sorted(root.rglob("*")):
            relative = file.relative_to(root)
            hidden = any(name.startswith((".", "__")) for name in relative.parts)
            if file.is_file() and not hidden and file.suffix not in _FOREIGN:
                yield f"{part.folder}/{relative.as_posix()}", file
