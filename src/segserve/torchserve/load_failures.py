"""What handlers wrote into TorchServe's log about models that they cannot load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def load_failures(log_file: Path, names: Sequence[str], since: int = 0) -> list[str]:
    """The lines ``NAME cannot be loaded: reason`` about models of names, each once.

    Args:
        since: bytes of the log to pass over; of a log that has been rotated since, none.
    """
    try:
        with log_file.open("rb") as file:
            if since <= log_file.stat().st_size:
                file.seek(since)
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    starts = tuple(f"{name} cannot be loaded: " for name in names)
    lines = (line.partition("MODEL_LOG - ")[2] for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if starts and line.startswith(starts)))
