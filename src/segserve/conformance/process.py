"""A service that is a process of this machine, ended with SIGTERM."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from segserve.errors import NotFoundError

_POLL_S = 0.05


class LocalProcess:
    """A process by its number.

    Raises:
        NotFoundError: there is none.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        if not self._runs():
            raise NotFoundError(f"--pid: no process {pid} runs here.")

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self._runs():
            os.kill(self._pid, signal.SIGTERM)

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within the time."""
        until = time.monotonic() + timeout_s
        while self._runs():
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_S)
        return True

    def exit_code(self) -> int | None:
        """Not seen: it is not a child of this process."""
        return None

    def _runs(self) -> bool:
        try:
            state = Path(f"/proc/{self._pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            if Path("/proc/self").exists():
                return False
            return self._answers_a_signal()
        # A zombie has ended; its parent has not asked how.
        return state != "Z"

    def _answers_a_signal(self) -> bool:
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return True
