"""Running a batch so that no item can spoil the answer of another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from segserve.errors import InternalError, OutOfMemoryError, SegserveError

logger = logging.getLogger(__name__)

Given = TypeVar("Given")
Found = TypeVar("Found")

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
_LOST_DEVICE = ("device-side assert", "illegal memory access", "unspecified launch failure", "cublas_status_execution")


class DeviceLostError(SystemExit):
    """The GPU context is broken for good. Ends the worker process, so that TorchServe starts a fresh one."""


def run_isolated(
    run: Callable[[Sequence[Given]], Sequence[Found]], items: Sequence[Given]
) -> list[Found | SegserveError]:
    """The result of each item, or the error that it alone causes; as many as items, in their order.

    The items run together. Without the memory for that they run in halves; after any other failure one by one.

    Raises:
        DeviceLostError: the GPU can compute nothing any more.
    """
    if not items:
        return []
    try:
        return _checked(run(items), len(items))
    except Exception as error:  # noqa: BLE001 - whatever a model raises must stay within the item that caused it
        failure = error
        short_of_memory = is_out_of_memory(error)
        _end_if_device_lost(error)
    if len(items) == 1:
        return [_reported(failure)]
    # The traceback holds the tensors of the failed run: let them go before the next one.
    failure.__traceback__ = None
    del failure
    size = 1
    if short_of_memory:
        release_memory()
        size = (len(items) + 1) // 2
    logger.warning("a batch of %d failed and is run again in parts of %d", len(items), size)
    results: list[Found | SegserveError] = []
    for start in range(0, len(items), size):
        results.extend(run_isolated(run, items[start : start + size]))
    return results


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine, had not the memory for what was tried."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def release_memory() -> None:
    """Give cached GPU memory back, where there is a GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _checked(results: Sequence[Found], expected: int) -> list[Found | SegserveError]:
    if len(results) != expected:
        raise RuntimeError(f"the model gave {len(results)} results for {expected} images")
    return list(results)


def _reported(error: Exception) -> SegserveError:
    if isinstance(error, SegserveError):
        return error
    if is_out_of_memory(error):
        release_memory()
        return OutOfMemoryError("The image does not fit into the model's memory. Scale it down and send it again.")
    logger.error("an item failed", exc_info=error)
    return InternalError("The model failed on this image. The service's log has the reason.")


def _end_if_device_lost(error: Exception) -> None:
    text = str(error).lower()
    if isinstance(error, RuntimeError) and any(words in text for words in _LOST_DEVICE):
        logger.critical("the GPU is in an error state that only a new process clears: %s", text.splitlines()[0])
        raise DeviceLostError(1) from error
