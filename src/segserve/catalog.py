"""The models that segserve knows: name, which prompts each takes, which parameters, what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PromptKind = Literal["text", "points", "boxes", "objects"]


@dataclass(frozen=True)
class ModelEntry:
    """One model of the catalog.

    Attributes:
        name: the archive's and the route's name.
        title: one line for people.
        prompts: the prompt kinds it takes.
        required: the kinds of which at least one must be there; empty when no prompt is needed.
        parameters: the request parameters it knows; any other is refused.
        returns: ``instances`` or ``label_map``.
        engines: what can run it, the default first; empty when there is no choice.
        embeds: whether it encodes a picture once for any number of prompts, so that a worker can keep the embedding.
    """

    name: str
    title: str
    prompts: tuple[PromptKind, ...]
    required: tuple[PromptKind, ...]
    parameters: tuple[str, ...]
    returns: Literal["instances", "label_map"]
    engines: tuple[str, ...] = ()
    embeds: bool = False


GROUNDED_SAM = ModelEntry(
    name="grounded_sam",
    title="Grounding DINO finds what the text names, SAM outlines it",
    prompts=("text",),
    required=("text",),
    parameters=("box_threshold", "text_threshold", "nms_iou", "nms_across_phrases", "max_instances", "refine"),
    returns="instances",
    embeds=True,
)

MASK_RCNN = ModelEntry(
    name="mask_rcnn",
    title="Mask R-CNN finds and outlines every object of the classes it was trained on",
    prompts=(),
    required=(),
    parameters=("score_threshold", "nms_iou", "max_instances", "refine"),
    returns="instances",
    engines=("torchvision", "detectron2"),
)

SEMANTIC = ModelEntry(
    name="semantic",
    title="A semantic model gives every pixel one of the classes it was trained on",
    prompts=(),
    required=(),
    parameters=("engine", "output", "size"),
    returns="label_map",
    engines=("torch", "onnx"),
)

SAM2 = ModelEntry(
    name="sam2",
    title="SAM 2 outlines what is clicked on, or what is in a box",
    prompts=("points", "boxes", "objects"),
    required=("points", "boxes", "objects"),
    parameters=("multimask", "low_res", "refine"),
    returns="instances",
    embeds=True,
)

CATALOG: dict[str, ModelEntry] = {entry.name: entry for entry in (GROUNDED_SAM, MASK_RCNN, SEMANTIC, SAM2)}
