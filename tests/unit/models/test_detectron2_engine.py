"""The engine detectron2: its checkpoint folders (which need no detectron2), and its answers.

Where detectron2 is installed, its recorded answers are asked of it again. Elsewhere a stand-in has its interface, which
shows that the engine asks and reads it as it should, but nothing about detectron2's own arithmetic.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.models.device import choose_placement
from segserve.models.mask_rcnn import MaskRcnn, MaskRcnnParameters
from segserve.models.mask_rcnn.checkpoint import load_checkpoint
from segserve.models.mask_rcnn.detectron2_checkpoint import (
    convert,
    convert_for_detectron2,
    network_from_detectron2,
    read_tensors,
)
from segserve.models.mask_rcnn.detectron2_engine import Detectron2MaskRcnn

from . import detectron2_stand_in
from .detectron2_files import SMALL_ARCHITECTURE, random_network, tensors_of, write_config, write_pth
from .golden import CONFIG, LABELS, WEIGHTS, as_tuples, difference, golden

ANYWAY = MaskRcnnParameters()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of the golden model for the engine detectron2."""
    folder = tmp_path_factory.mktemp("detectron2") / "shapes"
    assert convert_for_detectron2(WEIGHTS, CONFIG, LABELS, folder) == folder
    return folder


# ---- checkpoint folders


def test_a_folder_holds_labels_configuration_and_safe_tensors(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"config.json", "config.yaml", "model.safetensors"}
    assert json.loads((folder / "config.json").read_text("utf-8")) == {
        "model_type": "mask_rcnn",
        "format": "detectron2",
        "classes": list(LABELS),
    }
    tensors = load_file(folder / "model.safetensors")
    given = read_tensors(WEIGHTS)
    assert {name for name in given if not name.endswith("num_batches_tracked")} == tensors.keys()
    assert all(torch.equal(tensors[name], given[name]) for name in tensors)
    written = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    full = yaml.safe_load(CONFIG.read_text("utf-8"))
    # Nothing of the training, nor of the machine that it ran on.
    assert written.keys() == {"VERSION", "MODEL", "INPUT", "TEST"}
    assert written["INPUT"] == full["INPUT"]
    assert written["MODEL"] == {key: full["MODEL"][key] for key in full["MODEL"] if key not in ("WEIGHTS", "DEVICE")}


REFUSED_ELSEWHERE: list[dict[str, Any]] = [
    {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True},
    {"MODEL.BACKBONE.NAME": "build_resnet_backbone", "MODEL.ROI_HEADS.NAME": "Res5ROIHeads"},
    {"MODEL.META_ARCHITECTURE": "PanopticFPN"},
    {"MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, True, True, True]},
    {"MODEL.FPN.FUSE_TYPE": "avg"},
]


@pytest.mark.parametrize("changes", REFUSED_ELSEWHERE, ids=lambda changes: ",".join(changes))
def test_what_the_engine_torchvision_refuses_can_be_converted(tmp_path: Path, changes: dict[str, Any]) -> None:
    tensors = tensors_of(random_network(SMALL_ARCHITECTURE))
    weights, config = write_pth(tmp_path / "a.pth", tensors), write_config(tmp_path, changes)
    with pytest.raises(InvalidRequestError, match="--engine detectron2"):
        convert(weights, config, None, tmp_path / "torchvision")
    assert not (tmp_path / "torchvision").exists()
    made = convert_for_detectron2(weights, config, None, tmp_path / "detectron2")
    written = yaml.safe_load((made / "config.yaml").read_text("utf-8"))
    for name, value in changes.items():
        node = written
        for part in name.split("."):
            node = node[part]
        assert node == value


def test_bases_are_merged_into_a_folders_configuration(tmp_path: Path) -> None:
    write_config(tmp_path, name="base.yaml")
    config = tmp_path / "config.yaml"
    config.write_text("_BASE_: base.yaml\nMODEL:\n  WEIGHTS: /home/me/R-50.pkl\n  RESNETS: {DEPTH: 101}\n", "utf-8")
    weights = write_pth(tmp_path / "a.pth", tensors_of(random_network(SMALL_ARCHITECTURE)))
    text = (convert_for_detectron2(weights, config, None, tmp_path / "out") / "config.yaml").read_text("utf-8")
    assert "_BASE_" not in text
    assert "/home/me" not in text
    assert yaml.safe_load(text)["MODEL"]["RESNETS"]["DEPTH"] == 101
    assert yaml.safe_load(text)["MODEL"]["RESNETS"]["STEM_OUT_CHANNELS"] == 8


@pytest.mark.parametrize(
    ("changes", "labels", "message"),
    [
        ({"MODEL.MASK_ON": False}, None, r"MODEL\.MASK_ON: expected true"),
        ({"INPUT.FORMAT": "L"}, None, r"INPUT\.FORMAT: expected"),
        ({}, ["a"], "expected 3 labels"),
    ],
)
def test_what_this_engine_cannot_serve_either(
    tmp_path: Path, changes: dict[str, Any], labels: list[str] | None, message: str
) -> None:
    weights = write_pth(tmp_path / "a.pth", tensors_of(random_network(SMALL_ARCHITECTURE)))
    with pytest.raises(InvalidRequestError, match=message):
        convert_for_detectron2(weights, write_config(tmp_path, changes), labels, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_engines_do_not_take_each_others_folders(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidRequestError, match="for the engine detectron2"):
        load_checkpoint(folder)
    stand_in(monkeypatch, [])
    own = convert(WEIGHTS, CONFIG, LABELS, tmp_path / "own")
    with pytest.raises(NotFoundError, match=r"own has no config\.yaml"):
        Detectron2MaskRcnn.from_folder(own, device="cpu")
    (own / "config.yaml").write_bytes(CONFIG.read_bytes())
    with pytest.raises(InvalidRequestError, match="--engine detectron2"):
        Detectron2MaskRcnn.from_folder(own, device="cpu")


# ---- without the package


def test_without_detectron2_it_says_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(InvalidRequestError) as refused:
        Detectron2MaskRcnn.from_folder(folder, device="cpu")
    assert "pip install" in refused.value.message
    assert "github.com/facebookresearch/detectron2" in refused.value.message
    assert "engine torchvision" in refused.value.message


# ---- against the stand-in


def stand_in(
    monkeypatch: pytest.MonkeyPatch, built: list[nn.Module], config: Path = CONFIG, masks: bool = True
) -> None:
    for name, module in detectron2_stand_in.modules(config, built.append, masks).items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Detectron2MaskRcnn:
    stand_in(monkeypatch, [])
    return Detectron2MaskRcnn.from_folder(folder, device="cpu")


def test_it_asks_and_reads_detectron2_as_it_should(engine: Detectron2MaskRcnn) -> None:
    assert engine.classes == LABELS
    answers = engine.predict([each.image for each in golden()], [ANYWAY] * len(golden()))
    for expected, answer in zip(golden(), answers, strict=True):
        found = difference(expected, answer)
        assert found.score <= 2e-3
        assert found.box <= 0.2
        assert found.mask_iou >= 0.99


def test_each_picture_has_parameters_of_its_own(engine: Detectron2MaskRcnn) -> None:
    other = MaskRcnn(network_from_detectron2(WEIGHTS, CONFIG, LABELS), choose_placement("cpu"))
    images = [golden()[0].image] * 6
    prompts = [
        ANYWAY,
        MaskRcnnParameters(score_threshold=0.5),
        MaskRcnnParameters(score_threshold=0.01),
        MaskRcnnParameters(nms_iou=0.1, score_threshold=0.2),
        MaskRcnnParameters(max_instances=2),
        MaskRcnnParameters(refine="polygon"),
    ]
    answers = engine.predict(images, prompts)
    assert len({len(each.instances) for each in answers}) >= 4
    for prompt, answer in zip(prompts, answers, strict=True):
        alone = other.predict([images[0]], [prompt])[0]
        assert len(answer.instances) == len(alone.instances)
        for one, same in zip(as_tuples(answer), as_tuples(alone), strict=True):
            assert one[0] == same[0]
            assert one[1] == pytest.approx(same[1], abs=1e-4)
            assert one[2] == pytest.approx(same[2], abs=1e-2)


def test_pictures_run_together_only_when_that_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    stand_in(monkeypatch, built)
    engine = Detectron2MaskRcnn.from_folder(folder, device="cpu")
    large, small = golden()[1].image, golden()[2].image
    assert large.shape != small.shape
    prompts = [ANYWAY, ANYWAY, MaskRcnnParameters(score_threshold=0.9), MaskRcnnParameters(nms_iou=0.3)]
    built[0].batches.clear()
    engine.predict([large, small, large, large], prompts)
    assert sorted(built[0].batches) == [1, 1, 2]


def test_a_model_without_masks_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, [], masks=False)
    with pytest.raises(InvalidRequestError, match="boxes but no masks"):
        Detectron2MaskRcnn.from_folder(folder, device="cpu")


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deeper = yaml.safe_load(CONFIG.read_text("utf-8"))
    deeper["MODEL"]["RESNETS"]["DEPTH"] = 101
    (tmp_path / "deeper.yaml").write_text(yaml.safe_dump(deeper), "utf-8")
    stand_in(monkeypatch, [], tmp_path / "deeper.yaml")
    with pytest.raises(InvalidRequestError, match=r"lacks tensors .*res4\.10"):
        Detectron2MaskRcnn.from_folder(folder, device="cpu")
    deeper["MODEL"]["RESNETS"] |= {"DEPTH": 50, "STEM_OUT_CHANNELS": 32}
    (tmp_path / "deeper.yaml").write_text(yaml.safe_dump(deeper), "utf-8")
    with pytest.raises(InvalidRequestError, match="detectron2 cannot build this model"):
        Detectron2MaskRcnn.from_folder(folder, device="cpu")


def test_settings_of_an_extension_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, [])
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    tree = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    tree["MODEL"]["VOVNET"] = {"NAME": "V-39"}
    tree["TEST"]["OF_ANOTHER_VERSION"] = True
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree), "utf-8")
    with pytest.raises(InvalidRequestError, match=r"MODEL\.VOVNET: the installed detectron2 has no such setting"):
        Detectron2MaskRcnn.from_folder(tmp_path, device="cpu")


def test_inputs_are_checked_as_the_other_engine_does(engine: Detectron2MaskRcnn) -> None:
    with pytest.raises(InvalidRequestError, match="prompts: expected 1"):
        engine.predict([golden()[0].image], [])
    with pytest.raises(InvalidRequestError, match="H x W x 3"):
        engine.predict([golden()[0].image[..., 0]], [ANYWAY])
    assert engine.predict([], []) == []


# ---- against detectron2 itself


def installed() -> None:
    pytest.importorskip("detectron2", reason="detectron2 is not installed: its own answers are not asked again")


def test_detectron2_itself_gives_its_recorded_answers(folder: Path) -> None:
    installed()
    engine = Detectron2MaskRcnn.from_folder(folder, device="cpu")
    answers = engine.predict([each.image for each in golden()], [ANYWAY] * len(golden()))
    for expected, answer in zip(golden(), answers, strict=True):
        found = difference(expected, answer)
        assert found.score <= 2e-3
        assert found.box <= 0.2
        assert found.mask_iou >= 0.99


def test_detectron2_itself_takes_each_pictures_parameters(folder: Path) -> None:
    installed()
    engine = Detectron2MaskRcnn.from_folder(folder, device="cpu")
    own = MaskRcnn(network_from_detectron2(WEIGHTS, CONFIG, LABELS), choose_placement("cpu"))
    prompts = [ANYWAY, MaskRcnnParameters(score_threshold=0.5), MaskRcnnParameters(nms_iou=0.1, max_instances=3)]
    images = [golden()[0].image] * len(prompts)
    for one, other in zip(engine.predict(images, prompts), own.predict(images, prompts), strict=True):
        assert [each.label for each in one.instances] == [each.label for each in other.instances]
