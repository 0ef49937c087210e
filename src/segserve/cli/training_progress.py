"""What a training shows while it runs: a progress bar on a terminal, lines where the output goes to a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segserve.training.progress import Progress

LOG_EVERY = 50


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {number}")
    return number


def not_negative(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {number}")
    return number


@contextmanager
def training_progress(name: str, steps: int) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on a terminal; a line every few steps where the output goes to a file."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console()
    if not console.is_terminal:
        yield lambda state: _print_line(name, state)
        return
    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Bars(*columns, console=console) as bars:
        task = bars.add_task(name, total=steps, state="")

        def advance(state: Progress) -> None:
            bars.update(task, completed=state.step, state=_summary(state))

        yield advance


def _print_line(name: str, state: Progress) -> None:
    if state.step % LOG_EVERY == 0 or state.step in (1, state.steps):
        print(f"{name} {state.step}/{state.steps} {_summary(state)}", flush=True)


def _summary(state: Progress) -> str:
    losses = " ".join(f"{term} {value:.3f}" for term, value in state.losses.items())
    return f"{state.images_per_second:.1f} images/s, rate {state.learning_rate:.1e}, {losses}"
