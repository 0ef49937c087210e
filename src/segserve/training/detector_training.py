"""Training of the demo detector: the loop, its checkpoints, and the export to a transformers folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import GroundingDinoForObjectDetection

from segserve.training.checkpoint import TrainingState, load_state, save_state
from segserve.training.detector import (
    BACKBONE_STRIDES,
    DetectorSize,
    build_detector,
    build_processor,
    frozen_copy,
)
from segserve.training.detector_batches import CATEGORY_COUNT, COLOR_COUNT, DetectorBatch, make_batch
from segserve.training.detector_loss import DenseHelper, decoder_loss, proposal_loss, token_logits
from segserve.training.progress import ProgressCallback, ProgressReporter
from segserve.training.schedule import Schedule

LEARNING_RATE = 6e-4
WEIGHT_DECAY = 1e-4
OFFSETS_RATE = 0.1
GRADIENT_LIMIT = 1.0


@dataclass(frozen=True)
class DetectorSettings:
    """What a run is made of; a run is resumed only with the settings that it began with.

    Attributes:
        seed: seeds the initial weights and chooses the scenes and prompts.
        batch_size: pictures a step.
        bfloat16_backbone: compute the convolutions in bfloat16 (40 % faster steps on a CPU with AVX512-BF16).
        size: the model's sizes.
        schedule: the learning rate.
    """

    seed: int = 0
    batch_size: int = 8
    bfloat16_backbone: bool = True
    size: DetectorSize = field(default_factory=DetectorSize)
    schedule: Schedule = field(default_factory=lambda: Schedule(peak=LEARNING_RATE, warmup=200))


class DetectorTrainee(nn.Module):
    """The detector together with its training-only heads: a batch in, the loss terms out."""

    def __init__(self, detector: GroundingDinoForObjectDetection, bfloat16_backbone: bool = False) -> None:
        super().__init__()
        self.detector = detector
        if bfloat16_backbone:
            _run_in_bfloat16(detector.model.backbone.conv_encoder)
        self.helper = DenseHelper(detector.config.d_model, CATEGORY_COUNT, COLOR_COUNT)
        self._backbone_features: list[Tensor] = []
        detector.model.input_proj_vision[0].register_forward_hook(self._keep_backbone_features)

    def forward(self, batch: DetectorBatch) -> dict[str, Tensor]:
        """Weighted loss terms by name; their sum is what is minimized."""
        self._backbone_features.clear()
        outputs = self.detector.model(
            pixel_values=batch.pixel_values,
            input_ids=batch.input_ids,
            token_type_ids=batch.token_type_ids,
            attention_mask=batch.attention_mask,
            return_dict=True,
        )
        text = outputs.encoder_last_hidden_state_text
        decoder = decoder_loss(
            token_logits(outputs.intermediate_hidden_states, text, batch.attention_mask),
            self._decoder_boxes(outputs),
            batch.targets,
        )
        centers = grid_centers(batch.pixel_values.shape[-1]).to(text.device)
        usable = torch.isfinite(outputs.enc_outputs_coord_logits).all(-1)
        proposals = proposal_loss(
            outputs.enc_outputs_class[..., : text.shape[1]].clamp(min=-30.0),
            outputs.enc_outputs_coord_logits.masked_fill(~usable[..., None], 0.0).sigmoid(),
            centers,
            usable,
            batch.targets,
        )
        finest = self._backbone_features[0].flatten(2).transpose(1, 2)
        cells = outputs.encoder_last_hidden_state_vision[:, : finest.shape[1]]
        helper = self.helper(finest, cells, text, batch.attention_mask, batch.targets)
        return {"decoder": decoder.total(), "proposals": proposals.total(), **helper}

    def _decoder_boxes(self, outputs: Any) -> Tensor:
        """(B, L, N, 4) boxes after each decoder layer, refined from the layer before as the model's forward does."""
        states, references = outputs.intermediate_hidden_states, outputs.intermediate_reference_points
        starts = torch.cat([outputs.init_reference_points[:, None], references[:, :-1]], dim=1)
        layers = [head(states[:, layer]) for layer, head in enumerate(self.detector.bbox_embed)]
        boxes: Tensor = (torch.stack(layers, dim=1) + torch.special.logit(starts, eps=1e-5)).sigmoid()
        return boxes

    def _keep_backbone_features(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._backbone_features.append(output)


def grid_centers(image_size: int) -> Tensor:
    """(N, 2) centers, as shares of the picture, of all cells of all feature levels in the model's order."""
    levels = []
    for stride in BACKBONE_STRIDES:
        cells = -(-image_size // stride)
        axis = (torch.arange(cells) + 0.5) / cells
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        levels.append(torch.stack([columns, rows], dim=-1).reshape(-1, 2))
    return torch.cat(levels)


def build_optimizer(module: nn.Module) -> torch.optim.AdamW:
    """AdamW with three groups: matrices decay, vectors do not, sampling offsets also learn ten times slower."""
    matrices, vectors, offsets = [], [], []
    for name, parameter in module.named_parameters():
        if "sampling_offsets" in name:
            offsets.append(parameter)
        elif parameter.ndim < 2:
            vectors.append(parameter)
        else:
            matrices.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY, "rate": 1.0},
        {"params": vectors, "weight_decay": 0.0, "rate": 1.0},
        {"params": offsets, "weight_decay": 0.0, "rate": OFFSETS_RATE},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)


class StepBatches(Dataset[DetectorBatch]):
    """The batches of a run by step, for a ``DataLoader`` to make ahead in other processes."""

    def __init__(self, settings: DetectorSettings, steps: int) -> None:
        self.settings = settings
        self.steps = steps
        self.tokenizer = build_processor(settings.size).tokenizer

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> DetectorBatch:
        settings = self.settings
        return make_batch(self.tokenizer, settings.seed, step, settings.batch_size, settings.size.image)


class DetectorRun:
    """A training run in a work folder: begins anew, or goes on from the folder's last checkpoint.

    Raises:
        InvalidRequestError: the folder holds a run with other settings.
    """

    def __init__(self, work: Path, settings: DetectorSettings, device: str = "cpu") -> None:
        self.work = work
        self.settings = settings
        self.device = torch.device(device)
        torch.manual_seed(settings.seed)
        vocabulary_size = len(build_processor(settings.size).tokenizer)
        detector = build_detector(vocabulary_size, settings.size)
        self.trainee = DetectorTrainee(detector, settings.bfloat16_backbone).to(self.device).train()
        detector.model.backbone.to(memory_format=torch.channels_last)
        self.optimizer = build_optimizer(self.trainee)
        self.step = 0
        state = load_state(work, asdict(settings))
        if state is not None:
            self.step = state.step
            self.trainee.load_state_dict(state.model)
            self.optimizer.load_state_dict(state.optimizer)
            torch.set_rng_state(state.rng)

    def advance(self, batch: DetectorBatch, steps: int) -> dict[str, float]:
        """One optimizer step; returns the loss terms and their ``"total"``."""
        batch = batch.to(self.device)
        pixels = batch.pixel_values.contiguous(memory_format=torch.channels_last)
        rate = self.settings.schedule.rate(self.step, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        terms = self.trainee(replace(batch, pixel_values=pixels))
        total = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad()
        torch.autograd.backward(total)
        nn.utils.clip_grad_norm_(self.trainee.parameters(), GRADIENT_LIMIT)
        self.optimizer.step()
        self.step += 1
        return {"total": float(total.detach())} | {name: float(term.detach()) for name, term in terms.items()}

    def save(self) -> None:
        """Write the checkpoint from which a new ``DetectorRun`` goes on exactly."""
        state = TrainingState(
            self.step,
            asdict(self.settings),
            self.trainee.state_dict(),
            self.optimizer.state_dict(),
            torch.get_rng_state(),
        )
        save_state(state, self.work)


def train_detector(
    out: Path,
    *,
    steps: int,
    seed: int = 0,
    batch_size: int = 8,
    device: str = "cpu",
    progress: ProgressCallback | None = None,
    settings: DetectorSettings | None = None,
    checkpoint_every: int = 250,
    workers: int = 0,
) -> None:
    """Train in the work folder ``out`` until ``steps`` steps are done, going on where an earlier call stopped.

    The data depend on the seed and the step alone, so that an interrupted run ends as an uninterrupted one would.

    Args:
        out: work folder; holds the checkpoint.
        steps: length of the whole run; the learning rate goes down over its last 30 %.
        seed: see ``DetectorSettings``.
        batch_size: pictures a step; more on a GPU.
        device: where to train.
        progress: called after every step.
        settings: everything else; its seed and batch size are replaced by the arguments.
        checkpoint_every: steps between checkpoints.
        workers: processes that make batches ahead; 0 makes them in this one.

    Raises:
        InvalidRequestError: the folder holds a run with other settings.
    """
    settings = replace(settings or DetectorSettings(), seed=seed, batch_size=batch_size)
    run = DetectorRun(out, settings, device)
    loader = DataLoader(
        StepBatches(settings, steps),
        batch_size=None,
        sampler=range(run.step, steps),
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
    )
    reporter = ProgressReporter(
        progress, steps=steps, first=run.step, batch_size=batch_size, schedule=settings.schedule
    )
    for batch in loader:
        losses = run.advance(batch, steps)
        if run.step % checkpoint_every == 0 or run.step == steps:
            run.save()
        reporter.report(run.step, losses)


def export_detector(work: Path, out: Path) -> None:
    """Write the work folder's model as a transformers folder: half-precision safetensors, tokenizer, processor.

    The configuration asks for float32, to which ``from_pretrained`` widens the stored numbers: half precision
    is for the file's size only.

    Raises:
        FileNotFoundError: the work folder holds no checkpoint.
    """
    state = load_state(work)
    if state is None:
        raise FileNotFoundError(f"{work}: expected a checkpoint of `segserve train` here, found none")
    size = DetectorSize(**state.settings["size"])
    processor = build_processor(size)
    trainee = DetectorTrainee(build_detector(len(processor.tokenizer), size))
    trainee.load_state_dict(state.model)
    detector = frozen_copy(trainee.detector)
    out.mkdir(parents=True, exist_ok=True)
    detector.half().save_pretrained(out)
    detector.config.dtype = "float32"
    detector.config.save_pretrained(out)
    processor.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors writes it for its owner alone


def _run_in_bfloat16(backbone: nn.Module) -> None:
    """Make the module compute under autocast and return float32 features, in place."""
    full_precision = backbone.forward

    def reduced(pixel_values: Tensor, pixel_mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        with torch.autocast(pixel_values.device.type, torch.bfloat16):
            features = full_precision(pixel_values, pixel_mask)
        return [(feature.float(), mask) for feature, mask in features]

    backbone.forward = reduced
