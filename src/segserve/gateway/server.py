"""The uvicorn server around the gateway's app, for a program that owns its socket and its signals.

``build_server(create_app(settings), settings).run(sockets=[listening_socket])`` blocks until ``should_exit`` is set
(from any thread, or by a signal handler), finishes what is in flight, and returns.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from segserve.config import Settings
from segserve.gateway import logs

_BACKLOG = 2048
_KEEP_ALIVE_S = 75
"""Longer than the idle time-outs of the usual load balancers (60 s): they, not we, close idle connections."""

_LAST_ROUNDS, _LAST_ROUND_S = 5, 0.02
"""Each round of the loop accepts or reads; time alone would not do where the process waits for a processor."""


class GatewayServer(uvicorn.Server):
    """Leaves the signals to the program: uvicorn's own handling raises them again before anyone can clean up."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in what has arrived, then shut down.

        uvicorn resets connections that wait to be accepted, or whose request it has not read yet; a busy service has
        such at any moment.
        """
        for _ in range(_LAST_ROUNDS):
            await asyncio.sleep(_LAST_ROUND_S)
        await super().shutdown(sockets)


def build_server(app: FastAPI, settings: Settings) -> GatewayServer:
    """A server that is ready to run, and the process's logging set up as settings say.

    Requests in flight when it is told to exit get ``settings.limits.shutdown_s`` to finish.
    """
    logs.configure(settings.log_format, level=settings.log_level)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Callers' addresses are not used for anything, so that forwarded ones need not be believed.
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.limits.shutdown_s)),
    )
    return GatewayServer(config)
