"""How much memory this process may still use: the machine's, and that of every control group (container) above it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_UNLIMITED = 2**60
"""A control group without a limit says so with a huge number, or with the word ``max``."""


@dataclass(frozen=True)
class MemoryRoom:
    """Bytes. limit: of the machine or the tightest control group; available: what is free, page cache included."""

    limit: int
    available: int


def memory_room(root: Path = _ROOT) -> MemoryRoom | None:
    """The room of this process; None where the system does not tell (anything but Linux).

    Page cache that the kernel can drop counts as available. Of nested control groups, and the machine itself, the one
    with the least room counts.

    Args:
        root: where ``proc`` and ``sys`` are, in tests.
    """
    rooms = [*_machine(root), *_control_groups(root)]
    if not rooms:
        return None
    return MemoryRoom(min(room.limit for room in rooms), max(0, min(room.available for room in rooms)))


def process_memory(pid: int, root: Path = _ROOT) -> int | None:
    """Resident bytes of a process (RSS: what it shares with others counts whole); None when it cannot be read."""
    try:
        pages = int((root / "proc" / str(pid) / "statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def proportional_memory(pid: int, root: Path = _ROOT) -> int | None:
    """Proportional bytes of a process (PSS: a shared page counts by its share); None when it cannot be read.

    The sum over processes is what they take together. Reading it walks the process's page tables: milliseconds.
    """
    with suppress(OSError, ValueError):
        return _fields((root / "proc" / str(pid) / "smaps_rollup").read_text("ascii")).get("Pss")
    return None


def _machine(root: Path) -> Iterator[MemoryRoom]:
    with suppress(OSError, ValueError, KeyError):
        fields = _fields((root / "proc/meminfo").read_text("ascii"))
        yield MemoryRoom(fields["MemTotal"], fields["MemAvailable"])


def _control_groups(root: Path) -> Iterator[MemoryRoom]:
    """The group of this process and those above it, of either version; a container sees its own as the root."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            base, files = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        relative = Path(path.lstrip("/"))
        for folder in dict.fromkeys((relative, *relative.parents)):
            yield from _control_group(base / folder, *files)


def _control_group(folder: Path, limit_file: str, usage_file: str, cache_field: str) -> Iterator[MemoryRoom]:
    # The word "max" is no number: such a group has no limit of its own.
    with suppress(OSError, ValueError):
        limit = int((folder / limit_file).read_text("ascii"))
        if limit < _UNLIMITED:
            usage = int((folder / usage_file).read_text("ascii"))
            droppable = _counts(folder / "memory.stat").get(cache_field, 0)
            yield MemoryRoom(limit, limit - usage + min(droppable, usage))


def _fields(text: str) -> Mapping[str, int]:
    """Bytes by name, of a file of /proc with lines such as ``MemTotal:  2048 kB``."""
    return {name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


def _counts(path: Path) -> Mapping[str, int]:
    pairs = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return []
