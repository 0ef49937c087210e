"""Servers on real sockets, in threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


@contextmanager
def listening() -> Iterator[tuple[socket.socket, int]]:
    """A socket that listens on a free port of this machine, and the port."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen(64)
        yield bound, bound.getsockname()[1]


class Running:
    """A server in a thread. stop() tells it to exit; join() waits until it has."""

    def __init__(self, server: uvicorn.Server, bound: socket.socket, port: int) -> None:
        self.server, self.port, self.url = server, port, f"http://127.0.0.1:{port}"
        self._thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.server.should_exit = True

    def join(self) -> None:
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()
