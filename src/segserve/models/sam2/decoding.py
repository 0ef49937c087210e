"""SAM 2's decoder on embeddings: many objects in a call, whatever pictures they are on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segserve.models.device import Placement
from segserve.models.embedding_cache import Embedding

DECODED_AT_ONCE = {"cpu": 4, "cuda": 32}
"""Objects in one decoder call; each takes about 80 MB in a full-sized SAM 2."""


@dataclass(frozen=True, eq=False)
class Task:
    """One object to decode.

    Attributes:
        picture: index of its embedding.
        index: of the object among its picture's.
        points: (P, 3) float32 x, y, label, or None; coordinates in pixels of the model's input.
        box: (4) float32, likewise.
        mask: (h, w) float32 logits.
        multimask: three masks instead of one.
    """

    picture: int
    index: int
    points: Tensor | None
    box: Tensor | None
    mask: Tensor | None
    multimask: bool

    @property
    def shape(self) -> tuple[int, bool, bool, bool]:
        """What tasks of one decoder call have in common.

        Points are never padded to a common number: the decoder would attend to the padding, and an object's answer
        would depend on its neighbors.
        """
        points = 0 if self.points is None else len(self.points)
        return points, self.box is not None, self.mask is not None, self.multimask


@dataclass(frozen=True, eq=False)
class LowResMasks:
    """What the decoder says of one object. logits: (M, h, w) float32; scores: (M) expected IoUs."""

    logits: Tensor
    scores: Tensor


class Decoder:
    """Decodes objects.

    On a CPU only objects of one picture run together, so that an answer is the same whatever else is in the batch; a
    GPU is faster with those of several.

    Args:
        model: a ``Sam2Model`` on the placement's device.
        placement: where to compute.
    """

    def __init__(self, model: Any, placement: Placement) -> None:
        self._model = model
        self._placement = placement
        height, width = model.prompt_encoder.mask_input_size
        self.mask_size = (int(height), int(width))
        self.across_pictures = placement.device.type != "cpu"

    def run(self, embeddings: Sequence[Embedding], tasks: Sequence[Task]) -> Iterator[tuple[Task, LowResMasks]]:
        """Each task with its masks, as they are done: not in the tasks' order."""
        groups: dict[tuple[object, ...], list[Task]] = {}
        for task in tasks:
            groups.setdefault((*task.shape, None if self.across_pictures else task.picture), []).append(task)
        at_once = DECODED_AT_ONCE[self._placement.device.type]
        for group in groups.values():
            for start in range(0, len(group), at_once):
                part = group[start : start + at_once]
                logits, scores = self._decode(embeddings, part)
                for row, task in enumerate(part):
                    yield task, LowResMasks(logits[row], scores[row])

    def _decode(self, embeddings: Sequence[Embedding], tasks: Sequence[Task]) -> tuple[Tensor, Tensor]:
        """(N, M, h, w) logits and (N, M) scores of N tasks of one shape, each as a picture of its own."""
        points = self._stacked([task.points for task in tasks])
        boxes = self._stacked([task.box for task in tasks])
        masks = self._stacked([task.mask for task in tasks])
        with self._placement.precision():
            output = self._model(
                image_embeddings=_of_pictures(embeddings, [task.picture for task in tasks]),
                input_points=None if points is None else points[:, None, :, :2],
                input_labels=None if points is None else points[:, None, :, 2].to(torch.int64),
                input_boxes=None if boxes is None else boxes[:, None],
                input_masks=None if masks is None else masks[:, None],
                multimask_output=tasks[0].multimask,
            )
        return output.pred_masks[:, 0].float(), output.iou_scores[:, 0].float()

    def _stacked(self, tensors: Sequence[Tensor | None]) -> Tensor | None:
        there = [tensor for tensor in tensors if tensor is not None]
        return torch.stack(there).to(self._placement.device) if there else None


def _of_pictures(embeddings: Sequence[Embedding], pictures: Sequence[int]) -> list[Tensor]:
    """The embeddings' tensors, one row an object; those of one picture are not copied."""
    if len(set(pictures)) == 1:
        return [each.float().expand(len(pictures), -1, -1, -1) for each in embeddings[pictures[0]].tensors]
    levels = zip(*(embeddings[picture].tensors for picture in pictures), strict=True)
    return [torch.cat(level).float() for level in levels]
