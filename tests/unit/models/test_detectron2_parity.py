"""A detectron2 checkpoint answers here as in detectron2 (tests/data/detectron2/README.md says what that means)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segserve.models.device import choose_placement
from segserve.models.mask_rcnn import MaskRcnn, MaskRcnnParameters
from segserve.models.mask_rcnn.detectron2_checkpoint import convert, network_from_detectron2, read_tensors

from .golden import CONFIG, LABELS, WEIGHTS, Difference, Golden, difference, golden

ANYWAY = MaskRcnnParameters()


@pytest.fixture(scope="module")
def model() -> MaskRcnn:
    return MaskRcnn(network_from_detectron2(WEIGHTS, CONFIG, LABELS), choose_placement("cpu"))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "shapes"
    assert convert(WEIGHTS, CONFIG, LABELS, folder) == folder
    return folder


def check(found: Difference) -> None:
    assert found.score <= 2e-3
    assert found.box <= 0.2
    assert found.mask_iou >= 0.99


@pytest.mark.parametrize("expected", golden(), ids=lambda each: each.name)
def test_a_picture_alone(model: MaskRcnn, expected: Golden) -> None:
    check(difference(expected, model.predict([expected.image], [ANYWAY])[0]))


def test_all_pictures_in_one_batch(model: MaskRcnn) -> None:
    assert len({each.image.shape for each in golden()}) > 1, "the batch is mixed"
    answers = model.predict([each.image for each in golden()], [ANYWAY] * len(golden()))
    for expected, answer in zip(golden(), answers, strict=True):
        check(difference(expected, answer))


def test_through_a_converted_checkpoint_folder(converted: Path) -> None:
    assert {path.name for path in converted.iterdir()} == {"config.json", "model.safetensors"}
    loaded = MaskRcnn.from_folder(converted, device="cpu")
    assert loaded.classes == LABELS
    answers = loaded.predict([each.image for each in golden()], [ANYWAY] * len(golden()))
    for expected, answer in zip(golden(), answers, strict=True):
        check(difference(expected, answer))


def test_it_is_far_closer_than_parity_asks(model: MaskRcnn) -> None:
    """So that a small mistake (a half pixel, a rounding) does not hide within the tolerance."""
    for expected in golden():
        found = difference(expected, model.predict([expected.image], [ANYWAY])[0], least_score=0.06)
        assert found.score <= 1e-4
        assert found.box <= 5e-3
        assert found.mask_iou >= 0.999


def test_the_instances_come_in_detectron2s_order(model: MaskRcnn) -> None:
    for expected in golden():
        answer = model.predict([expected.image], [ANYWAY])[0]
        assert [each.label for each in answer.instances] == [LABELS[each["category_id"]] for each in expected.instances]


def test_every_tensor_of_the_checkpoint_is_used(converted: Path) -> None:
    config = json.loads((converted / "config.json").read_text("utf-8"))
    assert config["classes"] == list(LABELS)
    network = network_from_detectron2(WEIGHTS, CONFIG, LABELS)
    state = network.state_dict()
    tensors = read_tensors(WEIGHTS)
    assert len(tensors) == 360
    for name, tensor in tensors.items():
        assert torch.equal(state[name], tensor), name


def test_detectron2_is_not_imported() -> None:
    """The engine torchvision needs no detectron2, whether it is installed or not."""
    code = (
        "import sys; sys.modules['detectron2'] = None\n"
        "from pathlib import Path\n"
        "from segserve.models.mask_rcnn.detectron2_checkpoint import network_from_detectron2\n"
        f"network_from_detectron2(Path({str(WEIGHTS)!r}), Path({str(CONFIG)!r}), None)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
