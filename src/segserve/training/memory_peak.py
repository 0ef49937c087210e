"""How much memory one call needs beyond what was in use before it."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def peak_growth(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes at the height of a call, less those in use before it: of the GPU's memory, or of the process on a CPU.

    None where the system does not tell (anything but Linux).
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        _give_freed_memory_back()
        _CLEAR.write_text(_RESET_PEAK, "ascii")
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before)
    except OSError:
        return None


def _give_freed_memory_back() -> None:
    """What earlier calls freed and the allocator kept would be used again unseen."""
    with suppress(OSError, AttributeError):  # another C library: the figure is then a lower bound
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text("ascii"), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {field}")
    return int(found[1]) * 1024
