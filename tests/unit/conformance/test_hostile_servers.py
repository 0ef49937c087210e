"""The conformance kit against servers that mean no good: every answer is given up in time, within bounds, in words."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from segserve.conformance.check import Verdict, passed
from segserve.conformance.payload import is_segserve
from segserve.conformance.wire import UnansweredError, Wire
from segserve.errors import InvalidRequestError

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
TIMEOUT_S = 0.6


@contextlib.contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[Wire]:
    """Takes one connection, reads what comes first, and answers."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Wire(f"http://127.0.0.1:{listener.getsockname()[1]}", TIMEOUT_S)
    thread.join(5)


def drip(beginning: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    """A piece again and again, each well within the time-out; gives up after ten times it."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(beginning)
        for _ in range(100):
            connection.sendall(piece)
            time.sleep(TIMEOUT_S / 10)

    return answer


def flood(connection: socket.socket) -> None:
    connection.sendall(OK + b"\r\n")
    for _ in range(80):
        connection.sendall(bytes(2**20))


@pytest.mark.parametrize(
    "answer",
    [
        drip(b"HTTP/1.1 200 OK\r\nX-Long: ", b"a"),
        drip(OK + b"Content-Length: 100000\r\n\r\n", b"x"),
        drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["header", "body", "chunks", "continue"],
)
def test_an_answer_that_drips_is_given_up(answer: Callable[[socket.socket], None]) -> None:
    with server(answer) as wire, pytest.raises(UnansweredError, match="no answer in time"):
        wire.ask("GET", "/ping")


@pytest.mark.parametrize(
    "answer",
    [
        flood,
        lambda connection: connection.sendall(OK + b"Content-Length: 99999999999999999999\r\n\r\nx"),
        lambda connection: connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 16 + b"\r\nx"),
    ],
    ids=["without an end", "length", "chunk"],
)
def test_an_answer_larger_than_any_is_given_up(answer: Callable[[socket.socket], None]) -> None:
    with server(answer) as wire, pytest.raises(UnansweredError, match="more than 64 MiB"):
        Wire(wire.url, 20.0).ask("GET", "/ping")


def test_json_nested_too_deeply_is_no_segserve() -> None:
    body = b"[" * 200_000
    head = OK + f"Content-Length: {len(body)}\r\n\r\n".encode()
    with server(lambda connection: connection.sendall(head + body)) as wire:
        assert not is_segserve(Wire(wire.url, 20.0))


def test_what_a_server_says_cannot_command_the_terminal() -> None:
    outcome = passed("Content-Type: \x1b[2Jtext/\x07plain × …")
    assert outcome.seen == "Content-Type: �[2Jtext/�plain × …" and outcome.verdict is Verdict.PASS


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://host:99999", "http://host:port", "http://h\r\nX: y", "http://hö/", "ftp://host", ""]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^URL: expected"):
        Wire(url)


def test_a_key_or_a_time_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="X-API-Key") as caught:
        Wire("http://host", headers={"X-API-Key": "sécret€"})
    assert "cret" not in caught.value.message
    with pytest.raises(InvalidRequestError, match="timeout"):
        Wire("http://host", -1.0)
