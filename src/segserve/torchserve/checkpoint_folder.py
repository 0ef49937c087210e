"""Which folders are checkpoints that a model can be archived from, looked at without loading a weight."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segserve.errors import InvalidRequestError, NotFoundError

_WEIGHTS = ".safetensors"
_TOKENIZERS = ("tokenizer.json", "vocab.txt")
# Other copies of the weights, as model hubs offer them side by side: for other frameworks, or pickled, which are never
# read since they can run code.
_FOREIGN = (".h5", ".msgpack", ".onnx", ".tflite", ".bin", ".pt", ".pth", ".pkl")

# What AutoModelForSemanticSegmentation of transformers loads.
_SEMANTIC_FAMILIES = (
    "beit",
    "data2vec-vision",
    "dpt",
    "mobilenet_v2",
    "mobilevit",
    "mobilevitv2",
    "segformer",
    "upernet",
)

# As transformers saves a model; of several copies side by side, the safetensors.
_TRANSFORMERS_FILES = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
)

ONNX_FILE = "model.onnx"
"""A semantic model's second form, for ONNX Runtime."""


@dataclass(frozen=True)
class Part:
    """One folder of a checkpoint.

    Attributes:
        folder: its name within the checkpoint; empty: the checkpoint's folder itself.
        families: the ``model_type`` values of its config.json that will do.
        needs_tokenizer: whether a tokenizer belongs to it.
        files: patterns of all that is taken from it; empty: everything but copies of the weights.
    """

    folder: str
    families: tuple[str, ...]
    needs_tokenizer: bool = False
    files: tuple[str, ...] = ()


PARTS: dict[str, tuple[Part, ...]] = {
    "grounded_sam": (
        Part("grounding_dino", ("grounding-dino", "mm-grounding-dino"), needs_tokenizer=True),
        Part("sam", ("sam", "sam_hq")),
    ),
    "mask_rcnn": (Part("", ("mask_rcnn",), files=("config.json", "config.yaml", "model.safetensors")),),
    "semantic": (Part("", ("semantic", *_SEMANTIC_FAMILIES), files=(*_TRANSFORMERS_FILES, ONNX_FILE)),),
    "sam2": (Part("", ("sam2", "sam2_video"), files=(*_TRANSFORMERS_FILES, "processor_config.json")),),
}
"""What each model's checkpoint folder consists of."""

_ENGINE_FILES = {
    "detectron2": ("config.yaml", "Archive weights of detectron2 with --weights FILE --config FILE"),
    "onnx": (ONNX_FILE, "Make one with segserve export-onnx, or add one with --onnx FILE"),
}
"""What an engine reads beside what the others do, and where it comes from."""

_MADE_FOR = {"config.yaml": "detectron2"}
"""Files that no other engine can do with."""


def models_in(folder: Path) -> list[str]:
    """The models of which a folder looks like the checkpoint; check_checkpoint tells whether it is one."""
    return [model for model, parts in PARTS.items() if all(_looks_like(folder / part.folder, part) for part in parts)]


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


def check_engine(folder: Path, engine: str | None) -> None:
    """Whether a checkpoint of a model has what the engine needs that is to run it.

    Raises:
        InvalidRequestError: a file is missing, names it; or the checkpoint was made for another engine.
    """
    if engine is None:
        return
    for file, made_for in _MADE_FOR.items():
        if engine != made_for and (folder / file).is_file():
            raise InvalidRequestError(f"{folder} is for the engine {made_for}: add --engine {made_for}.")
    if engine not in _ENGINE_FILES:
        return
    name, way_out = _ENGINE_FILES[engine]
    if not (folder / name).is_file():
        raise InvalidRequestError(
            f"{folder}: the engine {engine} needs a {name}, which is missing. {way_out}, or leave --engine out."
        )


def check_onnx(model: str, folder: Path) -> None:
    """Whether workers will be able to run the ONNX file of a checkpoint, where it has one: it is loaded and run once.

    Raises:
        InvalidRequestError: says what is wrong with the file; or the checkpoint itself cannot be loaded.
    """
    if model != "semantic" or not (folder / ONNX_FILE).is_file():
        return
    # Imports torch, which nothing else in this package's building and running of archives needs.
    from segserve.models.semantic import Semantic

    Semantic.from_folder(folder, device="cpu").warm_up()


def _looks_like(folder: Path, part: Part) -> bool:
    if part.folder:
        return folder.is_dir()
    # A folder without sub-folders is told by its configuration alone.
    try:
        return _family(folder) in part.families
    except InvalidRequestError:
        return False


def _family(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text("utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequestError(f"{folder}: config.json is missing or names no model_type.") from error


def _check_part(folder: Path, part: Part) -> None:
    family = _family(folder)
    if family not in part.families:
        raise InvalidRequestError(f"{folder}: expected a model of {' or '.join(part.families)}, came {family!r}.")
    weights = [name for name in part.files if name.endswith(_WEIGHTS)] or [f"*{_WEIGHTS}"]
    if not any(any(folder.glob(name)) for name in weights):
        raise InvalidRequestError(f"{folder}: no weights; expected {weights[0]} (pickled weights are not read).")
    if part.needs_tokenizer and not any((folder / name).is_file() for name in _TOKENIZERS):
        raise InvalidRequestError(f"{folder}: no tokenizer; expected {' or '.join(_TOKENIZERS)}.")


def checkpoint_files(model: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """(path within the checkpoint, file) of everything that the model needs, sorted.

    Hidden files stay out, and so do copies of the weights for other frameworks and pickled ones.
    """
    for part in PARTS[model]:
        root = folder / part.folder
        for file in _files(root, part):
            yield (Path(part.folder) / file.relative_to(root)).as_posix(), file


def _files(root: Path, part: Part) -> Iterator[Path]:
    if part.files:
        found = {file for pattern in part.files for file in root.glob(pattern) if file.is_file()}
        if root / ONNX_FILE in found:
            from segserve.models.semantic.onnx_engine import external_data_files

            found.update(external_data_files(root / ONNX_FILE))
        yield from sorted(found)
        return
    for file in sorted(root.rglob("*")):
        hidden = any(name.startswith((".", "__")) for name in file.relative_to(root).parts)
        if file.is_file() and not hidden and file.suffix not in _FOREIGN:
            yield file
