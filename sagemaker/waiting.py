"""Waiting for something that SageMaker does, with a line that shows what it is doing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from failures import DeploymentError

PAUSE_S = 10.0


def wait(
    title: str,
    look: Callable[[], dict[str, Any]],
    told: Callable[[dict[str, Any]], str],
    done: Callable[[dict[str, Any]], bool],
    timeout_s: float,
) -> dict[str, Any]:
    """The state in which something ends.

    Args:
        look: its state now.
        told: a state in a few words.
        done: whether a state is the last.
        timeout_s: how long it may take.

    Raises:
        DeploymentError: it takes longer; it goes on at AWS.
    """
    end = time.monotonic() + timeout_s
    console = Console(stderr=True)
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task(title, total=None)
        last = ""
        while True:
            state = look()
            now = told(state)
            if now != last and not console.is_terminal:
                console.print(f"{title}: {now}")
            last = now
            progress.update(task, description=f"{title}: {now}")
            if done(state):
                return state
            if time.monotonic() > end:
                raise DeploymentError(
                    f"{title}: still {now} after {timeout_s / 60:.0f} minutes. It goes on; run the same command again."
                )
            time.sleep(PAUSE_S)
