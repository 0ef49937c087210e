"""Streamed answers: one piece at a time, nothing for a caller who has gone, and time as long as pieces are taken."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from segserve.errors import TimedOutError
from segserve.gateway.middleware import Bounds
from segserve.gateway.streamed_answer import StreamedAnswer
from segserve.gateway.trace import begin, trace_of

Message = dict[str, Any]
Take = Callable[[Message], Awaitable[None]]


class ImpatientLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer whenever nothing else is to be done: hours pass in no time."""

    _now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        scheduled = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if scheduled and not self._ready:  # type: ignore[attr-defined]
            self._now = max(self._now, scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]


def scope() -> dict[str, Any]:
    made: dict[str, Any] = {"type": "http", "method": "POST", "path": "/infer/file", "headers": []}
    begin(made)
    return made


def counted(made: list[int], count: int) -> Iterator[bytes]:
    for number in range(count):
        made.append(number)
        yield b"%d," % number


def answer(made: list[int], count: int) -> StreamedAnswer:
    return StreamedAnswer(counted(made, count), {"Vary": "Accept-Encoding"}, "application/json")


async def no_more() -> Message:
    await asyncio.Event().wait()
    return {}


def test_pieces_are_sent_in_order_without_a_length() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(answer([], 3)(scope(), no_more, send))
    assert sent[0]["status"] == 200
    assert dict(sent[0]["headers"]) == {b"vary": b"Accept-Encoding", b"content-type": b"application/json"}
    assert [(part["body"], part["more_body"]) for part in sent[1:]] == [
        (b"0,", True),
        (b"1,", True),
        (b"2,", True),
        (b"", False),
    ]


def test_the_next_piece_is_made_when_the_last_was_taken_and_none_once_the_caller_has_gone() -> None:
    made: list[int] = []
    asked = scope()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            assert message["body"] == b"%d," % made[-1], "no piece is made ahead"
            trace_of(asked).gone = len(made) == 3

    asyncio.run(answer(made, 1000)(asked, no_more, send))
    assert made == [0, 1, 2]
    assert trace_of(asked).status == 499


def test_an_exception_of_the_iterator_comes_out_and_the_body_is_not_ended() -> None:
    sent: list[Message] = []

    def broken() -> Iterator[bytes]:
        yield b"["
        raise ZeroDivisionError

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(StreamedAnswer(broken(), {}, "application/json")(scope(), no_more, send))
    assert all(part.get("more_body", True) for part in sent)


def bounded(seconds_a_piece: float, pieces: int) -> tuple[list[Message], float]:
    """What came of an answer behind Bounds of 60 s when its caller takes so long for a piece; and how long it took."""
    sent: list[Message] = []
    bodies = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def app(scope: Any, receive: Any, send: Take) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(pieces):
            await send({"type": "http.response.body", "body": b"x", "more_body": number < pieces - 1})

    async def receive() -> Message:
        message = next(bodies, None)
        return message if message is not None else await no_more()

    async def send(message: Message) -> None:
        await asyncio.sleep(seconds_a_piece)
        sent.append(message)

    loop = ImpatientLoop()
    try:
        loop.run_until_complete(Bounds(app, 1000, 60)(scope(), receive, send))  # type: ignore[arg-type]
    except TimedOutError:
        sent.append({"type": "timed out"})
    finally:
        seconds = loop.time()
        loop.close()
    return sent, seconds


def test_a_slow_caller_is_served_as_long_as_it_takes_pieces() -> None:
    sent, seconds = bounded(25, 12)
    assert (sent[-1]["more_body"], seconds) == (False, 325)


def test_one_that_takes_nothing_is_given_up() -> None:
    sent, seconds = bounded(61, 12)
    assert (sent, seconds) == ([{"type": "timed out"}], 60)


def test_nobody_is_served_for_ever() -> None:
    sent, seconds = bounded(25, 1000)
    assert (sent[-1], seconds) == ({"type": "timed out"}, 600)
