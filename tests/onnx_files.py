"""Small ONNX files for tests, written by hand: what they answer is known without running a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def brightest_class(
    classes: int, size: Sequence[int | str], *, favorite: int = 0, name: str = "pixel_values"
) -> onnx.ModelProto:
    """A model in the form of a semantic checkpoint's whose logits are those of a 1 x 1 convolution.

    Args:
        size: height and width of the input; texts leave them open.
        favorite: the class that every pixel gets.
        name: of the input.
    """
    weights = np.random.default_rng(0).normal(0, 0.1, (classes, 3, 1, 1)).astype(np.float32)
    bias = np.zeros(classes, np.float32)
    bias[favorite] = 10
    tensors = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(
        [helper.make_node("Conv", [name, "weights", "bias"], ["logits"])],
        "brightest_class",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, *size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes, *size])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def with_external_data(model: onnx.ModelProto, location: str) -> onnx.ModelProto:
    """The model with the data of its first tensor said to be in another file, which is not written."""
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    tensor = moved.graph.initializer[0]
    data = numpy_helper.to_array(tensor).tobytes()
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return moved


def external_bytes(model: onnx.ModelProto) -> bytes:
    """What the file of with_external_data has to hold."""
    return numpy_helper.to_array(model.graph.initializer[0]).tobytes()


def damaged(whole: Path, folder: Path) -> dict[str, tuple[bytes, str]]:
    """Ways to spoil an ONNX file: by name, its bytes and a word of the reason for which it has to be refused.

    Args:
        whole: a good file.
        folder: where a file lies that external data must not come from; it is made.
    """
    model = onnx.load(whole)
    secret = folder / "secret.bin"
    secret.write_bytes(external_bytes(model))
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    for index, side in ((2, 33), (3, 47)):
        smaller.graph.input[0].type.tensor_type.shape.dim[index].dim_value = side
    return {
        "truncated": (whole.read_bytes()[: whole.stat().st_size // 2], "truncated"),
        "climbing": (with_external_data(model, "../secret.bin").SerializeToString(), "outside"),
        "absolute": (with_external_data(model, str(secret)).SerializeToString(), "beside it"),
        "misshapen": (smaller.SerializeToString(), "33"),
    }
