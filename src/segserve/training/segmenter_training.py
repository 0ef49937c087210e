"""Training of the demo SAM: the loop, its checkpoints, and the export to a transformers folder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import SamModel

from segserve.training.checkpoint import load_state
from segserve.training.progress import ProgressCallback
from segserve.training.scenes import CATEGORIES
from segserve.training.schedule import Schedule
from segserve.training.segmenter import (
    SegmenterSize,
    build_segmenter,
    build_segmenter_processor,
    predict_masks,
    speed_up_decoder,
)
from segserve.training.segmenter_batches import SegmenterBatch, make_segmenter_batch
from segserve.training.segmenter_loss import SceneHead, mask_loss
from segserve.training.segmenter_run import HELPER_TERM, SegmenterRun, Trainee

LEARNING_RATE = 2e-3
BOX_TERM, POINT_TERM = "boxes", "points"


@dataclass(frozen=True)
class SegmenterSettings:
    """What a run is made of; a run is resumed only with the settings that it began with.

    Attributes:
        seed: seeds the initial weights and chooses the scenes and prompts.
        batch_size: pictures a step.
        box_prompts, point_prompts: prompts a picture.
        bfloat16: compute the model in bfloat16 (a third faster on a CPU with AVX512-BF16).
        helper: weight of the dense helper at the start; it fades with the learning rate.
        size: the model's sizes.
        schedule: the learning rate.
    """

    seed: int = 0
    batch_size: int = 4
    box_prompts: int = 8
    point_prompts: int = 2
    bfloat16: bool = True
    helper: float = 0.4
    size: SegmenterSize = field(default_factory=SegmenterSize)
    schedule: Schedule = field(default_factory=lambda: Schedule(peak=LEARNING_RATE, warmup=150))


class SegmenterTrainee(Trainee):
    """The segmenter together with its training-only head: a batch in, the loss terms out."""

    def __init__(self, settings: SegmenterSettings) -> None:
        super().__init__()
        self.reduced_precision = settings.bfloat16
        self.segmenter = build_segmenter(settings.size)
        speed_up_decoder(self.segmenter)
        self.head = SceneHead(settings.size.embedding, len(CATEGORIES))

    def forward(self, batch: SegmenterBatch, step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Loss terms by name, and the IoU reached on box and point prompts.

        The kind of prompt changes with the step: points alone with one or three answers, points with a box,
        boxes with three answers; boxes with one answer, which is what is served, are in three steps of four.
        """
        kind = step % 4
        with torch.autocast(batch.pixel_values.device.type, torch.bfloat16, enabled=self.reduced_precision):
            embeddings = self.segmenter.vision_encoder(batch.pixel_values).last_hidden_state
            boxed = predict_masks(self.segmenter, embeddings, boxes=batch.boxes, multimask=kind == 3)
            pointed = predict_masks(
                self.segmenter,
                embeddings,
                points=batch.points,
                labels=batch.labels,
                boxes=batch.point_boxes if kind == 2 else None,
                multimask=kind == 1,
            )
            dense = self.head(embeddings, batch.dense)
        box_loss, box_overlap = mask_loss(*boxed, batch.box_targets)
        point_loss, point_overlap = mask_loss(*pointed, batch.point_targets)
        share = batch.points.shape[1] / (batch.points.shape[1] + batch.boxes.shape[1])
        terms = {BOX_TERM: (1.0 - share) * box_loss, POINT_TERM: share * point_loss, HELPER_TERM: dense}
        return terms, {BOX_TERM: box_overlap, POINT_TERM: point_overlap}


def segmenter_run(work: Path, settings: SegmenterSettings, device: str = "cpu") -> SegmenterRun:
    """The run of a work folder, begun anew or gone on with.

    Raises:
        InvalidRequestError: the folder holds a run with other settings.
    """

    def batch(step: int) -> SegmenterBatch:
        return make_segmenter_batch(
            settings.seed,
            step,
            settings.batch_size,
            settings.size,
            box_prompts=settings.box_prompts,
            point_prompts=settings.point_prompts,
        )

    return SegmenterRun(work, settings, lambda: SegmenterTrainee(settings), batch, device)


def train_segmenter(
    work: Path,
    *,
    steps: int,
    seed: int = 0,
    batch_size: int = 4,
    device: str = "cpu",
    progress: ProgressCallback | None = None,
    settings: SegmenterSettings | None = None,
    checkpoint_every: int = 250,
) -> None:
    """Train in the folder ``work`` until ``steps`` steps are done, going on where an earlier call stopped.

    The data depend on the seed and the step alone, so that an interrupted run ends as an uninterrupted one would.
    Calling with fewer ``steps`` than before brings the final decay of the learning rate forward.

    Args:
        work: holds the checkpoint.
        steps: length of the whole run; the learning rate goes down over its last 30 %.
        seed: see ``SegmenterSettings``.
        batch_size: pictures a step; more on a GPU.
        device: where to train.
        progress: called after every step.
        settings: everything else; its seed and batch size are replaced by the arguments.
        checkpoint_every: steps between checkpoints.

    Raises:
        InvalidRequestError: the folder holds a run with other settings.
    """
    settings = replace(settings or SegmenterSettings(), seed=seed, batch_size=batch_size)
    segmenter_run(work, settings, device).train(steps, progress, checkpoint_every)


def load_average(work: Path) -> tuple[SamModel, SegmenterSize]:
    """The averaged model of a work folder's checkpoint, for evaluation, and its sizes.

    Raises:
        FileNotFoundError: the work folder holds no checkpoint.
    """
    state = load_state(work)
    if state is None:
        raise FileNotFoundError(f"{work}: expected a checkpoint of `segserve train` here, found none")
    size = SegmenterSize(**state.settings["size"])
    segmenter = build_segmenter(size)
    segmenter.load_state_dict(state.model["average"], strict=False)
    return segmenter.eval(), size


def export_segmenter(work: Path, out: Path) -> None:
    """Write the work folder's averaged model as a transformers folder: half-precision safetensors and processor.

    The configuration asks for float32, to which ``from_pretrained`` widens the stored numbers: half precision
    is for the file's size only.

    Raises:
        FileNotFoundError: the work folder holds no checkpoint.
    """
    segmenter, size = load_average(work)
    out.mkdir(parents=True, exist_ok=True)
    segmenter.half().save_pretrained(out)
    segmenter.config.dtype = "float32"
    segmenter.config.save_pretrained(out)
    build_segmenter_processor(size).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors writes it for its owner alone
