"""ONNX files: what runs, and every reason for which one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnx_files import external_bytes, with_external_data
from segserve.errors import InvalidRequestError
from segserve.models.semantic.onnx_engine import OnnxEngine, external_data_files

from .semantic_models import CLASSES, SIZE, TwoConvolutions, two_convolutions_onnx


def engine_of(path: Path, size: tuple[int, int] | None = SIZE) -> OnnxEngine:
    return OnnxEngine(path, classes=len(CLASSES), input_size=size, threads=1)


def written(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def shape_of(value: onnx.ValueInfoProto) -> onnx.TensorShapeProto:
    return value.type.tensor_type.shape


@pytest.mark.parametrize("size", [SIZE, ("height", "width")])
def test_it_computes_what_torch_computes(tmp_path: Path, size: tuple[int | str, int | str]) -> None:
    engine = engine_of(written(tmp_path, two_convolutions_onnx(size)))
    assert engine.providers == ("CPUExecutionProvider",)
    for count in (1, 3):
        pixels = torch.randn((count, 3, *SIZE), generator=torch.Generator().manual_seed(count))
        found = engine.run(pixels)
        assert found.dtype == torch.float32
        with torch.no_grad():
            torch.testing.assert_close(found, TwoConvolutions()(pixels), atol=1e-5, rtol=1e-5)


def test_open_sizes_take_pictures_of_any_size(tmp_path: Path) -> None:
    engine = engine_of(written(tmp_path, two_convolutions_onnx(("height", "width"))), None)
    assert engine.run(torch.zeros((1, 3, 30, 90))).shape == (1, len(CLASSES), 15, 45)
    with pytest.raises(InvalidRequestError, match="cannot be run with an input of 1 x 4 x 30 x 90"):
        engine.run(torch.zeros((1, 4, 30, 90)))


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    model = two_convolutions_onnx()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "first.data").write_bytes(external_bytes(model))
    path = written(tmp_path, with_external_data(model, "weights/first.data"))
    assert external_data_files(path) == [tmp_path / "weights" / "first.data"]
    pixels = torch.randn((1, 3, *SIZE), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(engine_of(path).run(pixels), TwoConvolutions()(pixels), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, share: float) -> None:
    content = two_convolutions_onnx().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InvalidRequestError, match=r"model.onnx is not an ONNX file, or a truncated one"):
        engine_of(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04 not onnx", b"\x89PNG\r\n\x1a\n" * 9, b'{"a": 1}', bytes(64)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidRequestError, match=r"model.onnx is not an ONNX file"):
        engine_of(path)


def test_a_missing_file_and_a_dangling_link_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"no file model.onnx"):
        engine_of(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidRequestError, match=r"no file model.onnx"):
        engine_of(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("../secret.bin", "'../secret.bin' lies outside of the checkpoint's folder"),
        ("inner/../../secret.bin", "lies outside"),
        ("{root}/secret.bin", "the name of a file beside it, came '/"),
        ("C:\\secret.bin", "the name of a file beside it"),
        ("..\\secret.bin", "the name of a file beside it"),
        ("", "the name of a file beside it, came ''"),
        ("linked.bin", "'linked.bin' lies outside"),
        ("linked/secret.bin", "'linked/secret.bin' lies outside"),
        ("absent.bin", "the file 'absent.bin' is missing"),
        ("*/_ORT_MEM_ADDR_/*", "is missing"),
    ],
)
def test_external_data_outside_of_the_folder_is_refused(tmp_path: Path, location: str, reason: str) -> None:
    model = two_convolutions_onnx()
    (tmp_path / "secret.bin").write_bytes(external_bytes(model))
    folder = tmp_path / "checkpoint"
    (folder / "inner").mkdir(parents=True)
    (folder / "linked.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    path = written(folder, with_external_data(model, location.format(root=tmp_path)))
    with pytest.raises(InvalidRequestError, match=r"external data of 'first.weight'") as failure:
        engine_of(path)
    assert reason in failure.value.message
    with pytest.raises(InvalidRequestError):
        external_data_files(path)


def test_external_data_of_constants_and_in_branches_is_looked_at(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "hidden_away")
    constant = with_external_data(helper.make_model(helper.make_graph([], "g", [], [], [tensor])), "/secret.bin")
    node = helper.make_node("Constant", [], ["unused"], value=constant.graph.initializer[0])
    branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("unused", TensorProto.FLOAT, None)])
    model = two_convolutions_onnx()
    model.graph.node.append(helper.make_node("If", ["c"], ["x"], then_branch=branch, else_branch=branch))
    with pytest.raises(InvalidRequestError, match=r"external data of 'hidden_away'.* came '/secret.bin'"):
        engine_of(written(tmp_path, model))


@pytest.mark.parametrize("cut", [1, 10_000])
def test_truncated_external_data_is_refused(tmp_path: Path, cut: int) -> None:
    model = two_convolutions_onnx()
    (tmp_path / "first.data").write_bytes(external_bytes(model)[:-cut])
    with pytest.raises(InvalidRequestError, match=r"'first.weight' ends behind the end of first.data"):
        engine_of(written(tmp_path, with_external_data(model, "first.data")))


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"


def rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = model.graph.node[2].output[0] = "out"


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch"]))


def second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("active", TensorProto.FLOAT, ["batch", 8, "h", "w"]))


def less_rank(model: onnx.ModelProto) -> None:
    del shape_of(model.graph.input[0]).dim[3]


def other_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def set_side(index: int, value: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        shape_of(model.graph.input[0]).dim[index].dim_value = value

    return change


def fixed_output_batch(model: onnx.ModelProto) -> None:
    shape_of(model.graph.output[0]).dim[0].dim_value = 1


def more_classes(model: onnx.ModelProto) -> None:
    shape_of(model.graph.output[0]).dim[1].dim_value = 21


def custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type, model.graph.node[1].domain = "PyCode", "com.example.native"
    model.opset_import.append(helper.make_opsetid("com.example.native", 1))


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Relux"


def future_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def hidden_batch(model: onnx.ModelProto) -> None:
    """What the input declares as open is fixed by a reshape to one picture."""
    shape = numpy_helper.from_array(np.array([1, len(CLASSES), SIZE[0] // 2, SIZE[1] // 2]), "fixed")
    model.graph.initializer.append(shape)
    model.graph.node[2].output[0] = "unshaped"
    model.graph.node.append(helper.make_node("Reshape", ["unshaped", "fixed"], ["logits"]))


def hidden_classes(model: onnx.ModelProto) -> None:
    """The output leaves the number of classes open, and has others."""
    shape_of(model.graph.output[0]).dim[1].dim_param = "classes"
    model.graph.node[2].output[0] = "all"
    model.graph.node.append(helper.make_node("Concat", ["all", "all"], ["logits"], axis=1))


def nothing_left(model: onnx.ModelProto) -> None:
    """The output leaves its size open, and has no pixel."""
    for side in (2, 3):
        shape_of(model.graph.output[0]).dim[side].dim_param = f"side{side}"
    model.graph.node[2].output[0] = "all"
    for name, values in (("ends", [0, 0]), ("starts", [0, 0]), ("axes", [2, 3])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    model.graph.node.append(helper.make_node("Slice", ["all", "starts", "ends", "axes"], ["logits"]))


def not_a_number(model: onnx.ModelProto) -> None:
    model.graph.node[2].output[0] = "all"
    model.graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "nan"))
    model.graph.node.append(helper.make_node("Add", ["all", "nan"], ["logits"]))


def huge_tensor(model: onnx.ModelProto) -> None:
    model.graph.node[2].output[0] = "all"
    model.graph.initializer.append(numpy_helper.from_array(np.array([2_000_000, 2_000_000], np.int64), "shape"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["huge"]))
    model.graph.node.append(helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", ["all", "most"], ["logits"]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (rename_input, "input: expected 'pixel_values' alone, came 'image'"),
        (rename_output, "output: expected 'logits' alone, came 'out'"),
        (second_input, "input: expected 'pixel_values' alone, came 'pixel_values', 'mask'"),
        (second_output, "output: expected 'logits' alone, came 'logits', 'active'"),
        (less_rank, "came the shape batch x 3 x 48"),
        (other_type, "expected N x 3 x height x width float32, came uint8"),
        (set_side(0, 1), "expected any number of pictures at once, came 1 fixed"),
        (set_side(1, 4), "expected 3 channels (N x 3 x height x width float32), came the shape batch x 4 x 48 x 64"),
        (set_side(2, 33), "height: expected 48 pixels, as the checkpoint's pictures have, came 33"),
        (set_side(3, 512), "width: expected 64 pixels, as the checkpoint's pictures have, came 512"),
        (fixed_output_batch, "output logits: expected any number of pictures"),
        (more_classes, "expected 5 classes, as the checkpoint names, came 21"),
        (custom_operator, "the operator 'PyCode' is of the domain 'com.example.native'"),
        (unknown_operator, "cannot be loaded"),
        (future_opset, "cannot be loaded"),
        (hidden_batch, "2 x 3 x 48 x 64"),
        (hidden_classes, "expected 2 x 5 x h x w for two pictures and 5 classes, came 2 x 10 x 24 x 32"),
        (nothing_left, "expected 2 x 5 x h x w for two pictures and 5 classes, came 2 x 5 x 0 x 0"),
        (not_a_number, "output logits: expected finite numbers"),
        (huge_tensor, "needs more memory for two pictures than there is"),
    ],
)
def test_other_models_are_refused_with_the_reason(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    model = two_convolutions_onnx()
    change(model)
    with pytest.raises(InvalidRequestError) as failure:
        engine_of(written(tmp_path, model))
    assert reason in failure.value.message
    assert "model.onnx" in failure.value.message
    assert str(tmp_path) not in failure.value.message


def test_a_fixed_size_is_refused_where_pictures_differ(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="height: expected any, as pictures differ, came 48"):
        engine_of(written(tmp_path, two_convolutions_onnx()), None)
