"""Training of the demo SAM 2: clicks, boxes, and clicks that correct an answer; the export to a transformers folder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import Sam2Model

from segserve.training.checkpoint import load_state
from segserve.training.click_batches import ClickBatch, corrections, make_click_batch
from segserve.training.click_segmenter import (
    ClickSegmenterSize,
    EncodedPictures,
    build_click_processor,
    build_click_segmenter,
    encode_pictures,
    predict_clicked,
)
from segserve.training.progress import ProgressCallback
from segserve.training.scenes import CATEGORIES
from segserve.training.schedule import Schedule
from segserve.training.segmenter import speed_up_decoder
from segserve.training.segmenter_loss import MaskTargets, SceneHead, mask_loss
from segserve.training.segmenter_run import HELPER_TERM, SegmenterRun, Trainee

LEARNING_RATE = 2e-3
CLICK_TERM, BOX_TERM, CORRECTION_TERM = "clicks", "boxes", "corrections"
SHARES = {CLICK_TERM: 0.4, BOX_TERM: 0.2, CORRECTION_TERM: 0.4}
SERVED_SHARE = 0.3


@dataclass(frozen=True)
class ClickSettings:
    """What a run is made of; a run is resumed only with the settings that it began with.

    Attributes:
        seed: seeds the initial weights and chooses the scenes and prompts.
        batch_size: pictures a step.
        clicks, boxes: prompts a picture.
        bfloat16: compute the model in bfloat16.
        helper: weight of the dense helper at the start; it fades with the learning rate.
        size: the model's sizes.
        schedule: the learning rate.
    """

    seed: int = 0
    batch_size: int = 4
    clicks: int = 8
    boxes: int = 4
    bfloat16: bool = True
    helper: float = 0.4
    size: ClickSegmenterSize = field(default_factory=ClickSegmenterSize)
    schedule: Schedule = field(default_factory=lambda: Schedule(peak=LEARNING_RATE, warmup=150))


@dataclass(frozen=True)
class Turn:
    """What is asked in a step; it changes with the step, what is served most being asked most.

    Attributes:
        click_candidates, box_candidates: three answers instead of one to the first prompts.
        correct_boxes: boxes are corrected with clicks instead of clicks with further ones.
        corrections: corrective clicks.
        feed_mask: the earlier answer goes in with the corrective clicks.
    """

    click_candidates: bool
    box_candidates: bool
    correct_boxes: bool
    corrections: int
    feed_mask: bool

    @classmethod
    def of_step(cls, step: int) -> Turn:
        """The turn of a step (0-based)."""
        return cls(
            click_candidates=step % 5 != 4,
            box_candidates=step % 5 == 3,
            correct_boxes=step % 4 == 3,
            corrections=2 if step % 8 >= 6 else 1,
            feed_mask=step % 8 in (0, 3, 6),
        )


class ClickTrainee(Trainee):
    """The segmenter together with its training-only head: a batch in, the loss terms out."""

    def __init__(self, settings: ClickSettings) -> None:
        super().__init__()
        self.settings = settings
        self.segmenter: Sam2Model = build_click_segmenter(settings.size)
        speed_up_decoder(self.segmenter)
        self.head = SceneHead(settings.size.embedding, len(CATEGORIES))

    def forward(self, batch: ClickBatch, step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Loss terms by name, and the IoU reached by the answers that would be served."""
        turn = Turn.of_step(step)
        with torch.autocast(batch.pixel_values.device.type, torch.bfloat16, enabled=self.settings.bfloat16):
            encoded = encode_pictures(self.segmenter, batch.pixel_values)
            dense = self.head(encoded.embeddings, batch.dense)
            clicked = predict_clicked(
                self.segmenter, encoded, points=batch.points, labels=batch.labels, multimask=turn.click_candidates
            )
            boxed = predict_clicked(self.segmenter, encoded, boxes=batch.boxes, multimask=turn.box_candidates)
            corrected = self._correct(batch, encoded, boxed if turn.correct_boxes else clicked, step)
        targets = {
            CLICK_TERM: (clicked, batch.point_targets),
            BOX_TERM: (boxed, batch.box_targets),
            CORRECTION_TERM: (corrected, batch.box_targets if turn.correct_boxes else batch.point_targets),
        }
        terms, overlaps = {}, {}
        for name, ((logits, scores), truth) in targets.items():
            loss, overlaps[name] = mask_loss(logits, scores, truth, served_share=SERVED_SHARE)
            terms[name] = SHARES[name] * loss
        return {**terms, HELPER_TERM: dense}, overlaps

    def _correct(
        self, batch: ClickBatch, encoded: EncodedPictures, answer: tuple[Tensor, Tensor], step: int
    ) -> tuple[Tensor, Tensor]:
        """The answers to the same prompts with corrective clicks added."""
        turn = Turn.of_step(step)
        truth: MaskTargets = batch.box_targets if turn.correct_boxes else batch.point_targets
        before = _served(*answer)
        cell = self.settings.size.image / self.settings.size.mask_side
        rng = np.random.default_rng((self.settings.seed, step, 1))
        points, labels = corrections(before, truth.masks, cell, rng, turn.corrections)
        if not turn.correct_boxes:
            points, labels = torch.cat([batch.points, points], dim=2), torch.cat([batch.labels, labels], dim=2)
        return predict_clicked(
            self.segmenter,
            encoded,
            points=points,
            labels=labels,
            boxes=batch.boxes if turn.correct_boxes else None,
            masks=before if turn.feed_mask else None,
        )


def _served(logits: Tensor, scores: Tensor) -> Tensor:
    """(B, P, G, G) logits of the candidates with the highest predicted IoU, without gradients."""
    choice = scores.detach().argmax(dim=-1)[..., None, None, None]
    return logits.detach().take_along_dim(choice, dim=2)[:, :, 0]


def click_run(work: Path, settings: ClickSettings, device: str = "cpu") -> SegmenterRun:
    """The run of a work folder, begun anew or gone on with.

    Raises:
        InvalidRequestError: the folder holds a run with other settings.
    """

    def batch(step: int) -> ClickBatch:
        return make_click_batch(
            settings.seed, step, settings.batch_size, settings.size, clicks=settings.clicks, boxes=settings.boxes
        )

    return SegmenterRun(work, settings, lambda: ClickTrainee(settings), batch, device)


def train_click_segmenter(
    work: Path,
    *,
    steps: int,
    seed: int = 0,
    batch_size: int = 4,
    device: str = "cpu",
    progress: ProgressCallback | None = None,
    settings: ClickSettings | None = None,
    checkpoint_every: int = 250,
) -> None:
    """Train in the folder ``work`` until ``steps`` steps are done, going on where an earlier call stopped.

    The data depend on the seed, the step and the answers alone, so that an interrupted run ends as an uninterrupted
    one would. Calling with fewer ``steps`` than before brings the final decay of the learning rate forward.

    Args:
        work: holds the checkpoint.
        steps: length of the whole run; the learning rate goes down over its last 30 %.
        seed: see ``ClickSettings``.
        batch_size: pictures a step; more on a GPU.
        device: where to train.
        progress: called after every step.
        settings: everything else; its seed and batch size are replaced by the arguments.
        checkpoint_every: steps between checkpoints.

    Raises:
        InvalidRequestError: the folder holds a run with other settings.
    """
    settings = replace(settings or ClickSettings(), seed=seed, batch_size=batch_size)
    click_run(work, settings, device).train(steps, progress, checkpoint_every)


def load_click_average(work: Path) -> tuple[Sam2Model, ClickSegmenterSize]:
    """The averaged model of a work folder's checkpoint, for evaluation, and its sizes.

    Raises:
        FileNotFoundError: the work folder holds no checkpoint.
    """
    state = load_state(work)
    if state is None:
        raise FileNotFoundError(f"{work}: expected a checkpoint of `segserve train` here, found none")
    size = ClickSegmenterSize(**state.settings["size"])
    segmenter = build_click_segmenter(size)
    prefix = "segmenter."
    trained = {name: value for name, value in state.model["trainee"].items() if name.startswith(prefix)}
    # The frequencies of positions are buffers, of which there is no average.
    segmenter.load_state_dict({name.removeprefix(prefix): value for name, value in trained.items()})
    segmenter.load_state_dict(state.model["average"], strict=False)
    return segmenter.eval(), size


def export_click_segmenter(work: Path, out: Path) -> None:
    """Write the work folder's averaged model as a transformers folder: half-precision safetensors and processor.

    The configuration asks for float32, to which ``from_pretrained`` widens the stored numbers: half precision
    is for the file's size only.

    Raises:
        FileNotFoundError: the work folder holds no checkpoint.
    """
    segmenter, size = load_click_average(work)
    out.mkdir(parents=True, exist_ok=True)
    segmenter.half().save_pretrained(out)
    segmenter.config.dtype = "float32"
    segmenter.config.save_pretrained(out)
    build_click_processor(size).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors writes it for its owner alone
