"""How many workers and how large batches: one profile for CPUs, one for GPUs.

On CPU a model is fastest as several one-thread workers that each take one image at a time: batching gains nothing
there and makes callers wait for each other. A GPU wants one worker that takes several images at once.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segserve.errors import InvalidRequestError

ProfileName = Literal["cpu", "gpu"]

_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Profile:
    """How one model is served.

    Attributes:
        workers: processes that hold the model; 0: as many as there are cores (cpu) or devices (gpu).
        batch_size: most images that one worker takes at once.
        batch_delay_ms: how long a worker waits for a batch to fill, in milliseconds, at least 1.
    """

    workers: int = 0
    batch_size: int = 1
    batch_delay_ms: int = 1


DEFAULT_PROFILES: dict[ProfileName, Profile] = {
    "cpu": Profile(),
    "gpu": Profile(batch_size=8, batch_delay_ms=15),
}


def profile_of(config: Mapping[str, Any], name: ProfileName) -> Profile:
    """The profile that an archive's yaml asks for (its ``profiles:`` section), defaults filled in.

    Raises:
        InvalidRequestError: an unknown field or a value out of range; names it.
    """
    section = (config.get("profiles") or {}).get(name) or {}
    default = DEFAULT_PROFILES[name]
    values = {field: getattr(default, field) for field in ("workers", "batch_size", "batch_delay_ms")}
    for field, value in section.items():
        if field not in values:
            raise InvalidRequestError(f"profiles.{name}.{field}: unknown; known are {', '.join(values)}.")
        least = 0 if field == "workers" else 1
        number = 0 if field == "workers" and value == "auto" else value
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise InvalidRequestError(f"profiles.{name}.{field}: expected a whole number from {least}, came {value!r}.")
        values[field] = number
    return Profile(**values)


def choose_profile(wanted: Literal["auto", "cpu", "gpu"]) -> ProfileName:
    """``gpu`` when there is one (or it is asked for), else ``cpu``."""
    if wanted != "auto":
        return wanted
    return "gpu" if gpu_count() else "cpu"


def worker_count(profile: Profile, name: ProfileName, models: int) -> int:
    """Workers of one model among ``models`` that share the machine; at least 1."""
    if profile.workers:
        return profile.workers
    if name == "gpu":
        return max(1, gpu_count())
    return max(1, cpu_count() // max(1, models))


def cpu_count() -> int:
    """Cores that this process may use: its affinity, and the container's quota where there is one."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _QUOTA_FILE.read_text("ascii").split()
        limit = max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        # No control group, or its quota is "max".
        return cores
    return min(cores, limit)


def gpu_count() -> int:
    """NVIDIA GPUs that a worker may use, found as TorchServe finds them; 0 where the driver's tool is missing."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return len(listing.stdout.split())
