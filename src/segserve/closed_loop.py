"""Closed-loop load on an HTTP server: each client sends its next request when the last one is answered.

The clients usually share the machine with the server that they measure, so they cost little: one thread, prepared
bytes, and of an answer only the status line and the length are parsed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlsplit

from segserve.errors import InvalidRequestError

LOST = 0
"""Stands for the status of a request that got no answer: no connection, or one that broke, or the time was up."""

_PAUSE_AFTER_LOSS_S = 0.2


@dataclass(frozen=True)
class Load:
    """What came of one run.

    Attributes:
        seconds: of the window in which answers were counted.
        latencies: seconds of each answer with status 200 that came within the window, in order.
        statuses: how many answers had each status (LOST: none came), those outside of the window too.
    """

    seconds: float
    latencies: tuple[float, ...]
    statuses: Mapping[int, int]

    @property
    def answered(self) -> int:
        """All answers, those outside of the window too."""
        return sum(number for status, number in self.statuses.items() if status != LOST)

    @property
    def failed(self) -> int:
        """Requests that were not answered with 200, those outside of the window too."""
        return sum(number for status, number in self.statuses.items() if status != 200)

    @property
    def throughput(self) -> float:
        """Answers with status 200 a second, within the window."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float | None:
        """Seconds that percent (0 to 100) of the answers did not pass, by nearest rank; None without an answer."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else None


def post_request(url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole HTTP/1.1 POST request."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def run_load(
    url: str,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    ramp: float = 1.0,
    patience: float = 120.0,
    progress: Callable[[float], None] = lambda elapsed: None,
) -> Load:
    """Ask for ramp + seconds from so many clients at once, each over its own kept connection; count the latter.

    Args:
        url: of the server, http; its path does not matter.
        requests: whole requests (see post_request), sent in turns.
        patience: seconds to wait for one answer, and for the last ones after the window has closed.
        progress: told a few times a second how many seconds have passed.

    Raises:
        InvalidRequestError: no http address, no request or no client.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None or not requests or clients < 1 or seconds <= 0:
        raise InvalidRequestError("Expected an http:// address, a request, a client and seconds above 0.")
    run = _Run((parts.hostname, parts.port or 80), requests, (ramp, seconds), patience)
    return asyncio.run(run.load(clients, progress))


class _Run:
    def __init__(
        self, place: tuple[str, int], requests: Sequence[bytes], times: tuple[float, float], patience: float
    ) -> None:
        ramp, self._seconds = times
        self._place = place
        self._requests = requests
        self._turns = count()
        self._patience = patience
        self._began = time.perf_counter()
        self._opens = self._began + ramp
        self._closes = self._opens + self._seconds
        self._latencies: list[float] = []
        self._statuses: Counter[int] = Counter()

    async def load(self, clients: int, progress: Callable[[float], None]) -> Load:
        told = asyncio.create_task(self._tell(progress))
        try:
            await asyncio.gather(*(self._client() for _ in range(clients)))
        finally:
            told.cancel()
        return Load(self._seconds, tuple(self._latencies), dict(self._statuses))

    async def _tell(self, progress: Callable[[float], None]) -> None:
        while True:
            progress(min(time.perf_counter(), self._closes) - self._began)
            await asyncio.sleep(0.2)

    async def _client(self) -> None:
        while time.perf_counter() < self._closes:
            try:
                await self._connection()
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                # TimeoutError is an OSError. A server that is gone must not be asked thousands of times a second.
                self._statuses[LOST] += 1
                await asyncio.sleep(_PAUSE_AFTER_LOSS_S)

    async def _connection(self) -> None:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(*self._place), self._patience)
        try:
            while (begun := time.perf_counter()) < self._closes:
                writer.write(self._requests[next(self._turns) % len(self._requests)])
                status, closing = await asyncio.wait_for(_answer(reader), self._patience)
                now = time.perf_counter()
                if status == 200 and self._opens <= now < self._closes:
                    self._latencies.append(now - begun)
                self._statuses[status] += 1
                if closing:
                    return
        finally:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Status of the next answer, read to its end, and whether the server closes the connection after it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if fields.get("transfer-encoding") == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    else:
        await reader.readexactly(int(fields.get("content-length", "0")))
    return int(head.split(" ", 2)[1]), fields.get("connection") == "close"
