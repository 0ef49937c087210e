"""Fine-tuning of Mask R-CNN on COCO annotations: resumable, with an epoch's average precision as it goes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segserve import imaging
from segserve.errors import InvalidRequestError
from segserve.models.device import Placement
from segserve.models.mask_rcnn.checkpoint import save_checkpoint
from segserve.models.mask_rcnn.network import MaskRcnnNetwork, in_channels_last
from segserve.training.checkpoint import STATE_FILE, TrainingState, load_state, save_state
from segserve.training.coco import Dataset
from segserve.training.coco_evaluation import CocoScores
from segserve.training.mask_rcnn_data import Batch, Pictures, Variation, batches_of_epoch, load_batches
from segserve.training.mask_rcnn_start import keep_statistics
from segserve.training.mask_rcnn_validation import validate
from segserve.training.progress import ProgressCallback, ProgressReporter
from segserve.training.schedule import Schedule

AVERAGE_DECAY = 0.998
GRADIENT_LIMIT = 5.0
HISTORY_FILE = "history.json"
SAMPLES_FOLDER = "samples"


@dataclass(frozen=True)
class MaskRcnnSettings:
    """What a run's result depends on, beside its data, its first weights and its length.

    Attributes:
        rate: the learning rate's peak.
        batch_size: pictures a step.
        seed: of the order, the variation and the sampling.
        flip, scale: see Variation.
        keep_statistics: batch norms stay as they are in the first weights.
        weight_decay: of AdamW, on matrices and convolutions.
    """

    rate: float = 1e-3
    batch_size: int = 4
    seed: int = 0
    flip: bool = True
    scale: tuple[float, float] = (0.8, 1.25)
    keep_statistics: bool = False
    weight_decay: float = 0.01

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {**asdict(self), "scale": list(self.scale)}


@dataclass
class Epoch:
    """What an epoch came to. losses: running means; scores: of the validation pictures, or None without them."""

    number: int
    losses: dict[str, float]
    scores: dict[str, Any] | None = None


@dataclass
class MaskRcnnRun:
    """A run in a work folder: begins with a network, or goes on from the folder's checkpoint.

    Args:
        work: for the checkpoint and the history.
        network: what training starts from.
        dataset: to learn.
        validation: to score after each epoch, or None.
        settings: see there.
        placement: device and precision.

    Raises:
        InvalidRequestError: the folder holds a run with other settings, or there is nothing to learn.
    """

    work: Path
    network: MaskRcnnNetwork
    dataset: Dataset
    validation: Dataset | None
    settings: MaskRcnnSettings
    placement: Placement
    loaders: int = 0
    step: int = field(default=0, init=False)
    history: list[dict[str, Any]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not any(thing for picture in self.dataset.pictures for thing in picture.objects if not thing.crowd):
            raise InvalidRequestError("The training annotations have no object to learn from.")
        torch.manual_seed(self.settings.seed)
        device = self.placement.device
        self.network = in_channels_last(self.network.to(device))
        self.average = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self.optimizer = _optimizer(self.network, self.settings.weight_decay)
        state = load_state(self.work, self.settings.to_dict())
        if state is not None:
            self.step = state.step
            self.network.load_state_dict(state.model["network"])
            self.average = {name: tensor.to(device) for name, tensor in state.model["average"].items()}
            self.optimizer.load_state_dict(state.optimizer)
            torch.set_rng_state(state.rng)
            self.history = json.loads((self.work / HISTORY_FILE).read_text("utf-8")) if self.history_file() else []

    def history_file(self) -> bool:
        """Whether earlier epochs of this run left a history."""
        return (self.work / HISTORY_FILE).exists()

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return max(1, len(self.dataset.pictures) // self.settings.batch_size)

    def train(
        self,
        out: Path,
        epochs: int,
        progress: ProgressCallback | None = None,
        epoch_done: Callable[[Epoch], None] | None = None,
        *,
        checkpoint_every: int = 250,
        half: bool = False,
    ) -> None:
        """Train until so many epochs are done; ``out`` holds the best epoch's weights after each.

        The best is that of the highest mask AP, or the last one where nothing is validated. Fewer epochs than an
        earlier call asked for bring the final decay of the learning rate forward.

        Args:
            progress: called after every step.
            epoch_done: called after every epoch.
            checkpoint_every: steps between checkpoints, beside those at an epoch's end.
            half: store the weights as float16.
        """
        steps = epochs * self.steps_per_epoch
        schedule = Schedule(self.settings.rate, warmup=min(200, max(1, steps // 10)))
        reporter = ProgressReporter(
            progress, steps=steps, first=self.step, batch_size=self.settings.batch_size, schedule=schedule
        )
        while self.step < steps:
            epoch, done = divmod(self.step, self.steps_per_epoch)
            losses: dict[str, float] = {}
            for batch in self._batches(epoch, done):
                losses = self._advance(batch, schedule.rate(self.step, steps))
                if self.step % checkpoint_every == 0:
                    self.save()
                reporter.report(self.step, losses)
            finished = Epoch(epoch + 1, losses)
            self._finish(finished, out, half)
            if epoch_done is not None:
                epoch_done(finished)

    def save(self) -> None:
        """Write the checkpoint from which a new run goes on exactly."""
        model = {"network": self.network.state_dict(), "average": self.average}
        state = TrainingState(
            self.step, self.settings.to_dict(), model, self.optimizer.state_dict(), torch.get_rng_state()
        )
        save_state(state, self.work)

    def _batches(self, epoch: int, done: int) -> Any:
        settings = self.settings
        shape = self.network.architecture.input
        pictures = Pictures(self.dataset, shape, Variation(settings.flip, settings.scale), settings.seed)
        batches = batches_of_epoch(len(self.dataset.pictures), epoch, settings.batch_size, settings.seed)
        return load_batches(pictures, batches[done:], self.loaders)

    def _advance(self, batch: Batch, rate: float) -> dict[str, float]:
        self.network.train()
        if self.settings.keep_statistics:
            keep_statistics(self.network)
        batch = batch.to(self.placement.device)
        with self.placement.precision():
            losses = self.network(batch.images, batch.sizes, batch.targets)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise InvalidRequestError(
                f"The loss is no longer a number at step {self.step + 1}: go on with --resume and a lower --rate."
            )
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_LIMIT)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._note_average()
        self.step += 1
        return {"total": float(total.detach()), **{name: float(loss.detach()) for name, loss in losses.items()}}

    @torch.no_grad()
    def _note_average(self) -> None:
        """Take the weights into their moving average; early steps count more, so that the first weights fade."""
        decay = min(AVERAGE_DECAY, (1.0 + self.step) / (10.0 + self.step))
        for name, tensor in self.network.state_dict().items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, 1.0 - decay)
            else:
                self.average[name].copy_(tensor)

    def _finish(self, epoch: Epoch, out: Path, half: bool) -> None:
        """Score an epoch, keep its weights if they are the best, and write the checkpoint."""
        averaged = MaskRcnnNetwork(self.network.architecture)
        averaged.load_state_dict(self.average)
        if self.validation is not None:
            # In the precision that answers are given in.
            served = replace(self.placement, dtype=torch.float32)
            scores, sheet = validate(averaged, served, self.validation)
            epoch.scores = scores.to_dict()
            folder = out / SAMPLES_FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"epoch_{epoch.number:03d}.jpg").write_bytes(imaging.encode(sheet, "JPEG"))
        best = max((_rank(entry) for entry in self.history), default=-math.inf)
        self.history.append(vars(epoch))
        if self.validation is None or _rank(vars(epoch)) >= best:
            save_checkpoint(out, averaged, half=half)
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / HISTORY_FILE).write_text(json.dumps(self.history, indent=2) + "\n", "utf-8")
        self.save()


def has_run(work: Path) -> bool:
    """Whether a work folder holds a checkpoint."""
    return (work / STATE_FILE).exists()


def _rank(epoch: dict[str, Any]) -> float:
    """By which epochs are compared: the mask AP."""
    scores = epoch["scores"]
    return -1.0 if scores is None or scores["mask_ap"] is None else float(scores["mask_ap"])


def _optimizer(network: nn.Module, weight_decay: float) -> torch.optim.Optimizer:
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)


__all__ = ["CocoScores", "Epoch", "MaskRcnnRun", "MaskRcnnSettings", "has_run"]
