"""Real exports of small networks, and files that were tampered with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers as tf
from onnx import numpy_helper
from torch import Tensor, nn

from segserve.errors import InvalidRequestError, TooLargeError
from segserve.export.exporter import OPSETS, read_metadata, write_onnx
from segserve.export.onnx_export import accept, export_onnx, verification_inputs
from segserve.models.semantic import Semantic
from segserve.models.semantic.checkpoint import Checkpoint, load_checkpoint
from segserve.training.scenes import make_scene

IMAGES = [make_scene(600_004_100 + number, (96, 128)).image for number in range(3)]


def prepared(folder: Path) -> tuple[Checkpoint, list[Tensor]]:
    checkpoint = load_checkpoint(folder)
    return checkpoint, [checkpoint.preprocessing(image) for image in IMAGES]


def test_a_checkpoint_of_transformers_becomes_a_verified_file(transformers_folder: Path, tmp_path: Path) -> None:
    """The predictor finds it in its folder, and both engines answer alike, at once and one by one."""
    folder = tmp_path / "model"
    shutil.copytree(transformers_folder, folder)
    export = export_onnx(folder, folder / "model.onnx", IMAGES)
    assert export.verification.passed
    predictor = Semantic.from_folder(folder, device="cpu", threads=1)
    assert predictor.engines == ("torch", "onnx")
    ours, theirs = (np.stack(predictor.logits(IMAGES, engine)) for engine in ("torch", "onnx"))
    assert np.ptp(ours) > 0.1
    assert np.abs(ours - theirs).max() < 1e-4 * np.ptp(ours)


def test_an_open_input_size_is_verified_at_several(transformers_folder: Path, tmp_path: Path) -> None:
    """Pictures of one shape, with a network whose export would hold for that shape alone."""
    folder = tmp_path / "model"
    shutil.copytree(transformers_folder, folder)
    tf.SegformerImageProcessor(size={"shortest_edge": 64}, do_center_crop=False).save_pretrained(folder)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.preprocessing.input_size is None
    shapes = {tuple(pixels.shape) for pixels in verification_inputs(checkpoint, IMAGES)}
    assert len(shapes) >= 3
    fixed = load_checkpoint(transformers_folder)
    assert {tuple(pixels.shape) for pixels in verification_inputs(fixed, IMAGES)} == {(3, 64, 64)}


def test_the_file_is_one_and_says_where_it_is_from(exported_folder: Path) -> None:
    metadata = read_metadata(exported_folder / "model.onnx")
    assert metadata["opset"] == "18"
    assert metadata["producer"].startswith(f"pytorch {torch.__version__.split('+')[0]}")
    assert json.loads(metadata["classes"]) == ["wall", "floor", "sofa", "lamp", "rug"]
    assert metadata["made_by"].startswith("segserve")
    report = json.loads((exported_folder / "model.export.json").read_text("utf-8"))
    assert report["opset"] == "18"
    assert report["verification"]["passed"] is True
    assert report["verification"]["batch_sizes"] == [1, 2, 4, 8]
    names = sorted(path.name for path in exported_folder.iterdir())
    assert names == ["config.json", "model.export.json", "model.onnx", "model.safetensors"]


def test_the_file_names_no_place_of_this_machine(exported_folder: Path) -> None:
    content = (exported_folder / "model.onnx").read_bytes()
    assert b"site-packages" not in content
    assert b'.py"' not in content


def test_the_batch_is_open_and_the_picture_is_not(exported_folder: Path) -> None:
    model = onnx.load(exported_folder / "model.onnx")
    (value,) = model.graph.input
    dimensions = value.type.tensor_type.shape.dim
    assert dimensions[0].dim_param
    assert [dimension.dim_value for dimension in dimensions[1:]] == [3, 64, 96]
    session = onnxruntime.InferenceSession(exported_folder / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"pixel_values": np.zeros((5, 3, 64, 96), np.float32)})
    assert logits.shape == (5, 5, 64, 96)


def tampered(model: onnx.ModelProto) -> None:
    """The biases of the last layers, by a thousandth: a look at the label maps would not show it."""
    biases = [tensor for tensor in model.graph.initializer if list(tensor.dims) == [5]]
    assert biases
    for tensor in biases:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values + np.float32([0.001, 0, 0, 0, 0]), tensor.name))


def test_a_tampered_weight_is_refused_and_the_old_file_stays(exported_folder: Path, tmp_path: Path) -> None:
    checkpoint, inputs = prepared(exported_folder)
    model = onnx.load(exported_folder / "model.onnx")
    tampered(model)
    candidate, out = tmp_path / "candidate.onnx", tmp_path / "model.onnx"
    onnx.save(model, candidate)
    out.write_bytes(b"the file before")
    with pytest.raises(InvalidRequestError, match=r"model.onnx is refused.*logits differ by up to 0\.00"):
        accept(checkpoint, candidate, out, inputs)
    assert out.read_bytes() == b"the file before"
    assert not (tmp_path / "model.export.json").exists()


def test_the_same_file_untouched_is_accepted(exported_folder: Path, tmp_path: Path) -> None:
    checkpoint, inputs = prepared(exported_folder)
    candidate, out = tmp_path / "candidate.onnx", tmp_path / "model.onnx"
    shutil.copy(exported_folder / "model.onnx", candidate)
    export = accept(checkpoint, candidate, out, inputs)
    assert out.read_bytes() == (exported_folder / "model.onnx").read_bytes()
    assert not candidate.exists()
    assert json.loads(export.report.read_text("utf-8"))["bytes"] == out.stat().st_size


def test_a_file_of_other_weights_is_refused(exported_folder: Path, tmp_path: Path) -> None:
    checkpoint, inputs = prepared(exported_folder)
    with torch.no_grad():
        for parameter in checkpoint.network.parameters():
            parameter.mul_(1.01)
    candidate = tmp_path / "candidate.onnx"
    shutil.copy(exported_folder / "model.onnx", candidate)
    with pytest.raises(InvalidRequestError, match="is refused"):
        accept(checkpoint, candidate, tmp_path / "model.onnx", inputs)


class Small(nn.Module):
    """One convolution and a resize, which is what the tests of the exporter itself need."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits: Tensor = nn.functional.interpolate(self.layer(pixel_values), scale_factor=0.5, mode="bilinear")
        return logits


@pytest.mark.parametrize("opset", [OPSETS.start, 20, OPSETS.stop - 1])
def test_the_opset_is_the_one_asked_for(opset: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.onnx"
    write_onnx(Small().eval(), torch.randn(3, 8, 8), file, opset=opset, metadata={"note": "mine"})
    assert read_metadata(file)["opset"] == str(opset)
    assert read_metadata(file)["note"] == "mine"
    assert capfd.readouterr() == ("", "")


def test_height_and_width_can_stay_open(tmp_path: Path) -> None:
    network, file = Small().eval(), tmp_path / "small.onnx"
    write_onnx(network, torch.randn(3, 8, 12), file, any_size=True)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    pixels = torch.randn(3, 3, 20, 14)
    (logits,) = session.run(None, {"pixel_values": pixels.numpy()})
    with torch.no_grad():
        assert np.allclose(logits, network(pixels).numpy(), atol=1e-6)


@pytest.mark.parametrize("opset", [17, 24, 0])
def test_opsets_out_of_range_are_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=f"opset: expected 18 to 23, came {opset}"):
        write_onnx(Small(), torch.randn(3, 8, 8), tmp_path / "small.onnx", opset=opset)


def test_a_network_that_the_exporter_cannot_follow_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Branching(Small):
        def forward(self, pixel_values: Tensor) -> Tensor:
            return super().forward(pixel_values if pixel_values.mean() > 0 else -pixel_values)

    with pytest.raises(InvalidRequestError, match="exporter cannot write this network") as refused:
        write_onnx(Branching().eval(), torch.randn(3, 8, 8), tmp_path / "small.onnx")
    assert "\n" not in refused.value.message
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_weights_that_no_onnx_file_can_hold_are_refused_before_they_are_exported(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = nn.Conv2d(3, 2**28, 1)
    with pytest.raises(TooLargeError, match="less than 2 GiB"):
        write_onnx(network, torch.randn(3, 8, 8), tmp_path / "large.onnx")
