"""What a worker says of its answer beside the body: how long it computed, and what its embedding cache had."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CacheOutcome = Literal["hit", "miss"]

_OUTCOMES: dict[str, CacheOutcome] = {"hit": "hit", "miss": "miss"}


@dataclass(frozen=True)
class WorkerHeaders:
    """Headers of a worker's answer; None where one is missing or not understood.

    Attributes:
        seconds: that the batch of the image took the model.
        cache: whether the image's embedding was there already.
        cache_bytes: of all embeddings that the worker then kept.
    """

    seconds: float | None = None
    cache: CacheOutcome | None = None
    cache_bytes: int | None = None


def read_headers(headers: Mapping[str, str]) -> WorkerHeaders:
    """The headers of an answer. A worker that says nothing, or nonsense, is no failure."""
    milliseconds = _number(headers.get("x-segserve-model-ms"))
    size = _number(headers.get("x-segserve-cache-bytes"))
    return WorkerHeaders(
        None if milliseconds is None else milliseconds / 1e3,
        _OUTCOMES.get(headers.get("x-segserve-cache", "")),
        None if size is None else int(size),
    )


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
