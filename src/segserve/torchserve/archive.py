"""Model archives (``.mar``): zip files with a manifest that TorchServe unpacks when it registers a model.

The official archiver copies every file to a temporary folder, deflates it, and flattens nothing but what it is told
to; here the zip is written directly. Weights are stored as they are (they do not compress) and copied in pieces, so
that gigabytes need neither memory nor temporary space, and time stamps are fixed: the same input gives the same bytes.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import segserve
from segserve.catalog import CATALOG
from segserve.config import ArchivedModel
from segserve.errors import InvalidRequestError, NotFoundError
from segserve.torchserve.checkpoint_folder import (
    ONNX_FILE,
    check_checkpoint,
    check_engine,
    check_onnx,
    checkpoint_files,
)
from segserve.torchserve.handler_options import HandlerOptions, read_options
from segserve.torchserve.profiles import DEFAULT_PROFILES, profile_of

CHECKPOINT_FOLDER = "checkpoint"
"""Where the weights lie within an archive."""

CHECKPOINT_CONFIG = f"{CHECKPOINT_FOLDER}/config.json"
"""Of a model that is one checkpoint; names its classes."""

HANDLER_SUFFIX = "_handler.py"
"""Follows the catalog's name of the model in the name of its handler file."""

Progress = Callable[[int, int], None]
"""Called with (bytes written, bytes in all)."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 4 * 2**20
_STORED = (".safetensors", ".bin", ".pt", ".pth", ".onnx")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class ArchiveInfo:
    """What an archive says about itself. file: its path; config: its yaml; about: the model in it."""

    file: Path
    name: str
    version: str
    config: Mapping[str, Any]
    about: ArchivedModel = field(default_factory=ArchivedModel)


def source_folder(name: str) -> Path:
    """A folder of the source tree (``handlers``, ``weights``): in the working directory, else beside the package.

    Raises:
        NotFoundError: neither is there.
    """
    for root in (Path.cwd(), Path(segserve.__file__).resolve().parents[2]):
        if (root / name).is_dir():
            return root / name
    raise NotFoundError(f"No folder {name}/ here; run this in segserve's source tree.")


def check_name(name: str) -> None:
    """Whether a model can be served under a name.

    Raises:
        InvalidRequestError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(f"The name {name!r} will not do: letters, digits, '_', '.', '-', at most 64.")


def build_archive(
    model: str,
    source: Path,
    out: Path,
    *,
    name: str | None = None,
    version: str = "1.0",
    handlers: Path | None = None,
    profiles: Mapping[str, Mapping[str, Any]] | None = None,
    handler_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write ``out/NAME.mar`` and return its path; an archive that is there is replaced once the new one is whole.

    Args:
        model: which handler and yaml to take, e.g. ``grounded_sam``.
        source: checkpoint folder, see checkpoint_folder.PARTS.
        name: the model's name when served; default: model.
        handlers: folder with ``{model}_handler.py`` and ``{model}.yaml``; default: that of the source tree.
        profiles: changes to the yaml's ``profiles:`` section, e.g. ``{"cpu": {"workers": 2}}``.
        handler_options: changes to the yaml's ``handler:`` section, e.g. ``{"box_threshold": 0.4}``.

    Raises:
        NotFoundError, InvalidRequestError: source is no such checkpoint, its ONNX file cannot be run, or the name
            will not do.
    """
    name = name or model
    check_name(name)
    check_checkpoint(model, source)
    handlers = handlers or source_folder("handlers")
    handler = handlers / f"{model}{HANDLER_SUFFIX}"
    config = _changed_config(handlers / f"{model}.yaml", profiles or {}, handler_options or {})
    check_engine(source, _options_of(config, model).engine)
    check_onnx(model, source)
    texts = {
        "MAR-INF/MANIFEST.json": _manifest(name, version, handler.name, f"{model}.yaml"),
        handler.name: handler.read_bytes(),
        f"{model}.yaml": config,
    }
    files = [(f"{CHECKPOINT_FOLDER}/{path}", file) for path, file in checkpoint_files(model, source)]
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{name}.mar"
    partial = out / f".{name}.mar.partial"
    try:
        _write_zip(partial, texts, files, progress or _silent)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def read_archive(file: Path) -> ArchiveInfo:
    """Name, version, yaml and model of an archive.

    Raises:
        InvalidRequestError: no archive, or without a manifest that names a model.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]
            config_file = manifest.get("configFile")
            config = (yaml.safe_load(archive.read(config_file)) if config_file else None) or {}
            name, version = str(manifest["modelName"]), str(manifest["modelVersion"])
            return ArchiveInfo(file, name, version, config, _model_in(archive, manifest, config))
    except (OSError, zipfile.BadZipFile, AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InvalidRequestError(f"{file} is not a model archive. Build it with: segserve archive") from error


def _model_in(archive: zipfile.ZipFile, manifest: Mapping[str, Any], config: Mapping[str, Any]) -> ArchivedModel:
    """Which model an archive holds, told by the handler that build_archive packed; none of ours: nothing is known."""
    kind = str(manifest.get("handler", "")).removesuffix(HANDLER_SUFFIX)
    if kind not in CATALOG:
        return ArchivedModel()
    engines = CATALOG[kind].engines
    engine = (config.get("handler") or {}).get("engine", engines[0]) if engines else None
    classes = None
    if not CATALOG[kind].prompts and CHECKPOINT_CONFIG in archive.namelist():
        classes = _classes_in(json.loads(archive.read(CHECKPOINT_CONFIG)))
    runnable = None
    if "engine" in CATALOG[kind].parameters:
        without = () if f"{CHECKPOINT_FOLDER}/{ONNX_FILE}" in archive.namelist() else ("onnx",)
        runnable = tuple(name for name in engines if name not in without)
    return ArchivedModel(kind, engine, classes, runnable)


def _classes_in(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The labels that a checkpoint's config.json names, as segserve writes them or transformers.

    Of equal ones the later have their class's number, as the predictor of such a model tells them apart.
    """
    if "classes" in checkpoint:
        return tuple(str(label) for label in checkpoint["classes"])
    if "id2label" not in checkpoint:
        return None
    labels: list[str] = []
    for index, label in sorted((int(key), str(name)) for key, name in checkpoint["id2label"].items()):
        labels.append(f"{label} {index}" if label in labels else label)
    return tuple(labels)


def first_store(folders: Sequence[Path], *, may_be_empty: bool = False) -> Path:
    """The first of the folders (at least one) that holds an archive. may_be_empty: the first of all if none does.

    Raises:
        NotFoundError: none holds one.
    """
    for folder in folders:
        if next(folder.glob("*.mar"), None):
            return folder
    if may_be_empty:
        return folders[0]
    raise NotFoundError(f"No model archive in {' or '.join(map(str, folders))}. Build one first: segserve archive demo")


def find_archives(model_store: Path, names: Iterable[str] = ()) -> list[ArchiveInfo]:
    """The archives of a model store, by name; with names only those, in that order.

    Raises:
        NotFoundError: there is none, or one that is asked for is missing.
        InvalidRequestError: a file in it is broken.
    """
    archives = {info.name: info for info in (read_archive(file) for file in sorted(model_store.glob("*.mar")))}
    if not archives:
        raise NotFoundError(f"No model archive in {model_store}. Build one first: segserve archive demo")
    wanted = list(dict.fromkeys(names)) or list(archives)
    for name in wanted:
        if name not in archives:
            raise NotFoundError(f"No archive of the model {name!r} in {model_store}; it has {', '.join(archives)}.")
    return [archives[name] for name in wanted]


def _manifest(name: str, version: str, handler: str, config_file: str) -> bytes:
    manifest = {
        # TorchServe insists on a date; a fixed one keeps archives of the same input identical.
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "model": {"modelName": name, "modelVersion": version, "handler": handler, "configFile": config_file},
        "archiverVersion": "0.12.0",
    }
    return json.dumps(manifest, indent=2).encode()


def _changed_config(file: Path, profiles: Mapping[str, Mapping[str, Any]], handler: Mapping[str, Any]) -> bytes:
    text = file.read_bytes()
    if not any(profiles.values()) and not handler:
        return text
    config = yaml.safe_load(text)
    for profile, changes in profiles.items():
        config.setdefault("profiles", {}).setdefault(profile, {}).update(changes)
    config.setdefault("handler", {}).update(handler)
    return str(yaml.safe_dump(config, sort_keys=False)).encode()


def _options_of(text: bytes, model: str) -> HandlerOptions:
    """What a yaml says; what a worker or ``segserve serve`` would refuse is refused now."""
    config = yaml.safe_load(text) or {}
    for name in DEFAULT_PROFILES:
        profile_of(config, name)
    return read_options(config, None, CATALOG[model])


def _write_zip(path: Path, texts: Mapping[str, bytes], files: list[tuple[str, Path]], progress: Progress) -> None:
    total = sum(file.stat().st_size for _, file in files)
    done = 0
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in texts.items():
            archive.writestr(_entry(name, zipfile.ZIP_DEFLATED), data)
        for name, file in files:
            entry = _entry(name, zipfile.ZIP_STORED if file.suffix in _STORED else zipfile.ZIP_DEFLATED)
            entry.file_size = file.stat().st_size
            with file.open("rb") as reader, archive.open(entry, "w") as writer:
                while chunk := reader.read(_CHUNK):
                    writer.write(chunk)
                    done += len(chunk)
                    progress(done, total)


def _entry(name: str, compression: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = compression
    entry.external_attr = 0o644 << 16
    return entry


def _silent(done: int, total: int) -> None:
    """Progress that nobody wants to see."""
