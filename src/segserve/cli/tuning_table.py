"""The table that ``segserve tune`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segserve.torchserve.tuning import Trial

_COLUMNS = ("", "workers", "batch", "delay ms", "images/s", "p50 ms", "p95 ms", "p99 ms", "errors", "MiB/worker")


def print_trials(trials: Sequence[Trial], best: Trial | None, target_ms: float | None) -> None:
    """One row for each trial, in their order; the best has a star."""
    from rich.console import Console
    from rich.table import Table

    target = "" if target_ms is None else f"; *: fastest with p95 within {target_ms:g} ms"
    caption = f"MiB/worker: resident memory of the largest{target or '; *: fastest'}"
    cached = any(trial.cached is not None for trial in trials)
    table = Table(caption=caption)
    for column in (*_COLUMNS, *(["cached"] if cached else [])):
        table.add_column(column, justify="right")
    for trial in trials:
        cells = row(trial, star=trial is best)
        table.add_row(*cells, *([_percent(trial.cached)] if cached else []))
    Console(width=None if Console().is_terminal else 110).print(table)
    for trial in trials:
        if trial.problem is not None:
            print(f"{trial.setting}: {trial.problem}")


def row(trial: Trial, *, star: bool) -> list[str]:
    """The cells of a trial, of every column but the last."""
    setting = trial.setting
    errors = ", ".join(f"{number} x {status}" for status, number in sorted(trial.errors.items()))
    return [
        "*" if star else "",
        str(setting.workers),
        str(setting.batch_size),
        str(setting.batch_delay_ms),
        _number(trial.throughput, 2),
        *(_number(value, 0) for value in (trial.p50_ms, trial.p95_ms, trial.p99_ms)),
        "not ready" if trial.problem is not None else errors or "0",
        "–" if trial.worker_rss is None else f"{trial.worker_rss / 2**20:.0f}",
    ]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(part: float | None) -> str:
    return "–" if part is None else f"{100 * part:.0f} %"
