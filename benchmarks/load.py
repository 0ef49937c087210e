"""Closed-loop load on one HTTP route: each client sends its next request when the last one is answered.

The clients share the machine with the servers that they measure, so they cost little: one thread, prepared
bytes, and of an answer only the status line and the length are parsed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Load:
    """What came of one run.

    Attributes:
        seconds: of the window in which answers were counted.
        latencies: seconds of each answer that came within the window.
        statuses: of all answers, those outside of the window too.
    """

    seconds: float
    latencies: list[float]
    statuses: dict[int, int]

    @property
    def answered(self) -> int:
        """All answers, those outside of the window too."""
        return sum(self.statuses.values())


def request_bytes(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A whole HTTP/1.1 POST request."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def run(url: str, request: bytes, *, clients: int, seconds: float, ramp: float = 1.0) -> Load:
    """Ask for ramp + seconds from as many clients at once, each over its own kept connection; count the latter."""
    return asyncio.run(_run(url, request, clients, seconds, ramp))


async def _run(url: str, request: bytes, clients: int, seconds: float, ramp: float) -> Load:
    parts = urlsplit(url)
    opens = time.perf_counter() + ramp
    closes = opens + seconds
    latencies: list[float] = []
    statuses: dict[int, int] = {}

    async def client() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while (begun := time.perf_counter()) < closes:
            writer.write(request)
            status, closing = await _answer(reader)
            if opens <= time.perf_counter() < closes:
                latencies.append(time.perf_counter() - begun)
            statuses[status] = statuses.get(status, 0) + 1
            if closing:
                writer.close()
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return Load(seconds, latencies, statuses)


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
