"""detectron2's YAML configurations: reading them, and what they leave out.

A configuration is a tree of settings, as yacs reads it: a full dump, or a few settings on top of a ``_BASE_`` file.
Nothing in it is ever run.
"""

from __future__ import annotations

import ast
import copy
import reprlib
from pathlib import Path
from typing import Any, NoReturn

import yaml

from segserve.errors import InvalidRequestError, NotFoundError

ADVICE = "Archive it with the engine detectron2 instead (--engine detectron2)."

DEFAULTS: dict[str, Any] = {
    "VERSION": 2,
    "INPUT.FORMAT": "BGR",
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "DATASETS.TRAIN": (),
    "TEST.DETECTIONS_PER_IMAGE": 100,
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.MASK_ON": False,
    "MODEL.KEYPOINT_ON": False,
    "MODEL.LOAD_PROPOSALS": False,
    "MODEL.PIXEL_MEAN": (103.53, 116.28, 123.675),
    "MODEL.PIXEL_STD": (1.0, 1.0, 1.0),
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.OUT_FEATURES": ("res4",),
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 64,
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": (False, False, False, False),
    "MODEL.FPN.IN_FEATURES": (),
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.FPN.NORM": "",
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 0,
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.SIZES": ((32, 64, 128, 256, 512),),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": ((0.5, 1.0, 2.0),),
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.RPN.HEAD_NAME": "StandardRPNHead",
    "MODEL.RPN.IN_FEATURES": ("res4",),
    "MODEL.RPN.BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.RPN.CONV_DIMS": (-1,),
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_HEADS.IN_FEATURES": ("res4",),
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_BOX_HEAD.NAME": "",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 0,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False,
}
"""The settings that an answer depends on, with their values in detectron2 0.6."""

_WITHOUT_EFFECT = {
    "MODEL.BACKBONE": {"FREEZE_AT"},
    "MODEL.RESNETS": {"DEFORM_MODULATED", "DEFORM_NUM_GROUPS", "RES4_DILATION", "RES5_MULTI_GRID", "STEM_TYPE"},
    "MODEL.FPN": set[str](),
    "MODEL.PROPOSAL_GENERATOR": set[str](),
    "MODEL.ANCHOR_GENERATOR": {"ANGLES"},
    "MODEL.RPN": {
        *("BOUNDARY_THRESH", "IOU_THRESHOLDS", "IOU_LABELS", "BATCH_SIZE_PER_IMAGE", "POSITIVE_FRACTION"),
        *("BBOX_REG_LOSS_TYPE", "BBOX_REG_LOSS_WEIGHT", "SMOOTH_L1_BETA", "LOSS_WEIGHT"),
        *("PRE_NMS_TOPK_TRAIN", "POST_NMS_TOPK_TRAIN"),
    },
    "MODEL.ROI_HEADS": {
        *("IOU_THRESHOLDS", "IOU_LABELS", "BATCH_SIZE_PER_IMAGE", "POSITIVE_FRACTION", "PROPOSAL_APPEND_GT"),
    },
    "MODEL.ROI_BOX_HEAD": {
        *("BBOX_REG_LOSS_TYPE", "BBOX_REG_LOSS_WEIGHT", "SMOOTH_L1_BETA", "TRAIN_ON_PRED_BOXES", "USE_FED_LOSS"),
        *("FED_LOSS_FREQ_WEIGHT_POWER", "FED_LOSS_NUM_CLASSES"),
    },
    "MODEL.ROI_MASK_HEAD": set[str](),
}
"""By section, what matters in training only, or to backbones that are refused by their names."""

_MAX_FILE_BYTES = 2**20
_MAX_BASES = 10
_MAX_LITERAL_CHARACTERS = 10_000


class Settings:
    """A configuration.

    Attributes:
        values: the tree, bases merged in, defaults not.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    @classmethod
    def from_file(cls, file: Path) -> Settings:
        """The configuration of a YAML file and of the files it is based on.

        Raises:
            NotFoundError: the file, or one that it is based on, is not there.
            InvalidRequestError: no configuration of detectron2, or one whose reading would run code.
        """
        try:
            values = _read_tree(file, ())
        except RecursionError as error:
            raise InvalidRequestError(f"{file.name}: sections are nested too deeply.") from error
        lazy, model = values.get("model"), values.get("MODEL", {})
        if isinstance(lazy, dict) and "_target_" in lazy:
            raise InvalidRequestError(_LAZY.format(file.name))
        if not isinstance(model, dict) or not {"MODEL", "INPUT", "SOLVER", "VERSION"} & values.keys():
            raise InvalidRequestError(f"{file.name}: expected a configuration of detectron2, with a section MODEL.")
        settings = cls(values)
        if settings.get("VERSION") != 2 or "WEIGHT" in model:
            raise InvalidRequestError(
                f"{file.name}: expected VERSION 2; this is a configuration from before detectron2's release. "
                "Load it with detectron2 once and save what cfg.dump() returns."
            )
        return settings

    def get(self, name: str) -> Any:
        """The setting's value; its default where the configuration leaves it out."""
        node: Any = self.values
        for part in name.split("."):
            if not isinstance(node, dict) or part not in node:
                return DEFAULTS[name]
            node = node[part]
        return _decoded(node)

    def text(self, name: str) -> str:
        """A setting that is a string."""
        value = self.get(name)
        return value if isinstance(value, str) else self.fail(name, "a string")

    def flag(self, name: str) -> bool:
        """A setting that is true or false."""
        value = self.get(name)
        return value if isinstance(value, bool) else self.fail(name, "true or false")

    def integer(self, name: str, least: int, most: int = 2**16) -> int:
        """A whole number, least..most."""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.fail(name, f"a whole number, {least} to {most}")
        return int(value)

    def number(self, name: str, least: float, most: float) -> float:
        """A number, least..most."""
        value = self.get(name)
        if not _is_number(value) or not least <= value <= most:
            self.fail(name, f"a number, {least:g} to {most:g}")
        return float(value)

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """So many finite numbers."""
        value = self.get(name)
        if not isinstance(value, list | tuple) or len(value) != count or not all(map(_is_number, value)):
            self.fail(name, f"{count} numbers")
        return tuple(float(each) for each in value)

    def require(self, name: str, *allowed: Any) -> Any:
        """The setting, which only has these values in what the engine torchvision can run; the match.

        Raises:
            InvalidRequestError: it has another value.
        """
        value = self.get(name)
        plain = tuple(value) if isinstance(value, list) else value
        for each in allowed:
            if plain == each and isinstance(plain, bool) == isinstance(each, bool):
                return each
        return self.refuse(name, " or ".join(repr(list(each) if isinstance(each, tuple) else each) for each in allowed))

    def refuse(self, name: str, supported: str) -> NoReturn:
        """Say that the engine torchvision cannot run this value."""
        raise InvalidRequestError(
            f"{name}: {_shown(self.get(name))} is not supported by the engine torchvision, which takes {supported}. "
            f"{ADVICE}"
        )

    def fail(self, name: str, expected: str) -> NoReturn:
        """Say that detectron2 itself would not take this value."""
        raise InvalidRequestError(f"{name}: expected {expected}, came {_shown(self.get(name))}.")

    def refuse_unknown(self) -> None:
        """Refuse what detectron2 0.6 does not have where it matters: it changes answers in ways unknown here.

        Raises:
            InvalidRequestError: a section that an answer depends on has such a setting, and it is on.
        """
        for section, without_effect in _WITHOUT_EFFECT.items():
            here = self.values["MODEL"].get(section.removeprefix("MODEL.")) if "MODEL" in self.values else None
            for key, value in (here if isinstance(here, dict) else {}).items():
                name = f"{section}.{key}"
                if name not in DEFAULTS and key not in without_effect and value not in (False, None, "", 0):
                    raise InvalidRequestError(
                        f"{name}: detectron2 0.6 has no such setting, so it belongs to an extension that the engine "
                        f"torchvision does not have. {ADVICE}"
                    )

    def dump_for_inference(self) -> str:
        """As YAML text: what an answer depends on, bases merged in. Data sets, training and files are left out."""
        kept = {name: self.values[name] for name in ("VERSION", "INPUT", "MODEL", "TEST") if name in self.values}
        if isinstance(kept.get("MODEL"), dict):
            kept["MODEL"] = {key: value for key, value in kept["MODEL"].items() if key not in ("WEIGHTS", "DEVICE")}
        text: str = yaml.safe_dump(kept, sort_keys=True, allow_unicode=True)
        return text


_LAZY = (
    "{}: this is a LazyConfig of detectron2, which names Python objects to be called; it is not read. Give the "
    "YAML configuration (yacs) of the model: what cfg.dump() returns, or config.yaml of its training."
)


class _Loader(yaml.SafeLoader):
    """Plain YAML, and tuples."""


def _tuple(loader: _Loader, node: yaml.Node) -> tuple[Any, ...]:
    assert isinstance(node, yaml.SequenceNode)
    return tuple(loader.construct_sequence(node, deep=True))


def _refuse_code(loader: _Loader, suffix: str, node: yaml.Node) -> NoReturn:
    raise InvalidRequestError(
        f"{loader.name}, line {node.start_mark.line + 1}: !!python/{suffix} would run code; it is not read. "
        "Write the value out in its place."
    )


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _refuse_code)


def _read_tree(file: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The file's settings on top of those of its bases."""
    tree = _read_yaml(file)
    bases = tree.pop("_BASE_", [])
    seen = (*seen, file.resolve())
    merged: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        path = _find_base(file, base)
        if path.resolve() in seen or len(seen) > _MAX_BASES:
            raise InvalidRequestError(f"{file.name}: _BASE_ {base}: the files are based on each other.")
        _merge(_read_tree(path, seen), merged, file.name)
    _merge(tree, merged, file.name)
    return merged


def _find_base(file: Path, base: Any) -> Path:
    """Relative to the file, as detectron2 has it; or beside it, for those who copied single files of the zoo."""
    if not isinstance(base, str) or not base or "\0" in base:
        raise InvalidRequestError(f"{file.name}: _BASE_: expected the name of a file, came {_shown(base)}.")
    name = base.replace("\\", "/").rpartition("/")[2]
    for path in () if "://" in base else (file.parent / base, file.parent / name):
        if path.is_file():
            return path
    raise NotFoundError(f"{file.name} is based on {base}, which is not there: put {name} beside {file.name}.")


def _read_yaml(file: Path) -> dict[str, Any]:
    if file.suffix == ".py":
        raise InvalidRequestError(_LAZY.format(file.name))
    if not file.is_file():
        raise NotFoundError(f"There is no configuration {file.name}.")
    if file.stat().st_size > _MAX_FILE_BYTES:
        raise InvalidRequestError(f"{file.name}: a configuration has at most {_MAX_FILE_BYTES} bytes.")
    try:
        loader = _Loader(file.read_text("utf-8"))
        loader.name = file.name
        tree = loader.get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidRequestError(f"{file.name}: expected the YAML configuration of detectron2: {reason}") from error
    if not isinstance(tree, dict):
        raise InvalidRequestError(f"{file.name}: expected the YAML configuration of detectron2.")
    return tree


def _merge(tree: dict[str, Any], onto: dict[str, Any], file: str, where: str = "") -> None:
    for key, value in tree.items():
        present = onto.get(key)
        if isinstance(value, dict) and isinstance(present, dict):
            _merge(value, present, file, f"{where}{key}.")
        elif isinstance(present, dict):
            raise InvalidRequestError(f"{file}: {where}{key}: expected a section, came {_shown(value)}.")
        else:
            # Copied, as YAML lets one section stand at several places.
            onto[key] = copy.deepcopy(value)


def _decoded(value: Any) -> Any:
    """A string as the literal that it spells, as yacs has it: ``"(10, 10, 5, 5)"`` is a tuple."""
    if not isinstance(value, str) or len(value) > _MAX_LITERAL_CHARACTERS:
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _shown(value: Any) -> str:
    # Bounded in depth and length: with anchors, a few lines of YAML make a list of billions.
    return _REPR.repr(list(value) if isinstance(value, tuple) else value)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
