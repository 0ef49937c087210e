"""Where models that are loaded while the service runs come from: what the gateway asks of whoever keeps the archives.

The gateway reads no archives. ``segserve serve`` gives it the shelf of its own TorchServe; a gateway in front of
another TorchServe has none, and loads nothing.
"""

from __future__ import annotations

from typing import Protocol

from segserve.errors import SegserveError
from segserve.placement import Placement


class ModelShelf(Protocol):
    """Brings archives to TorchServe. Its methods may touch the disk: call them from a thread."""

    def place(self, name: str, url: str) -> Placement:
        """Put the archive at url into TorchServe's model store, for a model of that name.

        Raises:
            InvalidRequestError: nothing to load is there, or it lies where nothing may be loaded from.
            NoRoomError: it would not fit into the memory that is left.
        """
        ...

    def settle(self, name: str) -> None:
        """The model has been loaded: the memory that was set aside for it is in use now. Does not block."""
        ...

    def remove(self, name: str) -> None:
        """Take the archive of a model away again; nothing happens if there is none."""
        ...

    def failure(self, name: str) -> SegserveError | None:
        """Why a worker could not load the model since it was placed; None while nothing is known of that."""
        ...
