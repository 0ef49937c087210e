"""Reading detectron2's configurations: every setting that an answer depends on is represented or refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.models.mask_rcnn.architecture import Architecture
from segserve.models.mask_rcnn.detectron2_config import read_config
from segserve.models.mask_rcnn.detectron2_settings import DEFAULTS, Settings

from .detectron2_files import SMALL_ARCHITECTURE, changed, write_config
from .golden import CONFIG, LABELS

A = SMALL_ARCHITECTURE
assert not isinstance(A.backbone, str)


def test_a_partial_file_and_detectron2s_defaults(tmp_path: Path) -> None:
    assert read_config(write_config(tmp_path)) == A


def test_a_full_dump() -> None:
    read = read_config(CONFIG, LABELS)
    assert read.classes == LABELS
    assert not isinstance(read.backbone, str)
    assert (read.backbone.stem_channels, read.backbone.res2_channels, read.backbone.width_per_group) == (16, 64, 16)
    assert (read.backbone.norm, read.backbone.stride_in_1x1) == ("BN", False)
    assert (read.input.min_size, read.input.max_size) == (320, 533)
    assert read.input.pixel_std == (57.375, 57.12, 58.395)
    assert (read.proposals.pre_nms, read.box_head.layer_channels, read.mask_head.conv_channels) == (1000, 128, 64)


def test_every_setting_that_is_read_is_one_of_detectron2s() -> None:
    """A misspelled name would silently have its default."""
    dump = yaml.safe_load(CONFIG.read_text("utf-8"))
    for name, default in DEFAULTS.items():
        node = dump
        for part in name.split("."):
            assert part in node, name
            node = node[part]
        value = tuple(node) if isinstance(node, list) else node
        assert isinstance(value, type(default)) or {type(value), type(default)} == {int, float}, name


def test_the_defaults_are_detectron2s() -> None:
    """As far as the golden training left them alone."""
    dump = Settings.from_file(CONFIG)
    untouched = [
        *("MODEL.RESNETS.DEPTH", "MODEL.RESNETS.NUM_GROUPS", "MODEL.RESNETS.RES5_DILATION", "MODEL.FPN.FUSE_TYPE"),
        *("MODEL.FPN.NORM", "MODEL.ANCHOR_GENERATOR.OFFSET", "MODEL.RPN.NMS_THRESH", "MODEL.RPN.POST_NMS_TOPK_TEST"),
        *("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", "MODEL.ROI_BOX_HEAD.NUM_CONV"),
        *("MODEL.ROI_HEADS.NMS_THRESH_TEST", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "TEST.DETECTIONS_PER_IMAGE"),
        *("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", "MODEL.ROI_BOX_HEAD.CONV_DIM", "INPUT.FORMAT"),
    ]
    for name in untouched:
        assert dump.get(name) == DEFAULTS[name], name
    for name in ("MODEL.RPN.BBOX_REG_WEIGHTS", "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "MODEL.PIXEL_MEAN"):
        assert tuple(dump.get(name)) == DEFAULTS[name], name


REPRESENTED: list[tuple[dict[str, Any], Architecture]] = [
    ({"MODEL.RESNETS.DEPTH": 101}, replace(A, backbone=replace(A.backbone, depth=101))),
    ({"MODEL.RESNETS.DEPTH": "152"}, replace(A, backbone=replace(A.backbone, depth=152))),
    (
        {"MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64},
        replace(A, backbone=replace(A.backbone, depth=18, res2_channels=64)),
    ),
    (
        {"MODEL.RESNETS.NUM_GROUPS": 32, "MODEL.RESNETS.STRIDE_IN_1X1": False},
        replace(A, backbone=replace(A.backbone, groups=32, stride_in_1x1=False)),
    ),
    *(
        ({"MODEL.RESNETS.NORM": name}, replace(A, backbone=replace(A.backbone, norm=norm)))
        for name, norm in (("SyncBN", "BN"), ("nnSyncBN", "BN"), ("naiveSyncBN", "BN"), ("GN", "GN"), ("LN", "LN"))
    ),
    ({"MODEL.FPN.NORM": "GN", "MODEL.FPN.OUT_CHANNELS": 32}, replace(A, pyramid_norm="GN", pyramid_channels=32)),
    (
        {"INPUT.FORMAT": "RGB", "MODEL.PIXEL_MEAN": "[123.675, 116.28, 103.53]", "INPUT.MIN_SIZE_TEST": 0},
        replace(A, input=replace(A.input, channel_order="RGB", pixel_mean=(123.675, 116.28, 103.53), min_size=0)),
    ),
    (
        {"MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64]], "MODEL.ANCHOR_GENERATOR.OFFSET": 0.5},
        replace(A, proposals=replace(A.proposals, anchor_sizes=((32.0, 64.0),) * 5, anchor_offset=0.5)),
    ),
    (
        {"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [1.0, 3.0]},
        replace(A, proposals=replace(A.proposals, aspect_ratios=((1.0, 3.0),) * 5)),
    ),
    (
        {"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0], [2.0], [0.5], [1.0], [1.5]]},
        replace(A, proposals=replace(A.proposals, aspect_ratios=((1.0,), (2.0,), (0.5,), (1.0,), (1.5,)))),
    ),
    # -1: as many channels as come in, which is not the pyramid's number after the first.
    ({"MODEL.RPN.CONV_DIMS": [-1, 24, -1]}, replace(A, proposals=replace(A.proposals, channels=(16, 24, 24)))),
    (
        {"MODEL.RPN.BBOX_REG_WEIGHTS": "(2.0, 2.0, 1.0, 1.0)", "MODEL.RPN.NMS_THRESH": 0.6},
        replace(A, proposals=replace(A.proposals, box_weights=(2.0, 2.0, 1.0, 1.0), nms_iou=0.6)),
    ),
    (
        {
            "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
            "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
            "MODEL.ROI_BOX_HEAD.CONV_DIM": 32,
            "MODEL.ROI_BOX_HEAD.NORM": "GN",
            "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
            "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [20, 20, 10, 10],
        },
        replace(
            A,
            box_head=replace(
                A.box_head,
                convolutions=4,
                layers=1,
                conv_channels=32,
                norm="GN",
                class_agnostic=True,
                box_weights=(20.0, 20.0, 10.0, 10.0),
            ),
        ),
    ),
    (
        {"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign", "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2},
        replace(A, box_head=replace(A.box_head, aligned=False, sampling_ratio=2)),
    ),
    (
        {
            "MODEL.ROI_MASK_HEAD.NORM": "GN",
            "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
            "MODEL.ROI_MASK_HEAD.NUM_CONV": 8,
            "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True,
            "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 28,
        },
        replace(
            A,
            mask_head=replace(
                A.mask_head, norm="GN", conv_channels=32, convolutions=8, class_agnostic=True, resolution=28
            ),
        ),
    ),
    (
        {
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.7,
            "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.3,
            "TEST.DETECTIONS_PER_IMAGE": 300,
        },
        replace(A, box_head=replace(A.box_head, score_threshold=0.7, nms_iou=0.3, max_instances=300)),
    ),
    # Without effect on answers.
    (
        {
            "MODEL.BACKBONE.FREEZE_AT": 0,
            "MODEL.RPN.LOSS_WEIGHT": 3.0,
            "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": True,
            "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True,
            "MODEL.RETINANET.NUM_CLASSES": 7,
            "MODEL.VOVNET.NAME": "of another backbone",
            "MODEL.DEVICE": "cuda",
            "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON": False,
            "SOLVER.STEPS": "(60000, 80000)",
            "FLOAT32_PRECISION": "",
            "TEST.AUG.ENABLED": True,
        },
        A,
    ),
]


@pytest.mark.parametrize(
    ("changes", "expected"), REPRESENTED, ids=lambda value: "+".join(value)[:70] if isinstance(value, dict) else ""
)
def test_represented(tmp_path: Path, changes: dict[str, Any], expected: Architecture) -> None:
    assert read_config(write_config(tmp_path, changes)) == expected


UNSUPPORTED: list[tuple[str, Any]] = [
    ("MODEL.META_ARCHITECTURE", "RetinaNet"),
    ("MODEL.META_ARCHITECTURE", "PanopticFPN"),
    ("MODEL.META_ARCHITECTURE", "SemanticSegmentor"),
    ("MODEL.BACKBONE.NAME", "build_resnet_backbone"),
    ("MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone"),
    ("MODEL.BACKBONE.NAME", "build_vovnet_fpn_backbone"),
    ("MODEL.RESNETS.DEPTH", 77),
    ("MODEL.RESNETS.NORM", "CycleBN"),
    ("MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"]),
    ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True]),
    ("MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"]),
    ("MODEL.FPN.FUSE_TYPE", "avg"),
    ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"),
    ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"),
    ("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 4),
    ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"),
    ("MODEL.RPN.HEAD_NAME", "MyHead"),
    ("MODEL.RPN.IN_FEATURES", ["res4"]),
    ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
    ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads"),
    ("MODEL.ROI_HEADS.NAME", "RROIHeads"),
    ("MODEL.ROI_HEADS.NAME", "PointRendROIHeads"),
    ("MODEL.ROI_HEADS.IN_FEATURES", ["res4"]),
    ("MODEL.ROI_BOX_HEAD.NAME", ""),
    ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool"),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated"),
    ("MODEL.ROI_MASK_HEAD.NAME", "PointRendMaskHead"),
    ("MODEL.ROI_MASK_HEAD.NAME", "CoarseMaskHead"),
    ("MODEL.ROI_MASK_HEAD.POOLER_TYPE", ""),
    ("MODEL.MASK_ON", False),
    ("MODEL.KEYPOINT_ON", True),
    ("MODEL.LOAD_PROPOSALS", True),
    ("INPUT.FORMAT", "L"),
    ("TEST.DETECTIONS_PER_IMAGE", -1),
    # Of extensions.
    ("MODEL.ROI_MASK_HEAD.POINT_HEAD_ON", True),
    ("MODEL.ROI_HEADS.SOFT_NMS_ENABLED", True),
]


@pytest.mark.parametrize(("name", "value"), UNSUPPORTED)
def test_what_the_engine_cannot_run_is_refused_by_name(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read_config(write_config(tmp_path, {name: value}))
    assert refused.value.message.startswith(f"{name}: ")
    assert "--engine detectron2" in refused.value.message


def test_a_file_of_the_zoo_for_boxes_only_says_that_masks_are_missing(tmp_path: Path) -> None:
    """MASK_ON is false by default."""
    tree = changed({})
    del tree["MODEL"]["MASK_ON"]
    file = tmp_path / "faster_rcnn.yaml"
    file.write_text(yaml.safe_dump(tree), "utf-8")
    with pytest.raises(InvalidRequestError, match=r"MODEL\.MASK_ON: False"):
        read_config(file)


MALFORMED: list[tuple[str, Any, str]] = [
    ("MODEL.RESNETS.WIDTH_PER_GROUP", "wide", "a whole number"),
    ("MODEL.RESNETS.WIDTH_PER_GROUP", True, "a whole number"),
    ("MODEL.RESNETS.STEM_OUT_CHANNELS", 10**9, "1 to 65536"),
    ("MODEL.RESNETS.STRIDE_IN_1X1", 1, "true or false"),
    ("MODEL.RESNETS.RES5_DILATION", 2, "twice the stride"),
    ("MODEL.PIXEL_MEAN", [1.0, 2.0], "3 numbers"),
    ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0], "above 0"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32]], "5 such lists"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32], [64], [128], [256, 512]], "every level"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", "large", "a list of numbers"),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5, -1.0]], "above 0"),
    ("MODEL.ANCHOR_GENERATOR.OFFSET", 1.0, "below 1"),
    ("MODEL.RPN.CONV_DIMS", [], "a list of channels"),
    ("MODEL.RPN.CONV_DIMS", [64, 0], "1 or more"),
    ("MODEL.RPN.NMS_THRESH", 1.5, "0 to 1"),
    ("MODEL.ROI_BOX_HEAD.NUM_FC", 0, "1 or more"),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", [10.0, 10.0], "4 numbers"),
    ("MODEL.ROI_HEADS.NUM_CLASSES", 0, "1 to"),
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", float("nan"), "0 to 1"),
    ("TEST.DETECTIONS_PER_IMAGE", 0, "1 to"),
]


@pytest.mark.parametrize(("name", "value", "expected"), MALFORMED)
def test_malformed_settings_are_refused_by_name(tmp_path: Path, name: str, value: Any, expected: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read_config(write_config(tmp_path, {name: value}))
    assert refused.value.message.startswith(f"{name}: expected ")
    assert expected in refused.value.message
    assert len(refused.value.message) < 400


def test_r18_has_the_width_that_detectron2_asks_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"RES2_OUT_CHANNELS: expected 64"):
        read_config(write_config(tmp_path, {"MODEL.RESNETS.DEPTH": 18}))


# ---- labels


def test_labels_are_numbered_without_names(tmp_path: Path) -> None:
    assert read_config(write_config(tmp_path)).classes == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize("trained_on", ['("coco_2017_train",)', ["coco_2014_train", "coco_2014_valminusminival"]])
def test_models_trained_on_coco_have_cocos_labels(tmp_path: Path, trained_on: Any) -> None:
    changes = {"DATASETS.TRAIN": trained_on, "MODEL.ROI_HEADS.NUM_CLASSES": 80}
    classes = read_config(write_config(tmp_path, changes)).classes
    assert len(set(classes)) == 80
    assert (classes[0], classes[2], classes[56], classes[79]) == ("person", "car", "chair", "toothbrush")


@pytest.mark.parametrize("trained_on", ["balloon_train", "coco_like_train", ""])
def test_other_models_of_80_classes_do_not(tmp_path: Path, trained_on: str) -> None:
    changes = {"DATASETS.TRAIN": [trained_on], "MODEL.ROI_HEADS.NUM_CLASSES": 80}
    assert read_config(write_config(tmp_path, changes)).classes[79] == "class 79"


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["a", "b"], "expected 3"), (["a", "b", "c", "d"], "came 4"), (["a", "b", "a"], "'a' is there twice")],
)
def test_labels_that_do_not_fit(tmp_path: Path, labels: list[str], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        read_config(write_config(tmp_path), labels)


# ---- files


def test_bases_lie_under_a_file_and_their_own_bases_under_them(tmp_path: Path) -> None:
    (tmp_path / "configs" / "coco").mkdir(parents=True)
    write_config(tmp_path / "configs", {"MODEL.RESNETS.DEPTH": 101}, "grandparent.yaml")
    middle = {"_BASE_": "../grandparent.yaml", "MODEL": {"RESNETS": {"NORM": "GN"}, "FPN": {"OUT_CHANNELS": 32}}}
    (tmp_path / "configs" / "coco" / "parent.yaml").write_text(yaml.safe_dump(middle), "utf-8")
    child = tmp_path / "configs" / "coco" / "child.yaml"
    child.write_text("_BASE_: parent.yaml\nMODEL:\n  FPN:\n    OUT_CHANNELS: 64\n", "utf-8")
    read = read_config(child)
    assert not isinstance(read.backbone, str)
    assert (read.backbone.depth, read.backbone.norm, read.pyramid_channels) == (101, "GN", 64)


def test_a_base_may_lie_beside_the_file(tmp_path: Path) -> None:
    write_config(tmp_path, name="Base-RCNN-FPN.yaml")
    file = tmp_path / "mask_rcnn.yaml"
    file.write_text("_BASE_: ../Base-RCNN-FPN.yaml\nMODEL:\n  RESNETS:\n    DEPTH: 101\n", "utf-8")
    read = read_config(file)
    assert not isinstance(read.backbone, str)
    assert read.backbone.depth == 101


@pytest.mark.parametrize("base", ["../Base-RCNN-FPN.yaml", "https://example.org/Base-RCNN-FPN.yaml"])
def test_a_missing_base_is_named(tmp_path: Path, base: str) -> None:
    file = tmp_path / "mask_rcnn.yaml"
    file.write_text(f"_BASE_: {base}\nMODEL: {{}}\n", "utf-8")
    with pytest.raises(NotFoundError, match=r"put Base-RCNN-FPN\.yaml beside mask_rcnn\.yaml"):
        read_config(file)


def test_files_based_on_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("_BASE_: b.yaml\nMODEL: {}\n", "utf-8")
    (tmp_path / "b.yaml").write_text("_BASE_: a.yaml\nMODEL: {}\n", "utf-8")
    with pytest.raises(InvalidRequestError, match="based on each other"):
        read_config(tmp_path / "a.yaml")


def test_a_base_on_which_a_section_becomes_a_value(tmp_path: Path) -> None:
    write_config(tmp_path, name="base.yaml")
    (tmp_path / "a.yaml").write_text("_BASE_: base.yaml\nMODEL:\n  RESNETS: 3\n", "utf-8")
    with pytest.raises(InvalidRequestError, match=r"MODEL\.RESNETS: expected a section"):
        read_config(tmp_path / "a.yaml")


def test_tuples_of_older_dumps(tmp_path: Path) -> None:
    text = yaml.safe_dump(changed({}))
    text += "DATASETS:\n  TRAIN: !!python/tuple [coco_2017_train]\n"
    file = tmp_path / "config.yaml"
    file.write_text(text.replace("NUM_CLASSES: 3", "NUM_CLASSES: 80"), "utf-8")
    assert read_config(file).classes[0] == "person"


@pytest.mark.parametrize("tag", ["apply:eval", "apply:os.system", "object:os.system", "name:os.system", "module:os"])
def test_yaml_that_would_run_code_is_refused_by_name(tmp_path: Path, tag: str) -> None:
    mark = tmp_path / "mark"
    kind = tag if tag.startswith(("name", "module")) else f"object/{tag}".replace("object/object:", "object:")
    value = f"!!python/{kind}" + ("" if tag.startswith(("name", "module")) else f" [\"open({str(mark)!r}, 'w')\"]")
    if tag == "apply:os.system":
        value = f'!!python/object/apply:os.system ["touch {mark}"]'
    file = write_config(tmp_path)
    file.write_text(file.read_text("utf-8") + f"SOLVER:\n  STEPS: {value}\n", "utf-8")
    with pytest.raises(InvalidRequestError, match=rf"config\.yaml, line \d+: !!python/{kind} would run code"):
        read_config(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the YAML configuration"),
        (b"MODEL: [", "expected the YAML configuration"),
        (b"- 1\n- 2\n", "expected the YAML configuration"),
        (b"\x80\x02\xff", "expected the YAML configuration"),
        (b"MODEL: 3\n", "with a section MODEL"),
        (b"colors: {a: b}\n", "with a section MODEL"),
        (b"VERSION: 1\nMODEL: {}\n", "expected VERSION 2"),
        (b"MODEL: {WEIGHT: x.pkl}\n", "before detectron2's release"),
        (b"model:\n  _target_: detectron2.modeling.GeneralizedRCNN\n", "LazyConfig"),
        (b"_BASE_: 3\nMODEL: {}\n", "expected the name of a file"),
        (b"MODEL: " + b"[" * 5000, "expected the YAML configuration"),
        (b"x: " + b"y" * 2**21, "at most"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(InvalidRequestError, match=message) as refused:
        read_config(file)
    assert str(tmp_path) not in refused.value.message


def test_yaml_that_unfolds_to_billions_is_no_load(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    file = write_config(tmp_path)
    file.write_text("\n".join(lines) + "\n" + file.read_text("utf-8").replace("DEPTH", "X") + "INPUT2: *a11\n", "utf-8")
    assert read_config(file) == A
    text = file.read_text("utf-8").replace("STEM_OUT_CHANNELS: 8", "STEM_OUT_CHANNELS: *a11")
    file.write_text(text, "utf-8")
    with pytest.raises(InvalidRequestError, match="STEM_OUT_CHANNELS: expected a whole number"):
        read_config(file)


def test_missing_and_lazy_files(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no configuration gone\.yaml"):
        read_config(tmp_path / "gone.yaml")
    lazy = tmp_path / "mask_rcnn_fpn.py"
    lazy.write_text("raise SystemExit('run')\n", "utf-8")
    with pytest.raises(InvalidRequestError, match="LazyConfig"):
        read_config(lazy)
