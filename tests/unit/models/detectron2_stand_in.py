"""What the engine uses of detectron2, answered by segserve's own network, for machines without the package.

Only the interface is stood in for: which functions are called with what, and the shape of their answers, as in
detectron2's source. That detectron2 itself answers so is tested where it is installed.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from segserve.models.mask_rcnn.detectron2_config import read_config
from segserve.models.mask_rcnn.detectron2_settings import DEFAULTS
from segserve.models.mask_rcnn.heads import Detected, Limits
from segserve.models.mask_rcnn.network import MaskRcnnNetwork
from segserve.models.mask_rcnn.pictures import paste_mask


class CfgNode(dict[str, Any]):
    """yacs's node: a dict with attributes, which takes no unknown settings."""

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        super().__init__()
        for key, value in (values or {}).items():
            self[key] = CfgNode(value) if isinstance(value, dict) else value

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def merge_from_other_cfg(self, other: CfgNode) -> None:
        assert isinstance(other, CfgNode)
        for key, value in other.items():
            if key not in self:
                raise KeyError(f"Non-existent config key: {key}")
            if isinstance(value, CfgNode):
                self[key].merge_from_other_cfg(value)
            else:
                self[key] = value


def get_cfg() -> CfgNode:
    """detectron2's defaults, as far as they matter."""
    tree: dict[str, Any] = {}
    for name, value in (DEFAULTS | {"MODEL.WEIGHTS": "", "MODEL.DEVICE": "cuda", "MODEL.RPN.LOSS_WEIGHT": 1.0}).items():
        node = tree
        *sections, key = name.split(".")
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = value
    dump = yaml.safe_load((Path(__file__).parents[2] / "data" / "detectron2" / "config.yaml").read_text("utf-8"))
    for section, values in dump["MODEL"].items():
        if isinstance(values, dict):
            tree["MODEL"][section] = values | tree["MODEL"].get(section, {})
        else:
            tree["MODEL"].setdefault(section, values)
    return CfgNode(tree)


class Instances:
    """detectron2's container of one picture's answer."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def has(self, name: str) -> bool:
        return name in self.__dict__

    def to(self, device: str) -> Instances:
        assert device == "cpu"
        return self


class Model(MaskRcnnNetwork):
    """GeneralizedRCNN: a list of dicts in, a list of dicts out."""

    def __init__(self, config: CfgNode, file: Path, masks: bool = True) -> None:
        super().__init__(read_config(file))
        self._masks = masks
        self.backbone.size_divisibility = 32
        predictor = self.roi_heads.box_predictor
        predictor.test_score_thresh = config.MODEL.ROI_HEADS.SCORE_THRESH_TEST
        predictor.test_nms_thresh = config.MODEL.ROI_HEADS.NMS_THRESH_TEST
        predictor.test_topk_per_image = config.TEST.DETECTIONS_PER_IMAGE
        self.batches: list[int] = []

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:  # type: ignore[override]
        assert not self.training
        self.batches.append(len(inputs))
        shape, predictor = self.architecture.input, self.roi_heads.box_predictor
        limits = Limits(predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image)
        sizes = [tuple(each["image"].shape[-2:]) for each in inputs]
        height, width = (-(-max(size[side] for size in sizes) // 32) * 32 for side in (0, 1))
        batch = torch.zeros((len(inputs), 3, height, width))
        mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (shape.pixel_mean, shape.pixel_std))
        for row, each in enumerate(inputs):
            assert each["image"].dtype == torch.float32
            batch[row, :, : sizes[row][0], : sizes[row][1]] = (each["image"] - mean) / deviation
        found = self.detect(batch, sizes, [limits] * len(inputs))
        return [{"instances": self._instances(*each)} for each in zip(found, sizes, inputs, strict=True)]

    def _instances(self, found: Detected, size: tuple[int, int], wanted: dict[str, Any]) -> Instances:
        height, width = wanted["height"], wanted["width"]
        boxes = found.boxes * torch.tensor([width / size[1], height / size[0]] * 2)
        boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height] * 2))
        whole = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        masks = [
            torch.from_numpy(paste_mask(mask, tuple(box), (height, width)))
            for mask, box in zip(found.masks[whole], boxes[whole].tolist(), strict=True)
        ]
        fields = {"pred_masks": torch.stack(masks) if masks else torch.zeros((0, height, width), dtype=torch.bool)}
        return Instances(
            pred_boxes=types.SimpleNamespace(tensor=boxes[whole]),
            scores=found.scores[whole],
            pred_classes=found.classes[whole],
            **(fields if self._masks else {}),
        )


def modules(file: Path, built: Callable[[nn.Module], None], masks: bool = True) -> dict[str, types.ModuleType]:
    """The package's modules. file: the configuration that build_model's network has; built: is told of each."""

    def build_model(config: CfgNode) -> nn.Module:
        assert config.MODEL.WEIGHTS == "", "detectron2 would open it"
        model = Model(config, file, masks).to(torch.device(config.MODEL.DEVICE))
        built(model)
        return model

    package = types.ModuleType("detectron2")
    package.config = types.ModuleType("detectron2.config")
    package.config.get_cfg, package.config.CfgNode = get_cfg, CfgNode
    package.modeling = types.ModuleType("detectron2.modeling")
    package.modeling.build_model = build_model
    return {"detectron2": package, "detectron2.config": package.config, "detectron2.modeling": package.modeling}
