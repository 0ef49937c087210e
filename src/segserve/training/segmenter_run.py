"""What the trainings of promptable segmenters share: the optimizer, the averaged weights, the resumable run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from segserve.training.checkpoint import TrainingState, load_state, save_state
from segserve.training.progress import ProgressCallback, ProgressReporter
from segserve.training.schedule import Schedule

MATRIX_DECAY = 0.05
GRADIENT_LIMIT = 1.0
AVERAGE_DECAY = 0.998
HELPER_TERM = "helper"
_LAYERS = (".layers.", ".blocks.")


class RunSettings(Protocol):
    """What every run's settings have; they are a dataclass of plain values.

    Attributes:
        seed: seeds the initial weights and chooses the data.
        batch_size: pictures a step.
        helper: weight of the dense helper at the start; it fades with the learning rate.
        schedule: the learning rate.
    """

    @property
    def seed(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def helper(self) -> float: ...
    @property
    def schedule(self) -> Schedule: ...


class Batch(Protocol):
    """The data of one step."""

    def to(self, device: torch.device) -> Any: ...


class Trainee(nn.Module):
    """A segmenter with whatever only its training needs: called with a batch and the step.

    It answers with the loss terms by name, which are summed, HELPER_TERM's with a weight that fades; and with the IoUs
    reached, by the terms' names, for reports.

    Attributes:
        segmenter: the model that is averaged and exported.
    """

    segmenter: Any


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
            if parameter.ndim == 2 and "segmenter" in name and any(part in name for part in _LAYERS):
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
        self.source = self.averaged(module)
        self.average = {name: parameter.detach().clone() for name, parameter in self.source.items()}

    @staticmethod
    def averaged(module: nn.Module) -> dict[str, Tensor]:
        """What is averaged of a module, by name; the tensors themselves."""
        return dict(module.named_parameters())

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

    Args:
        work: holds the checkpoint.
        settings: a dataclass.
        trainee: builds what is trained, after the generator has been seeded.
        batch: the data of a step, a function of the step alone.
        device: where to train.

    Raises:
        InvalidRequestError: the folder holds a run with other settings.
    """

    def __init__(
        self,
        work: Path,
        settings: RunSettings,
        trainee: Callable[[], Trainee],
        batch: Callable[[int], Batch],
        device: str = "cpu",
    ) -> None:
        self.work = work
        self.settings = settings
        self.stored_settings: dict[str, Any] = asdict(settings)  # type: ignore[call-overload]
        self.batch = batch
        self.device = torch.device(device)
        torch.manual_seed(settings.seed)
        self.trainee = trainee().to(self.device).train()
        self.optimizer = SegmenterOptimizer(self.trainee)
        self.average = WeightAverage(self.trainee.segmenter)
        self.step = 0
        state = load_state(work, self.stored_settings)
        if state is not None:
            self.step = state.step
            self.trainee.load_state_dict(state.model["trainee"])
            self.average.load(state.model["average"])
            self.optimizer.load_state_dict(state.optimizer)
            torch.set_rng_state(state.rng)

    def advance(self, steps: int) -> dict[str, float]:
        """One optimizer step of a run of ``steps``; returns the loss terms, their ``"total"`` and the IoUs."""
        settings = self.settings
        rate = settings.schedule.rate(self.step, steps)
        terms, overlaps = self.trainee(self.batch(self.step).to(self.device), self.step)
        helper = settings.helper * rate / settings.schedule.peak
        parts: list[Tensor] = [helper * term if name == HELPER_TERM else term for name, term in terms.items()]
        total = torch.stack(parts).sum()
        torch.autograd.backward(total)
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
            self.stored_settings,
            {"trainee": self.trainee.state_dict(), "average": self.average.average},
            self.optimizer.state_dict(),
            torch.get_rng_state(),
        )
        save_state(state, self.work)

    def train(self, steps: int, progress: ProgressCallback | None, checkpoint_every: int) -> None:
        """Go on until ``steps`` steps are done, with a checkpoint every few steps and at the end."""
        settings = self.settings
        reporter = ProgressReporter(
            progress, steps=steps, first=self.step, batch_size=settings.batch_size, schedule=settings.schedule
        )
        while self.step < steps:
            losses = self.advance(steps)
            if self.step % checkpoint_every == 0 or self.step == steps:
                self.save()
            reporter.report(self.step, losses)
