"""HTTP/1.1 as the checks need it: each request as bytes on a connection of its own, and what came back, timed.

No client library in between: they retry, follow redirects, reuse connections and hide how an answer was framed.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from segserve.errors import InvalidRequestError, UnreachableError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PIECE = 64 * 1024
_SHOWN = 80
_REACH_S = 5.0
_LONGEST_S = 86_400.0
_MOST_BYTES = 64 * 2**20
"""Of an answer: SageMaker passes on 25 MB."""

_TOO_LONG = f"the answer has more than {_MOST_BYTES >> 20} MiB"


class UnansweredError(Exception):
    """No answer came: refused, reset, timed out, cut off or not HTTP. Its text says which."""


@dataclass(frozen=True)
class Answer:
    """What came back. headers: names in lower case; seconds: from the first byte sent to the last received."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float
    version: int = 11

    @property
    def media_type(self) -> str:
        """The Content-Type without its parameters, in lower case; empty without one."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none, or nested too deeply.
        """
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("JSON that is nested too deeply") from error

    def said(self) -> str:
        """Status and the beginning of a textual body, for people."""
        text = " ".join(self.body[: 4 * _SHOWN].decode("utf-8", "replace").split())
        if not text.isprintable():
            return f"{self.status}, {len(self.body)} bytes of {self.media_type or 'no Content-Type'}"
        return f"{self.status} {text[:_SHOWN]}{'…' if len(text) > _SHOWN else ''}".rstrip()


@dataclass(frozen=True)
class Wire:
    """Where the container listens.

    Attributes:
        url: http://host:port, or https; a path in front of every route is kept.
        timeout_s: for connecting, for sending a request, and for a whole answer, however slowly it comes.
        headers: sent with every request (a key, where the service asks for one).
    """

    url: str
    timeout_s: float = 65.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or not self.url.isascii() or not self.url.isprintable() or " " in self.url:
            raise InvalidRequestError(f"URL: expected http://host:port, came {self.url[:80]!r}.")
        if not all(
            f"{name}{value}".isascii() and f"{name}{value}".isprintable() for name, value in self.headers.items()
        ):
            # Not shown: it is a key.
            raise InvalidRequestError(f"{', '.join(self.headers)}: expected printable ASCII characters.")
        if not 0 < self.timeout_s < _LONGEST_S:
            raise InvalidRequestError(
                f"timeout: expected seconds above 0, below {_LONGEST_S:g}; came {self.timeout_s:g}."
            )

    @property
    def port(self) -> int:
        """The port."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    def connect(self) -> socket.socket:
        """A connection of its own.

        Raises:
            UnansweredError: it was not accepted.
        """
        parts = urlsplit(self.url)
        with _translated():
            plain = socket.create_connection((parts.hostname or "", self.port), self.timeout_s)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if parts.scheme == "https":
                return ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname)
            return plain

    def head(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        """The head of a request, with the Host header and nothing that is not asked for."""
        parts = urlsplit(self.url)
        lines = [f"{method} {parts.path.rstrip('/')}{path} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}"]
        lines += [f"{name}: {value}" for name, value in {**self.headers, **(headers or {})}.items()]
        return "\r\n".join([*lines, "", ""]).encode("utf-8")

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Send one request on a connection of its own, its body with a Content-Length.

        Raises:
            UnansweredError: no whole answer came.
        """
        sized = {**(headers or {}), **({"Content-Length": str(len(body))} if body is not None else {})}
        with contextlib.closing(self.connect()) as connection:
            return exchange(connection, method, [self.head(method, path, sized), body or b""])

    def ask_chunked(self, path: str, headers: Mapping[str, str], body: bytes, pieces: int = 3) -> Answer:
        """POST with Transfer-Encoding: chunked."""
        size = max(1, -(-len(body) // pieces))
        parts = [body[start : start + size] for start in range(0, len(body), size)]
        chunks = [f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts]
        head = self.head("POST", path, {**headers, "Transfer-Encoding": "chunked"})
        with contextlib.closing(self.connect()) as connection:
            return exchange(connection, "POST", [head, *chunks, b"0\r\n\r\n"])


def check_reachable(wire: Wire) -> None:
    """Whether something listens there.

    Raises:
        UnreachableError: nothing does.
    """
    try:
        replace(wire, timeout_s=_REACH_S).connect().close()
    except UnansweredError as error:
        raise UnreachableError(f"Nothing listens at {wire.url}: {error}.") from error


def exchange(connection: socket.socket, method: str, parts: Iterable[bytes], pause_s: float = 0.0) -> Answer:
    """Send the parts of one request over a connection, and read the answer; the connection stays open.

    A server may answer and close before it has read everything: then what it said still counts.

    Raises:
        UnansweredError: no whole answer came.
    """
    started = time.perf_counter()
    send(connection, parts, pause_s)
    return receive(connection, method, started)


def send(connection: socket.socket, parts: Iterable[bytes], pause_s: float = 0.0) -> None:
    """Send the parts of one request, with pauses in between; a server that stops reading has its reasons.

    Raises:
        UnansweredError: it does not go on in time.
    """
    resets = contextlib.suppress(BrokenPipeError, ConnectionResetError)
    with resets, _translated(passing=ConnectionError), _limited(connection) as limit:
        # Without pauses in one stream, as clients do it: a small request is one packet.
        for index, part in enumerate(parts if pause_s else [b"".join(parts)]):
            if index:
                time.sleep(pause_s)
            for start in range(0, len(part), _PIECE):
                limit()
                connection.sendall(part[start : start + _PIECE])


def receive(connection: socket.socket, method: str, started: float) -> Answer:
    """Read one answer.

    Raises:
        UnansweredError: no whole answer came.
    """
    with _limited(connection) as limit:
        return _read(_Stream(connection, limit), method, started)


def receive_and_wait(connection: socket.socket, method: str, started: float, wait_s: float) -> tuple[Answer, bytes]:
    """Read one answer, and what follows it within a moment: nothing should.

    Raises:
        UnansweredError: no whole answer came.
    """
    with _limited(connection) as limit:
        stream = _Stream(connection, limit)
        answer = _read(stream, method, started)
    stream.wait(wait_s)
    with contextlib.suppress(OSError):
        return answer, stream.reader.peek(1)
    return answer, b""


@contextlib.contextmanager
def _limited(connection: socket.socket) -> Iterator[Callable[[], None]]:
    """Makes the connection's time-out, which is one of each step, one of all steps together.

    Gives what is to be called before each step; it raises TimeoutError when the time is up.
    """
    timeout_s = connection.gettimeout()
    if timeout_s is None:
        yield lambda: None
        return
    end = time.monotonic() + timeout_s

    def limit() -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)

    try:
        yield limit
    finally:
        connection.settimeout(timeout_s)


class _KeptReader(io.BufferedReader):
    """Stays open when http.client is done with its answer: bytes that it has read too many are in it."""

    def close(self) -> None:
        """Keep what was read."""


class _Raw(socket.SocketIO):
    """What a connection gives, up to _MOST_BYTES. limit: called before each wait for bytes."""

    def __init__(self, connection: socket.socket, limit: Callable[[], None]) -> None:
        super().__init__(connection, "r")
        self.limit = limit
        self._left = _MOST_BYTES

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """Bytes, as they come."""
        self.limit()
        count = super().readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise UnansweredError(_TOO_LONG)
        return count


class _Stream:
    """Stands for a connection before http.client, which asks for nothing but makefile."""

    def __init__(self, connection: socket.socket, limit: Callable[[], None]) -> None:
        self._connection = connection
        self._raw = _Raw(connection, limit)
        self.reader = _KeptReader(self._raw)

    def wait(self, seconds: float) -> None:
        """From now on each wait for bytes may take so long."""
        self._raw.limit = lambda: None
        self._connection.settimeout(seconds)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The one reader."""
        return self.reader


def _read(source: _Stream, method: str, started: float) -> Answer:
    with _translated():
        response = http.client.HTTPResponse(source, method=method)  # type: ignore[arg-type]
        try:
            response.begin()
            if (response.length or 0) > _MOST_BYTES:
                raise UnansweredError(_TOO_LONG)
            body = response.read()
        finally:
            response.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, body, time.perf_counter() - started, response.version)


@contextlib.contextmanager
def _translated(passing: type[Exception] | None = None) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise UnansweredError("no answer in time") from error
    except http.client.IncompleteRead as error:
        raise UnansweredError("the answer was cut off: its body is shorter than it says") from error
    except http.client.BadStatusLine as error:
        raise UnansweredError("the connection was closed without an answer") from error
    except http.client.HTTPException as error:
        raise UnansweredError(f"the answer is not HTTP ({type(error).__name__})") from error
    except (MemoryError, OverflowError) as error:
        # A chunk that says it is larger than anything.
        raise UnansweredError(_TOO_LONG) from error
    except (OSError, ValueError) as error:
        if passing is not None and isinstance(error, passing):
            raise
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UnansweredError(f"no connection, or it broke ({reason})") from error
