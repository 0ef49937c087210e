"""Training of the demo SAM: the loop, its checkpoints, and the export to a transformers folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SamModel

from segserve.training.checkpoint import TrainingState, load_state, save_state
from segserve.training.progress import ProgressCallback, ProgressReporter
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

LEARNING_RATE = 2e-3
MATRIX_DECAY = 0.05
GRADIENT_LIMIT = 1.0
AVERAGE_DECAY = 0.998
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


class SegmenterTrainee(nn.Module):
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
        terms = {BOX_TERM: (1.0 - share) * box_loss, POINT_TERM: share * point_loss, "helper": dense}
        return terms, {BOX_TERM: box_overlap, POINT_TERM: point_overlap}


class SegmenterOptimizer:
    """Muon for the matrices of attention and MLP blocks, AdamW for everything else, behind one small interface.

    Muon (Jordan et al., 2024) steps along the orthogonalized momentum, scaled here to AdamW's usual step size,
    and gets further per scene than AdamW does.
    """

    def __init__(self, module: nn.Module) -> None:
        matrices, convolutions, vectors = [], [], []
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.ndim == 2 and (".layers." in name and "segmenter" in name):
                matrices.append(parameter)
            elif parameter.ndim > 2 and "pos_embed" not in name:
                convolutions.append(parameter)
            else:
                vectors.append(parameter)
        self.muon = torch.optim.Muon(matrices, weight_decay=MATRIX_DECAY, adjust_lr_fn="match_rms_adamw")
        groups = [{"params": convolutions, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)

    def step(self, rate: float) -> None:
        """One update at a learning rate."""
        optimizers: tuple[torch.optim.Optimizer, ...] = (self.muon, self.adam)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Both optimizers' states."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s answer."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


class WeightAverage:
    """Exponential moving average of a module's parameters; it is what gets exported."""

    def __init__(self, module: nn.Module) -> None:
        self.source = dict(module.named_parameters())
        self.average = {name: parameter.detach().clone() for name, parameter in self.source.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after ``step`` (0-based); early steps count more, so that random weights fade."""
        decay = min(AVERAGE_DECAY, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(list(self.average.values()), list(self.source.values()), 1.0 - decay)

    def load(self, average: dict[str, Tensor]) -> None:
        """Go on from a saved average."""
        for name, tensor in average.items():
            self.average[name].copy_(tensor)


class SegmenterRun:
    """A training run in a work folder: begins anew, or goes on from the folder's last checkpoint.

    Raises:
        InvalidRequestError: the folder holds a run with other settings.
    """

    def __init__(self, work: Path, settings: SegmenterSettings, device: str = "cpu") -> None:
        self.work = work
        self.settings = settings
        self.device = torch.device(device)
        torch.manual_seed(settings.seed)
        self.trainee = SegmenterTrainee(settings).to(self.device).train()
        self.optimizer = SegmenterOptimizer(self.trainee)
        self.average = WeightAverage(self.trainee.segmenter)
        self.step = 0
        state = load_state(work, asdict(settings))
        if state is not None:
            self.step = state.step
            self.trainee.load_state_dict(state.model["trainee"])
            self.average.load(state.model["average"])
            self.optimizer.load_state_dict(state.optimizer)
            torch.set_rng_state(state.rng)

    def advance(self, steps: int) -> dict[str, float]:
        """One optimizer step of a run of ``steps``; returns the loss terms, their ``"total"`` and the IoUs."""
        settings = self.settings
        batch = make_segmenter_batch(
            settings.seed,
            self.step,
            settings.batch_size,
            settings.size,
            box_prompts=settings.box_prompts,
            point_prompts=settings.point_prompts,
        ).to(self.device)
        rate = settings.schedule.rate(self.step, steps)
        terms, overlaps = self.trainee(batch, self.step)
        helper = settings.helper * rate / settings.schedule.peak
        total = terms[BOX_TERM] + terms[POINT_TERM] + helper * terms["helper"]
        total.backward()
        nn.utils.clip_grad_norm_(self.trainee.parameters(), GRADIENT_LIMIT)
        self.optimizer.step(rate)
        self.average.update(self.step)
        self.step += 1
        report = {"total": total, **terms, **{f"{name} IoU": overlap for name, overlap in overlaps.items()}}
        return {name: float(value.detach()) for name, value in report.items()}

    def save(self) -> None:
        """Write the checkpoint from which a new ``SegmenterRun`` goes on exactly."""
        state = TrainingState(
            self.step,
            asdict(self.settings),
            {"trainee": self.trainee.state_dict(), "average": self.average.average},
            self.optimizer.state_dict(),
            torch.get_rng_state(),
        )
        save_state(state, self.work)


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
    run = SegmenterRun(work, settings, device)
    reporter = ProgressReporter(
        progress, steps=steps, first=run.step, batch_size=batch_size, schedule=settings.schedule
    )
    while run.step < steps:
        losses = run.advance(steps)
        if run.step % checkpoint_every == 0 or run.step == steps:
            run.save()
        reporter.report(run.step, losses)


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
