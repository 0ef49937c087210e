"""Training of the demo semantic model: the loop, its checkpoints, and the export to a checkpoint folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.segmentation.lraspp import LRASPPHead

from segserve.models.semantic.architecture import SemanticConfig, build_network
from segserve.models.semantic.checkpoint import save_checkpoint
from segserve.training.checkpoint import TrainingState, load_state, save_state
from segserve.training.progress import ProgressCallback, ProgressReporter
from segserve.training.scenes import CATEGORIES
from segserve.training.schedule import Schedule
from segserve.training.segmenter_run import WeightAverage
from segserve.training.semantic_batches import DEVIATION, IGNORED, MEAN, SemanticBatch, Size, make_semantic_batch
from segserve.training.semantic_loss import semantic_loss

LEARNING_RATE, WARMUP = 2e-3, 150
MATRIX_DECAY = 0.02
GRADIENT_LIMIT = 1.0


@dataclass(frozen=True)
class SemanticSettings:
    """What a run is made of; a run is resumed only with the settings that it began with.

    Attributes:
        seed: seeds the initial weights and chooses the scenes.
        batch_size: pictures a step.
        architecture: one of ``segserve.models.semantic``'s torchvision architectures.
        early_size: (height, width) of the input until the learning rate begins to fall: smaller pictures give
            more steps in the same time; where exactly things end is learned after that.
        input_size: (height, width) of the input from then on, and of the model that is served.
        bfloat16: compute the model in bfloat16.
        schedule: the learning rate.
    """

    seed: int = 0
    batch_size: int = 8
    architecture: str = "lraspp_mobilenet_v3_large"
    early_size: Size = (224, 224)
    input_size: Size = (320, 320)
    bfloat16: bool = True
    schedule: Schedule = field(default_factory=lambda: Schedule(peak=LEARNING_RATE, warmup=WARMUP))

    def size_at(self, step: int, steps: int) -> Size:
        """(height, width) of the input for ``step`` (0-based) of a run of ``steps`` steps."""
        falling = steps - step <= self.schedule.decay * steps
        return self.input_size if falling else self.early_size


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel by itself, in float32 under autocast on a CPU: its gradient is faster so."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        if input.device.type != "cpu":
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


class SemanticTrainee(nn.Module):
    """The network with its loss: a batch in, the loss terms out."""

    def __init__(self, settings: SemanticSettings) -> None:
        super().__init__()
        self.reduced_precision = settings.bfloat16
        self.network = build_network(semantic_config(settings))
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for module in self.network.modules():
            if type(module) is nn.Conv2d and module.groups > 1:
                module.__class__ = DepthwiseConv2d

    def forward(self, batch: SemanticBatch) -> dict[str, Tensor]:
        """Loss terms by name. The logits are taken before the network scales them to the input's size."""
        with torch.autocast(batch.pixel_values.device.type, torch.bfloat16, enabled=self.reduced_precision):
            logits = coarse_logits(self.network, batch.pixel_values)
        return semantic_loss(logits, batch.labels, IGNORED)


def coarse_logits(network: nn.Module, pixel_values: Tensor) -> Tensor:
    """(B, C, h, w) logits before the network scales them to its input's size."""
    features = network.get_submodule("backbone")(pixel_values)
    classifier = network.get_submodule("classifier")
    logits: Tensor = classifier(features if isinstance(classifier, LRASPPHead) else features["out"])
    return logits


class StateAverage(WeightAverage):
    """Of a module's parameters and normalization statistics; it is what gets exported."""

    @staticmethod
    def averaged(module: nn.Module) -> dict[str, Tensor]:
        """All of the module's state but its counters."""
        return {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}


class SemanticRun:
    """A training run in a work folder: begins anew, or goes on from the folder's last checkpoint.

    Raises:
        InvalidRequestError: the folder holds a run with other settings.
    """

    def __init__(self, work: Path, settings: SemanticSettings, device: str = "cpu") -> None:
        self.work = work
        self.settings = settings
        self.device = torch.device(device)
        torch.manual_seed(settings.seed)
        self.trainee = SemanticTrainee(settings).to(self.device).train()
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.trainee), betas=(0.9, 0.98), fused=True)
        self.average = StateAverage(self.trainee.network)
        self.step = 0
        state = load_state(work, asdict(settings))
        if state is not None:
            self.step = state.step
            self.trainee.load_state_dict(state.model["trainee"])
            self.average.load(state.model["average"])
            self.optimizer.load_state_dict(state.optimizer)
            torch.set_rng_state(state.rng)

    def advance(self, steps: int) -> dict[str, float]:
        """One optimizer step of a run of ``steps``; returns the loss terms and their ``"total"``."""
        settings = self.settings
        size = settings.size_at(self.step, steps)
        batch = make_semantic_batch(settings.seed, self.step, settings.batch_size, size).to(self.device)
        terms = self.trainee(batch)
        total = terms["pixels"] + terms["overlap"]
        total.backward()
        nn.utils.clip_grad_norm_(self.trainee.parameters(), GRADIENT_LIMIT)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.schedule.rate(self.step, steps)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.step)
        self.step += 1
        return {name: float(value.detach()) for name, value in {"total": total, **terms}.items()}

    def save(self) -> None:
        """Write the checkpoint from which a new ``SemanticRun`` goes on exactly."""
        state = TrainingState(
            self.step,
            asdict(self.settings),
            {"trainee": self.trainee.state_dict(), "average": self.average.average},
            self.optimizer.state_dict(),
            torch.get_rng_state(),
        )
        save_state(state, self.work)


def semantic_config(settings: SemanticSettings) -> SemanticConfig:
    """The configuration of the model that is trained."""
    return SemanticConfig(
        architecture=settings.architecture,
        classes=CATEGORIES,
        input_size=settings.input_size,
        mean=MEAN,
        std=DEVIATION,
    )


def train_semantic(
    work: Path,
    *,
    steps: int,
    device: str = "cpu",
    progress: ProgressCallback | None = None,
    settings: SemanticSettings | None = None,
    checkpoint_every: int = 200,
) -> None:
    """Train in the folder ``work`` until ``steps`` steps are done, going on where an earlier call stopped.

    The data depend on the seed and the step alone, so that an interrupted run ends as an uninterrupted one would.
    Calling with fewer ``steps`` than before brings the final decay of the learning rate forward.

    Args:
        work: holds the checkpoint.
        steps: length of the whole run; the learning rate goes down over its last 30 %.
        device: where to train.
        progress: called after every step.
        settings: everything else.
        checkpoint_every: steps between checkpoints.

    Raises:
        InvalidRequestError: the folder holds a run with other settings.
    """
    settings = settings or SemanticSettings()
    run = SemanticRun(work, settings, device)
    reporter = ProgressReporter(
        progress, steps=steps, first=run.step, batch_size=settings.batch_size, schedule=settings.schedule
    )
    while run.step < steps:
        losses = run.advance(steps)
        if run.step % checkpoint_every == 0 or run.step == steps:
            run.save()
        reporter.report(run.step, losses)


def export_semantic(work: Path, out: Path) -> None:
    """Write the work folder's averaged model as a checkpoint folder, in half precision for the file's size.

    Raises:
        FileNotFoundError: the work folder holds no checkpoint.
    """
    state = load_state(work)
    if state is None:
        raise FileNotFoundError(f"{work}: expected a checkpoint of `segserve train` here, found none")
    schedule = Schedule(**state.settings["schedule"])
    config = semantic_config(SemanticSettings(**{**state.settings, "schedule": schedule}))
    network = build_network(config)
    network.load_state_dict(state.model["average"], strict=False)  # without the counters of normalized batches
    save_checkpoint(out, config, network.eval(), half=True)


def _parameter_groups(module: nn.Module) -> list[dict[str, object]]:
    matrices = [each for each in module.parameters() if each.ndim > 1]
    vectors = [each for each in module.parameters() if each.ndim <= 1]
    return [{"params": matrices, "weight_decay": MATRIX_DECAY}, {"params": vectors, "weight_decay": 0.0}]
