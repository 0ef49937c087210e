"""torchvision's semantic networks (DeepLabV3, LR-ASPP, FCN): the settings beside their weights, and the networks.

DeepLabV3: Chen et al., arXiv 1706.05587. LR-ASPP: Howard et al., arXiv 1905.02244. FCN: Long et al., arXiv 1411.4038.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import segmentation

from segserve.errors import InvalidRequestError
from segserve.models.labels import check_labels

MODEL_TYPE = "semantic"
DEFAULT_ARCHITECTURE = "deeplabv3_mobilenet_v3_large"
ARCHITECTURES = (
    "lraspp_mobilenet_v3_large",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "fcn_resnet50",
    "fcn_resnet101",
)
"""torchvision's names of them."""

MAX_CLASSES = 65_536
"""What a label map of 16 bits can tell apart."""

_MAX_SIDE = 4096


@dataclass(frozen=True)
class SemanticConfig:
    """All that the weights of a torchvision network do not say: its ``config.json``.

    Attributes:
        classes: the labels, in the order of the weights.
        architecture: one of ARCHITECTURES.
        input_size: (height, width) in pixels to which every picture is resized.
        mean, std: by which red, green and blue are normalized, of values 0..1.
    """

    classes: tuple[str, ...]
    architecture: str = DEFAULT_ARCHITECTURE
    input_size: tuple[int, int] = (512, 512)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for ``config.json``."""
        return {"model_type": MODEL_TYPE, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SemanticConfig:
        """From what to_dict wrote.

        Raises:
            InvalidRequestError: not that; names the field, what was expected and what came.
        """
        if values.get("model_type") != MODEL_TYPE:
            raise InvalidRequestError(
                f"config.json: expected model_type {MODEL_TYPE!r}, came {values.get('model_type')!r}."
            )
        given = {name: value for name, value in values.items() if name != "model_type"}
        unknown = sorted(given.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise InvalidRequestError(f"config.json: {unknown[0]} is not known; known are {known}.")
        classes = given.get("classes")
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise InvalidRequestError(f"config.json: classes: expected a list of names, came {classes!r:.60}.")
        given["classes"] = check_labels(classes, "config.json: classes")
        for name in ("input_size", "mean", "std"):
            if name in given:
                given[name] = _numbers(name, given[name])
        config = cls(**given)
        _check(config)
        return config


def _numbers(name: str, value: Any) -> tuple[Any, ...]:
    count, kind = (2, int) if name == "input_size" else (3, (int, float))
    fits = isinstance(value, list) and len(value) == count
    if not fits or not all(isinstance(item, kind) and not isinstance(item, bool) for item in value):
        what = "[height, width] in pixels" if name == "input_size" else "three numbers, for red, green and blue"
        raise InvalidRequestError(f"config.json: {name}: expected {what}, came {value!r:.60}.")
    return tuple(value)


def _check(config: SemanticConfig) -> None:
    if len(config.classes) > MAX_CLASSES:
        raise InvalidRequestError(f"classes: at most {MAX_CLASSES:,} fit into a label map, came {len(config.classes)}.")
    if config.architecture not in ARCHITECTURES:
        raise InvalidRequestError(
            f"architecture: expected one of {', '.join(ARCHITECTURES)}, came {config.architecture!r:.60}."
        )
    if not all(1 <= side <= _MAX_SIDE for side in config.input_size):
        raise InvalidRequestError(f"input_size: expected 1 to {_MAX_SIDE} pixels a side, came {config.input_size}.")
    if not all(math.isfinite(value) for value in (*config.mean, *config.std)) or min(config.std) <= 0:
        raise InvalidRequestError(
            f"mean and std: expected finite numbers, std above 0, came {config.mean}, {config.std}."
        )


class SemanticNetwork(nn.Module):
    """A torchvision segmentation network that returns its logits alone.

    Backbone and classifier keep torchvision's names in the state_dict; the auxiliary classifier, which serves training
    only, is not there.

    Attributes:
        config: what it was made from.
    """

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        _check(config)
        options: dict[str, Any] = {} if config.architecture.startswith("lraspp") else {"aux_loss": False}
        # weights_backbone=None: torchvision would download ImageNet's otherwise.
        network = getattr(segmentation, config.architecture)(
            weights=None, weights_backbone=None, num_classes=len(config.classes), **options
        )
        self.config = config
        self.backbone: nn.Module = network.backbone
        self.classifier: nn.Module = network.classifier
        self._takes_levels = config.architecture.startswith("lraspp")

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits, N x C x H x W, of normalized pictures, N x 3 x H x W."""
        features = self.backbone(pixel_values)
        logits: Tensor = self.classifier(features if self._takes_levels else features["out"])
        return F.interpolate(logits, size=pixel_values.shape[-2:], mode="bilinear", align_corners=False)


def build_network(config: SemanticConfig) -> SemanticNetwork:
    """The network of a configuration with random weights, in training mode; nothing is downloaded.

    Raises:
        InvalidRequestError: an unknown architecture, or a value out of its range.
    """
    return SemanticNetwork(config)
