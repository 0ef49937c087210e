"""Servers on real sockets, in threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests
import uvicorn
from gateways import wait_for

from segserve.config import Settings, TorchServeAddress
from segserve.gateway.app import create_app
from segserve.gateway.server import build_server


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


OpenService = Callable[..., Running]
"""The fixture open_service: runs a gateway with settings in front of the fake TorchServe."""


@contextmanager
def gateway_before(torchserve: Any, **settings: Any) -> Iterator[Running]:
    """A gateway that is ready, with these settings, and the TorchServe (an ASGI application) behind it."""
    with listening() as (backend_socket, backend_port), listening() as (bound, port):
        config = uvicorn.Config(torchserve, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        backend = Running(uvicorn.Server(config), backend_socket, backend_port)
        address = TorchServeAddress(backend.url, backend.url, backend.url)
        chosen = Settings(torchserve=address, port=port, **{"models": ("grounded_sam",), **settings})
        gateway = Running(build_server(create_app(chosen), chosen), bound, port)
        try:
            wait_for(lambda: requests.get(f"{gateway.url}/ping", timeout=10).status_code == 200)
            yield gateway
        finally:
            for running in (gateway, backend):
                running.stop()
            for running in (gateway, backend):
                running.join()
