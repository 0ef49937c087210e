"""A container that keeps SageMaker's hosting contract, by hand on plain sockets; each defect breaks a promise.

Run as a program it is a process of its own: ``python hosting_server.py PORT [DEFECT] [WORK_S]``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LARGEST = 2 * 2**20
"""Bytes of a body that is still taken."""

SMALL = 200_000
"""A body below this is taken even with the defects of large ones."""

ARTIFACTS = ("/opt/ml/models/one/model", "/opt/ml/models/two/model")
"""What can be loaded."""

Reply = tuple[int, dict[str, str], bytes]


class HangUpError(Exception):
    """The connection is to be closed without an answer."""


class RefusedError(Exception):
    """What came is no request; the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Request:
    """One request, read whole."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


def json_reply(status: int, value: Any, **headers: str) -> Reply:
    """An answer of JSON."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return status, {"Content-Type": "application/json", **named}, json.dumps(value).encode()


@dataclass
class HostingServer:
    """A server with at most one defect; work_s: how long an invocation takes. Its url once it is started."""

    defect: str = ""
    work_s: float = 0.0
    port: int = 0
    models: dict[str, str] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    ever_loaded: set[str] = field(default_factory=set)
    ill: bool = False
    at_work: int = 0
    open_requests: int = 0
    ending: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Listen, and answer from threads."""
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Take no more connections."""
        self.ending = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        while not self.ending:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = Buffer(connection)
        with connection, contextlib.suppress(OSError, HangUpError):
            while True:
                try:
                    request = self._read(buffer)
                except RefusedError as error:
                    connection.sendall(self._encoded(json_reply(error.status, {"error": "no such request"})))
                    buffer.drain()
                    return
                with self._counted():
                    reply = self._reply(request)
                    connection.sendall(self._encoded(reply))
                if self.defect == "closes every connection":
                    return

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.open_requests += 1
        try:
            yield
        finally:
            self.open_requests -= 1

    def _encoded(self, reply: Reply) -> bytes:
        status, headers, body = reply
        if self.defect == "closes every connection":
            headers = {**headers, "Connection": "close"}
        lines = [f"HTTP/1.1 {status} Because", *(f"{name}: {value}" for name, value in headers.items())]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1")
        return head + body + (b"\n" if self.defect == "one byte too many" and len(body) > 40 else b"")

    # Reading

    def _read(self, buffer: Buffer) -> Request:
        head = buffer.until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.split("\r\n")
        if len(first.split(" ")) != 3:
            raise RefusedError(400)
        method, target, _ = first.split(" ")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon and self.defect != "waits for what is not HTTP":
                raise RefusedError(400)
            headers[name.strip() if self.defect == "header names as written" else name.strip().lower()] = value.strip()
        path, _, query = target.partition("?")
        try:
            return Request(method, path, query, self._usual(headers), self._body(buffer, headers))
        except HangUpError:
            self.ill = self.ill or self.defect == "is ill after a hang-up"
            raise

    def _usual(self, headers: dict[str, str]) -> dict[str, str]:
        if self.defect == "header names as written":
            return {name.lower(): value for name, value in headers.items() if name not in (name.lower(), name.upper())}
        return headers

    def _body(self, buffer: Buffer, headers: dict[str, str]) -> bytes:
        usual = self._usual(headers)
        if usual.get("expect", "").lower() == "100-continue":
            if self.defect == "expects nothing":
                raise RefusedError(417)
            buffer.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if usual.get("transfer-encoding") == "chunked" and self.defect != "no chunks":
            return b"".join(self._chunks(buffer))
        text = usual.get("content-length", "0")
        if not text.isdigit():
            if self.defect == "waits for what is not HTTP":
                time.sleep(60)
            raise RefusedError(400)
        size = int(text)
        if size > LARGEST and self.defect != "too large is its fault":
            buffer.skip(size)
            raise RefusedError(413)
        if size > SMALL and self.defect == "hangs up on large bodies":
            raise HangUpError
        if size > SMALL and self.defect == "takes less than it says":
            buffer.skip(size)
            raise RefusedError(413)
        if self.defect == "reads once":
            return buffer.once(size)
        return buffer.exactly(size)

    def _chunks(self, buffer: Buffer) -> Iterator[bytes]:
        while size := int(buffer.until(b"\r\n"), 16):
            yield buffer.exactly(size)
            buffer.until(b"\r\n")
        buffer.until(b"\r\n")

    # Answering

    def _reply(self, request: Request) -> Reply:
        if request.path == "/ping":
            return self._ping()
        if request.path == "/invocations":
            if request.method == "POST":
                return self._invocation(request)
            return json_reply(200 if self.defect == "GET /invocations" else 405, {})
        if request.path == "/execution-parameters":
            return self._execution_parameters()
        if request.path == "/models" or request.path.startswith("/models/"):
            return self._models(request)
        return json_reply(200 if self.defect == "no 404" else 404, {})

    def _ping(self) -> Reply:
        if self.defect == "slow ping":
            time.sleep(0.6)
        if self.defect == "ping waits for work":
            time.sleep(0.6 if self.at_work else 0)
        if self.ill or self.defect == "never ready" or (self.defect == "needs a model" and not self.models):
            return json_reply(503, {"status": "not ready"})
        return 200, {}, b""

    def _execution_parameters(self) -> Reply:
        value: dict[str, Any] = {"MaxConcurrentTransforms": 3, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 1}
        match self.defect:
            case "execution parameters as a page":
                return 200, {"Content-Type": "text/html"}, b"<p>3</p>"
            case "numbers as text":
                value["MaxPayloadInMB"] = "1"
            case "an unknown strategy":
                value["BatchStrategy"] = "MultiRecord"
            case "transforms of 120 MB":
                value |= {"MaxConcurrentTransforms": 120}
            case "execution parameters fail":
                return json_reply(500, {})
        return json_reply(200, value)

    def _invocation(self, request: Request) -> Reply:
        with self._lock:
            self.at_work += 1
            crowd = self.at_work
        try:
            if crowd > 2 and self.defect == "drops callers":
                raise HangUpError
            if crowd > 2 and self.defect == "fewer at once than it says":
                return json_reply(503, {})
            time.sleep(0.7 if self.defect == "slow answers" else max(self.work_s, 0.005))
            return self._judged(request)
        finally:
            with self._lock:
                self.at_work -= 1

    def _judged(self, request: Request) -> Reply:
        headers, defect = request.headers, self.defect
        if defect == "invocations fail" or self.ill:
            return json_reply(500, {})
        if len(request.body) > LARGEST:
            return json_reply(500, {})
        if defect == "unknown headers" and "x-amzn-sagemaker-no-such-header" in headers:
            return json_reply(400, {})
        if defect == "short headers" and any(len(value) > 512 for value in headers.values()):
            return json_reply(431, {})
        try:
            value = self._parsed(request)
        except (ValueError, RecursionError) as error:
            return self._refusal(request, error)
        return self._answer(request, value)

    def _parsed(self, request: Request) -> Any:
        kind = request.headers.get("content-type", "")
        if kind != "application/json":
            raise ValueError("type")
        value = json.loads(request.body.decode("utf-8"))
        if not isinstance(value, dict) or "x" not in value:
            raise ValueError("shape")
        return value["x"]

    def _refusal(self, request: Request, error: Exception) -> Reply:
        defect, body = self.defect, request.body
        noise = isinstance(error, UnicodeDecodeError)
        guilty = {
            "an empty body is its fault": body == b"",
            "a cut body is its fault": body.startswith(b'{"x"'),
            "noise is its fault": noise,
            "a shape is its fault": error.args == ("shape",),
            "an unknown type is its fault": error.args == ("type",),
            "depth is its fault": isinstance(error, RecursionError),
        }
        if defect == "is ill after noise" and noise:
            self.ill = True
        if guilty.get(defect, False):
            return json_reply(500, {})
        if defect == "tells its traceback":
            return json_reply(400, {"error": "".join(traceback.format_exception(error))})
        return json_reply(400, {"error": "expected a JSON object with x"})

    def _answer(self, request: Request, value: Any) -> Reply:
        headers: dict[str, str] = {"Content-Type": "application/json"}
        body = json.dumps({"y": value, "said": "an answer that is longer than forty bytes"}).encode()
        if request.headers.get("accept") == "text/plain" and self.defect != "ignores Accept":
            headers["Content-Type"], body = "text/plain", b"an answer that is longer than forty bytes, in words"
        if self.defect == "no Content-Type":
            del headers["Content-Type"]
        if self.defect == "a false Content-Type":
            body = b"an answer that is longer than forty bytes, in words"
        inference = request.headers.get("x-amzn-sagemaker-inference-id")
        if inference:
            headers["X-Amzn-SageMaker-Inference-Id"] = "0" if self.defect == "another Inference-Id" else inference
        return self._in_session(request, (200, headers, body))

    def _in_session(self, request: Request, reply: Reply) -> Reply:
        session = request.headers.get("x-amzn-sagemaker-session-id")
        if session == "NEW_SESSION":
            new = str(uuid.uuid4())
            self.sessions.add(new)
            expires = "2020-01-01T00:00:00Z" if self.defect == "an expired session" else "2120-01-01T00:00:00Z"
            form = (
                f"{new}, Expires={expires}"
                if self.defect == "a session of another form"
                else f"{new}; Expires={expires}"
            )
            reply[1]["X-Amzn-SageMaker-New-Session-Id"] = form
        elif session is not None and (session not in self.sessions or self.defect == "forgets sessions"):
            return json_reply(400, {"error": "no such session"})
        return reply

    # Multi-model

    def _models(self, request: Request) -> Reply:
        parts = [part for part in request.path.split("/") if part][1:]
        if self.defect == "no list of models" and not parts and request.method == "GET":
            return json_reply(500, {})
        match request.method, parts:
            case "GET", []:
                return self._list(request.query)
            case "POST", []:
                return self._load(request)
            case "GET", [name]:
                return self._describe(name)
            case "DELETE", [name]:
                return self._unload(name)
            case "POST", [name, "invoke"]:
                return self._invoke_model(name, request)
        return json_reply(404, {})

    def _entry(self, name: str) -> dict[str, str]:
        return {"modelName": name, "modelUrl": self.models[name]}

    def _list(self, query: str) -> Reply:
        models = [self._entry(name) for name in self.models]
        if self.defect == "a list of names":
            return json_reply(200, {"models": list(self.models)})
        if self.defect == "a list without end":
            return json_reply(200, {"models": models, "nextPageToken": "1"})
        if self.defect == "pages that overlap":
            return json_reply(200, {"models": models} if query else {"models": models, "nextPageToken": "1"})
        return json_reply(200, {"models": models})

    def _load(self, request: Request) -> Reply:
        try:
            value = json.loads(request.body)
            name, url = value["model_name"], value["url"]
        except (ValueError, KeyError, TypeError):
            return json_reply(500 if self.defect == "a malformed load is its fault" else 400, {})
        if self.defect == "loads fail":
            return json_reply(500, {})
        if url not in ARTIFACTS and self.defect != "loads anything":
            return json_reply(404, {})
        if name in self.models and self.defect != "loads twice":
            return json_reply(409, {})
        if name in self.ever_loaded and self.defect == "loads once only":
            return json_reply(507, {})
        self.models[name] = url
        self.ever_loaded.add(name)
        return json_reply(200, {})

    def _missing(self, what: str) -> Reply:
        return json_reply(500 if self.defect == f"{what} of an unknown model" else 404, {})

    def _describe(self, name: str) -> Reply:
        if name not in self.models:
            return self._missing("GET")
        described = self._entry(name)
        if self.defect == "another modelUrl":
            described["modelUrl"] = "/elsewhere"
        return json_reply(200, described)

    def _unload(self, name: str) -> Reply:
        if name not in self.models:
            return self._missing("DELETE")
        if self.defect == "unloading fails":
            return json_reply(500, {})
        if self.defect != "unloads nothing":
            del self.models[name]
        return json_reply(200, {})

    def _invoke_model(self, name: str, request: Request) -> Reply:
        if name not in self.models:
            return self._missing("POST")
        if self.defect == "invoking a model fails":
            return json_reply(500, {})
        return self._judged(request)


class Buffer:
    """What a connection has sent and nobody has read yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._data = b""

    def _more(self) -> None:
        data = self.connection.recv(1 << 20)
        if not data:
            raise HangUpError
        self._data += data

    def until(self, end: bytes) -> bytes:
        while end not in self._data:
            self._more()
        found, _, self._data = self._data.partition(end)
        return found

    def exactly(self, size: int) -> bytes:
        pieces, missing = [], size
        while missing > len(self._data):
            pieces.append(self._data)
            missing -= len(self._data)
            self._data = b""
            self._more()
        pieces.append(self._data[:missing])
        self._data = self._data[missing:]
        return b"".join(pieces)

    def once(self, size: int) -> bytes:
        if size and not self._data:
            self._more()
        found, self._data = self._data[:size], self._data[size:]
        return found

    def skip(self, size: int) -> None:
        self.exactly(size)

    def drain(self) -> None:
        """Read what still comes for a moment, so that closing does not reset the connection."""
        self.connection.settimeout(0.2)
        with contextlib.suppress(OSError, HangUpError):
            while True:
                self._more()


def main(port: int, defect: str = "", work_s: float = 0.0) -> None:
    """Serve until SIGTERM, then finish what is in flight, unless that is the defect."""
    server = HostingServer(defect, work_s, port)
    server.start()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: None if defect == "ignores SIGTERM" else over.set())
    print(server.url, flush=True)
    over.wait()
    server.stop()
    while defect != "drops what is in flight" and server.open_requests:
        time.sleep(0.01)
    os._exit(3 if defect == "ends with an error" else 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:3], *map(float, sys.argv[3:4]))
