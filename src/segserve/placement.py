"""What the gateway and the keeper of the archives agree on: an archive that lies ready for TorchServe."""

from __future__ import annotations

from dataclasses import dataclass

from segserve.config import ArchivedModel


@dataclass(frozen=True)
class Placement:
    """An archive that TorchServe can be told to load.

    Attributes:
        file: its name in TorchServe's model store.
        about: the model in it.
        workers: processes to start, at least 1.
        batch_size, batch_delay_ms: as each of them takes images.
    """

    file: str
    about: ArchivedModel
    workers: int = 1
    batch_size: int = 1
    batch_delay_ms: int = 1
