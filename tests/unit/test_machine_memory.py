"""Memory of the machine and of control groups, from made-up trees of /proc and /sys, and from the real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segserve.machine_memory import MemoryRoom, memory_room, process_memory, proportional_memory

GIB = 2**30
MEMINFO = "MemTotal:       8388608 kB\nMemFree:  100 kB\nMemAvailable:   6291456 kB\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "ascii")
    return root


@pytest.mark.parametrize(
    ("files", "room"),
    [
        ({}, MemoryRoom(8 * GIB, 6 * GIB)),
        (
            # A container of version 2: cache that can be dropped is available.
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": str(2 * GIB),
                "sys/fs/cgroup/memory.current": str(GIB),
                "sys/fs/cgroup/memory.stat": f"anon 5\nfile 7\ninactive_file {GIB // 2}\n",
            },
            MemoryRoom(2 * GIB, 3 * GIB // 2),
        ),
        (
            # No limit of its own, but one above.
            {
                "proc/self/cgroup": "0::/above/own\n",
                "sys/fs/cgroup/above/own/memory.max": "max\n",
                "sys/fs/cgroup/above/own/memory.current": "5\n",
                "sys/fs/cgroup/above/memory.max": str(4 * GIB),
                "sys/fs/cgroup/above/memory.current": str(3 * GIB),
            },
            MemoryRoom(4 * GIB, GIB),
        ),
        (
            # Version 1, within a container: its path is the host's, the limit lies at the root.
            {
                "proc/self/cgroup": "5:cpu:/docker/abc\n4:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(GIB),
                "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB + 5),
            },
            MemoryRoom(GIB, 0),
        ),
        (
            # Version 1 without a limit.
            {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "5",
            },
            MemoryRoom(8 * GIB, 6 * GIB),
        ),
    ],
    ids=["machine", "container", "group above", "version 1", "version 1 without a limit"],
)
def test_the_tightest_limit_counts(tmp_path: Path, files: dict[str, str], room: MemoryRoom):
    assert memory_room(tree(tmp_path, files)) == room


def test_nothing_is_known_where_the_system_does_not_tell(tmp_path: Path):
    assert memory_room(tmp_path) is None
    assert process_memory(1, tmp_path) is None
    assert proportional_memory(1, tmp_path) is None


def test_this_process():
    room = memory_room()
    assert room is not None
    assert 0 < room.available < room.limit
    before = process_memory(os.getpid())
    ballast = bytearray(os.urandom(1) * (64 * 2**20))
    after, own = process_memory(os.getpid()), proportional_memory(os.getpid())
    assert before is not None and after is not None and own is not None
    assert after - before > len(ballast) // 2
    assert own <= after * 1.2
