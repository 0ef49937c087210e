"""Resume state of a training run: written atomically, read back exactly."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segserve.errors import InvalidRequestError

STATE_FILE = "state.pt"


@dataclass
class TrainingState:
    """Everything that a run needs to go on as if it had never stopped.

    Attributes:
        step: steps done.
        settings: what the run was started with; resuming with other settings is refused.
        model: ``state_dict`` of the trained module.
        optimizer: ``state_dict`` of the optimizer.
        rng: torch's CPU generator state.
    """

    step: int
    settings: dict[str, Any]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    rng: torch.Tensor


def save_state(state: TrainingState, folder: Path) -> None:
    """Write ``state`` to ``folder/state.pt``; a crash while writing leaves the earlier file as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{STATE_FILE}.{os.getpid()}.tmp"
    torch.save(vars(state), temporary)
    temporary.replace(folder / STATE_FILE)


def load_state(folder: Path, settings: dict[str, Any] | None = None) -> TrainingState | None:
    """The state saved in ``folder``, or None where there is none. Only tensors and plain values are unpickled.

    Args:
        settings: what the caller is about to train with; it must equal what the state was saved with.

    Raises:
        InvalidRequestError: the state belongs to a run with other settings.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    state = TrainingState(**torch.load(path, map_location="cpu", weights_only=True))
    if settings is not None and state.settings != settings:
        changed = sorted(k for k in settings.keys() | state.settings.keys() if settings.get(k) != state.settings.get(k))
        raise InvalidRequestError(
            f"{path} was written by a run with other settings ({', '.join(changed)}): "
            f"expected {settings}, got {state.settings}. Use another work folder, or the same settings."
        )
    return state
