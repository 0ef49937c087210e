"""How a Mask R-CNN is asked: which of its detections are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from segserve.schema import Parameters


@dataclass(frozen=True)
class MaskRcnnParameters:
    """Parameters of one picture; None leaves the checkpoint's own value.

    Attributes:
        score_threshold: instances score more than this, 0..1.
        nms_iou: boxes of one class that overlap more than this are duplicates, 0..1.
        max_instances: the best so many are kept.
        refine: see schema.Parameters.
    """

    score_threshold: float | None = None
    nms_iou: float | None = None
    max_instances: int | None = None
    refine: bool | Literal["polygon"] = False

    def overridden(self, given: Parameters) -> MaskRcnnParameters:
        """These, with what a request gives laid over them."""
        names = ("score_threshold", "nms_iou", "max_instances", "refine")
        return replace(self, **{name: value for name in names if (value := getattr(given, name)) is not None})
