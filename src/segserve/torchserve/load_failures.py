"""What TorchServe's log says about models that cannot be loaded: by their handlers, or by workers that died before."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_DIED = "Backend worker process died."
_TRACEBACK = "Traceback (most recent call last):"


def load_failures(log_file: Path, names: Sequence[str], since: int = 0) -> list[str]:
    """Lines ``NAME cannot be loaded: reason`` about models of names, each once.

    A handler says so itself; one that cannot even be imported (an archive of another version) ends its worker, whose
    traceback then has the reason.

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
    lines = [line.partition(" MODEL_LOG - ")[::2] for line in text.splitlines() if " MODEL_LOG - " in line]
    starts = tuple(f"{name} cannot be loaded: " for name in names)
    told = [said for _, said in lines if starts and said.startswith(starts)]
    for name in names:
        if any(line.startswith(f"{name} cannot be loaded: ") for line in told):
            continue
        of_model = re.compile(rf" W-\d+-{re.escape(name)}_[^_\s]+-std(?:out|err)$")
        said = [said for source, said in lines if of_model.search(source)]
        told += [f"{name} cannot be loaded: {reason}" for reason in _deaths(said)]
    return list(dict.fromkeys(told))


def _deaths(said: Sequence[str]) -> Iterator[str]:
    """The exception that each death of a worker began with: the first of its traceback."""
    dying = raised = False
    for line in said:
        if line.startswith(_DIED):
            dying, raised = True, False
        elif dying and line.startswith(_TRACEBACK):
            raised = True
        elif raised and line.strip() and not line.startswith(" "):
            yield line.strip()
            dying = raised = False
