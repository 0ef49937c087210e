"""The ``handler:`` section of an archive's yaml: where and how a worker computes, and the defaults of its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segserve.catalog import ModelEntry
from segserve.errors import InvalidRequestError
from segserve.schema import Parameters, parse

_OWN = ("device", "dtype", "threads")
_CACHE = "embedding_cache_mb"
_DEFAULT_CACHE_MB = 256
# What each caller wants to have: no option of an archive, since routes count on what it is without a word.
_OF_REQUESTS = ("engine", "output", "size")
_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class HandlerOptions:
    """How one worker runs its model.

    Attributes:
        device: ``cpu``, ``cuda:0``, …; the GPU that TorchServe gave the worker, unless the yaml names a device.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        threads: threads of the worker for its computations; 0: as many as there are cores.
        embedding_cache_mb: most MiB of embeddings that the worker keeps; 0: none. Of models that embed pictures.
        defaults: the request parameters' defaults, such as thresholds.
        engine: what runs the model, unless a request names another; None where there is no choice.
    """

    device: str
    dtype: str = "auto"
    threads: int = 0
    defaults: Mapping[str, Any] = field(default_factory=dict)
    engine: str | None = None
    embedding_cache_mb: int = 0

    @property
    def embedding_cache_bytes(self) -> int:
        """embedding_cache_mb in bytes."""
        return self.embedding_cache_mb * 2**20


def read_options(config: Mapping[str, Any], gpu: int | None, entry: ModelEntry) -> HandlerOptions:
    """The options of a worker.

    Args:
        config: the archive's yaml.
        gpu: number of the GPU that the worker is to use, or None.
        entry: the model; its parameters may have defaults in the yaml.

    Raises:
        InvalidRequestError: an unknown option, or a value of the wrong type or out of range; names it.
    """
    section = config.get("handler") or {}
    parameters = tuple(name for name in entry.parameters if name not in _OF_REQUESTS)
    known = (*_OWN, *(("engine",) if entry.engines else ()), *((_CACHE,) if entry.embeds else ()), *parameters)
    for name in section:
        if name not in known:
            raise InvalidRequestError(f"handler.{name}: unknown option of {entry.name}; known are {', '.join(known)}.")
    engine = section.get("engine", entry.engines[0]) if entry.engines else None
    if entry.engines and engine not in entry.engines:
        raise InvalidRequestError(f"handler.engine: expected {' or '.join(entry.engines)}, came {engine!r}.")
    device = str(section.get("device", "auto"))
    if device == "auto":
        device = "cpu" if gpu is None else f"cuda:{gpu}"
    dtype = section.get("dtype", "auto")
    if dtype not in _DTYPES:
        raise InvalidRequestError(f"handler.dtype: expected {', '.join(_DTYPES)}, came {dtype!r}.")
    threads = _whole_number(section, "threads", 1 if device == "cpu" else 0)
    cache_mb = _whole_number(section, _CACHE, _DEFAULT_CACHE_MB) if entry.embeds else 0
    given = {name: section[name] for name in parameters if name in section}
    defaults = parse(Parameters, given, "handler").model_dump(exclude_none=True)
    return HandlerOptions(device, str(dtype), threads, defaults, engine, cache_mb)


def _whole_number(section: Mapping[str, Any], name: str, auto: int) -> int:
    value = section.get(name, "auto")
    if value == "auto":
        return auto
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidRequestError(f"handler.{name}: expected auto or a whole number from 0, came {value!r}.")
    return value
