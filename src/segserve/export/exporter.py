"""A semantic network as one ONNX file: any number of pictures at once, weights inside, no paths of this machine.

Input ``pixel_values``, N x 3 x H x W float32, resized and normalized; output ``logits``, N x C x h x w float32. The
normalization stays outside, so that both engines are given the same numbers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from segserve.errors import InvalidRequestError, TooLargeError
from segserve.models.semantic.onnx_file import INPUT_NAME, OUTPUT_NAME, read_model

OPSETS = range(18, 24)
"""What torch's exporter writes (18), and what onnxscript can raise that to."""
DEFAULT_OPSET = 18

MAX_BATCH = 1024
"""The most pictures that the exporter is asked to allow for; ONNX itself sets no bound."""

_MAX_BYTES = 2**31 - 2**20
"""Protocol buffers end at 2 GiB; some room for all but the weights."""

_EXAMPLE_BATCH = 2
"""With one picture, torch.export would take the batch for a constant."""


def write_onnx(
    network: nn.Module,
    example: Tensor,
    file: Path,
    *,
    opset: int = DEFAULT_OPSET,
    any_size: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Export a network with torch's exporter (``dynamo=True``) and check the file's form.

    Args:
        network: float32, on the CPU, in evaluation mode; N x 3 x H x W to N x C x h x w.
        example: a real input, 3 x H x W: what networks do may depend on it.
        file: is overwritten.
        opset: the version of ONNX's operators, one of OPSETS.
        any_size: leave height and width open too, for models whose input size depends on the picture.
        metadata: goes into the file's ``metadata_props``.

    Raises:
        InvalidRequestError: an opset out of range, a network that the exporter cannot follow, or no onnxscript.
        TooLargeError: the weights do not fit into one ONNX file.
        OSError: the file cannot be written.
    """
    if importlib.util.find_spec("onnxscript") is None:
        raise InvalidRequestError("torch's exporter needs the package onnxscript: pip install 'segserve[train]'.")
    if opset not in OPSETS:
        raise InvalidRequestError(f"opset: expected {OPSETS.start} to {OPSETS.stop - 1}, came {opset}.")
    _check_size(network)
    batch = torch.stack([example] * _EXAMPLE_BATCH)
    sizes: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}
    if any_size:
        sizes |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    try:
        with _quietly(), torch.inference_mode(False), torch.no_grad():
            program = torch.onnx.export(
                network,
                (batch,),
                dynamo=True,
                dynamic_shapes=(sizes,),
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                external_data=False,
                verbose=False,
            )
            model: onnx.ModelProto = program.model_proto  # type: ignore[union-attr]
    except MemoryError:
        raise
    except Exception as error:
        # The exporter raises what any of its many passes stumbles over.
        raise InvalidRequestError(_refusal(error)) from error
    _check_form(model, opset)
    remove_traces(model)
    made_with = {"onnxscript": version("onnxscript")}
    onnx.helper.set_model_props(model, {**made_with, **(metadata or {})})
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())


def remove_traces(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes for its own debugging: stack traces, which name this machine's folders."""
    for graph in (model.graph, *model.functions):
        _remove_from(graph)


def read_metadata(file: Path) -> dict[str, str]:
    """What ``write_onnx`` was given as metadata, with ``opset``, ``producer`` and ``ir_version`` of the file itself.

    Raises:
        InvalidRequestError: see ``read_model``.
    """
    model = read_model(file)
    return {
        **{entry.key: entry.value for entry in model.metadata_props},
        "opset": str(opset_of(model)),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "ir_version": str(model.ir_version),
    }


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses; 0 without any."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def _check_size(network: nn.Module) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > _MAX_BYTES:
        raise TooLargeError(
            f"The weights have {size / 2**30:.1f} GiB; one ONNX file holds less than 2 GiB. "
            "Serve this model with torch."
        )


def _check_form(model: onnx.ModelProto, opset: int) -> None:
    """Where the exporter cannot raise a graph to an opset it leaves it at its own, with no more than a warning."""
    written = opset_of(model)
    if written != opset:
        raise InvalidRequestError(
            f"opset: this network cannot be written in opset {opset}; the exporter made {written}. "
            f"Ask for --opset {written}."
        )
    if len(model.graph.input) != 1 or len(model.graph.output) != 1:
        raise InvalidRequestError(
            f"expected one input and one output, the graph has {len(model.graph.input)} and {len(model.graph.output)}."
        )


def _refusal(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    first = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return f"torch's exporter cannot write this network as ONNX: {first[:300]}"


def _remove_from(graph: Any) -> None:
    values: list[Iterable[Any]] = [graph.value_info]
    if isinstance(graph, onnx.GraphProto):
        values += [graph.input, graph.output, graph.initializer]
    for entry in (graph, *(entry for entries in values for entry in entries)):
        entry.doc_string = ""
        del entry.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _remove_from(inner)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the exporter's prints, warnings and log records off the terminal; failures print whole graphs."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        nowhere = io.StringIO()
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
