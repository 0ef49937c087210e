"""A response whose body is made piece by piece, in threads, while it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from segserve.gateway.trace import CALLER_GONE, trace_of


class StreamedAnswer(Response):
    """A 200 of unknown length.

    The next piece is made when the one before has been handed over, so that a slow caller holds one piece at a time;
    when the caller has gone away, no further piece is made. An exception of the iterator breaks the connection off:
    the caller sees that the answer is not whole.

    Args:
        pieces: the body; each is made in a thread.
    """

    def __init__(self, pieces: Iterator[bytes], headers: Mapping[str, str], media_type: str) -> None:
        self._pieces = pieces
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace = trace_of(scope)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while not trace.gone:
            piece = await asyncio.to_thread(next, self._pieces, None)
            await send({"type": "http.response.body", "body": piece or b"", "more_body": piece is not None})
            if piece is None:
                return
        trace.status = CALLER_GONE
