"""Renewal of TorchServe's tokens before they expire."""

from __future__ import annotations

import threading

from segserve.errors import SegserveError
from segserve.torchserve.management import Management

_RETRY_S = 5.0


class TokenRenewal(threading.Thread):
    """Renews both tokens at half of their life, until stopped.

    Whoever holds an old token reads the key file again when it is refused. While TorchServe does not answer, the
    renewal is tried again every few seconds.

    Args:
        life_s: how long a token lives, in seconds.
    """

    def __init__(self, management: Management, life_s: float, *, retry_s: float = _RETRY_S) -> None:
        super().__init__(name="token-renewal", daemon=True)
        self._management = management
        self._period_s = min(life_s / 2, threading.TIMEOUT_MAX)
        self._retry_s = min(retry_s, self._period_s)
        self._stopped = threading.Event()

    def run(self) -> None:
        """Wait and renew; returns after stop()."""
        pause = self._period_s
        while not self._stopped.wait(pause):
            try:
                self._management.renew_token("inference")
                self._management.renew_token("management")
                pause = self._period_s
            except SegserveError:
                pause = self._retry_s

    def stop(self) -> None:
        """End the renewal; the thread ends at once."""
        self._stopped.set()
