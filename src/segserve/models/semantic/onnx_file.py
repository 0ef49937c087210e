"""What an ONNX file says of itself, checked before any of it is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx

from segserve.errors import InvalidRequestError

INPUT_NAME = "pixel_values"
OUTPUT_NAME = "logits"

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""The operators that ONNX Runtime brings with it. Any other would need a library of native code."""


def read_model(path: Path) -> Any:
    """The onnx.ModelProto of a file, without its external data.

    Raises:
        InvalidRequestError: there is no such file, it is not ONNX, or it is truncated.
    """
    if not path.is_file():
        raise InvalidRequestError(f"There is no file {path.name}.")
    try:
        model = onnx.load(path, load_external_data=False)
    except MemoryError:
        raise
    except Exception as error:
        # protobuf's DecodeError is of another class in each of its implementations.
        raise InvalidRequestError(
            f"{path.name} is not an ONNX file, or a truncated one ({path.stat().st_size:,} bytes). Export it again."
        ) from error
    # Protocol buffers find a message in nothing, and in some files of other kinds.
    if not model.ir_version or not model.graph.node or not model.opset_import:
        raise InvalidRequestError(
            f"{path.name} is not an ONNX file, or a truncated one ({path.stat().st_size:,} bytes): it holds no graph."
        )
    return model


def external_data_files(path: Path) -> list[Path]:
    """The files beside an ONNX file that hold weights of it, each once, in the order of their first use.

    Raises:
        InvalidRequestError: see ``read_model``; or external data lies outside the file's folder, is missing or is
            shorter than the weights.
    """
    return check_external_data(path, read_model(path))


def check_external_data(path: Path, model: Any) -> list[Path]:
    """As external_data_files, of a model that was read from path."""
    found: list[Path] = []
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = _inside(path, tensor.name, entries.get("location", ""))
        _check_extent(path, tensor.name, entries, file)
        if file not in found:
            found.append(file)
    return found


def check_operators(path: Path, model: Any) -> None:
    """Whether ONNX Runtime has every operator by itself.

    Raises:
        InvalidRequestError: an operator of another domain, names both.
    """
    own = {function.domain for function in model.functions}
    for node in _messages(model, "NodeProto"):
        if node.domain not in _DOMAINS and node.domain not in own:
            raise InvalidRequestError(
                f"{path.name}: the operator {node.op_type!r} is of the domain {node.domain!r}; only operators that "
                "ONNX Runtime brings with it are run. Export the model without custom operators."
            )


def check_signature(path: Path, model: Any, classes: int, input_size: tuple[int, int] | None) -> None:
    """Whether the model takes N x 3 x H x W float32 ``pixel_values`` and gives N x C x h x w float32 ``logits``.

    Args:
        classes: C.
        input_size: H and W; None: they differ from picture to picture.

    Raises:
        InvalidRequestError: says which input or output, what was expected and what came.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    name, form = path.name, "N x 3 x height x width float32"
    dimensions = _check_value(f"{name}: input", inputs, INPUT_NAME, form)
    _check_batch(f"{name}: input {INPUT_NAME}", dimensions[0])
    if dimensions[1] != 3:
        raise InvalidRequestError(
            f"{name}: input {INPUT_NAME}: expected 3 channels ({form}), came the shape {_shown(dimensions)}."
        )
    for side, given, wanted in zip(("height", "width"), dimensions[2:], input_size or (None, None), strict=True):
        if isinstance(given, int) and given != wanted:
            expected = f"{wanted} pixels, as the checkpoint's pictures have" if wanted else "any, as pictures differ"
            raise InvalidRequestError(
                f"{name}: input {INPUT_NAME}: {side}: expected {expected}, came {given} (shape {_shown(dimensions)})."
            )
    outputs = _check_value(f"{name}: output", list(model.graph.output), OUTPUT_NAME, "N x classes x h x w float32")
    _check_batch(f"{name}: output {OUTPUT_NAME}", outputs[0])
    if isinstance(outputs[1], int) and outputs[1] != classes:
        raise InvalidRequestError(
            f"{name}: output {OUTPUT_NAME}: expected {classes} classes, as the checkpoint names, came {outputs[1]}."
        )


def _check_value(where: str, values: list[Any], wanted: str, form: str) -> list[int | str]:
    """The dimensions of the one value there should be: numbers, or names of those that are open."""
    names = [value.name for value in values]
    if names != [wanted]:
        raise InvalidRequestError(f"{where}: expected {wanted!r} alone, came {', '.join(map(repr, names)) or 'none'}.")
    kind = values[0].type.tensor_type
    if not values[0].type.HasField("tensor_type") or kind.elem_type != onnx.TensorProto.FLOAT:
        came = onnx.TensorProto.DataType.Name(kind.elem_type).lower() if kind.elem_type else "no tensor"
        raise InvalidRequestError(f"{where} {wanted}: expected {form}, came {came}.")
    dimensions = [
        dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param or "?"
        for dimension in kind.shape.dim
    ]
    if len(dimensions) != 4:
        raise InvalidRequestError(f"{where} {wanted}: expected {form}, came the shape {_shown(dimensions)}.")
    return dimensions


def _check_batch(where: str, dimension: int | str) -> None:
    if isinstance(dimension, int):
        raise InvalidRequestError(
            f"{where}: expected any number of pictures at once, came {dimension} fixed. Export it with a dynamic batch."
        )


def _inside(path: Path, tensor: str, location: str) -> Path:
    where = f"{path.name}: the external data of {tensor!r}"
    plain = PurePosixPath(location)
    if not location or plain.is_absolute() or PureWindowsPath(location).drive or "\\" in location or "\0" in location:
        raise InvalidRequestError(f"{where}: expected the name of a file beside it, came {location!r}.")
    outside = ".." in plain.parts
    file = path.parent / plain
    if outside or not file.resolve().is_relative_to(path.parent.resolve()):
        raise InvalidRequestError(f"{where}: {location!r} lies outside of the checkpoint's folder and is not read.")
    if not file.is_file():
        raise InvalidRequestError(f"{where}: the file {location!r} is missing; it belongs beside {path.name}.")
    return file


def _check_extent(path: Path, tensor: str, entries: dict[str, str], file: Path) -> None:
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or 0)
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > file.stat().st_size:
        raise InvalidRequestError(
            f"{path.name}: the external data of {tensor!r} ends behind the end of {file.name}, which is truncated "
            "or of another model."
        )


def _tensors(model: Any) -> Iterator[Any]:
    yield from _messages(model, "TensorProto")


def _messages(message: Any, kind: str) -> Iterator[Any]:
    """Every message of a kind within another, however deep: in sub-graphs, functions, sparse and training tensors."""
    if message.DESCRIPTOR.name == kind:
        yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if hasattr(value, "ListFields") else value:
            yield from _messages(inner, kind)


def _shown(dimensions: list[int | str]) -> str:
    return " x ".join(map(str, dimensions)) or "()"
