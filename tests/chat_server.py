"""A server on a free port that speaks OpenAI's chat completions, and AWS Secrets Manager's call for a secret."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    """A request as the server got it; headers by their names in lower case."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    """What the server answers: a status with JSON, or with these very bytes.

    drop: hang up instead. drip: send a byte now and then, and never all of them.
    """

    status: int = 200
    body: Any = None
    drop: bool = False
    drip: bool = False
    headers: dict[str, str] = field(default_factory=dict)


def completion(text: Any) -> Reply:
    """A chat completion that says text."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    usage = {"prompt_tokens": 90, "completion_tokens": 2, "total_tokens": 92}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "small", "choices": [choice]}
    return Reply(body={**body, "usage": usage})


def failure(status: int, message: str = "something went wrong") -> Reply:
    """A failure in OpenAI's form."""
    return Reply(status, {"error": {"message": message, "type": "server_error", "param": None, "code": None}})


def secret(text: str) -> Reply:
    """A secret of Secrets Manager."""
    return Reply(body={"ARN": "arn:x", "Name": "prod/openai", "SecretString": text, "VersionId": "1" * 32})


def aws_failure(name: str) -> Reply:
    """A failure of Secrets Manager."""
    return Reply(400, {"__type": name, "Message": "no"}, headers={"x-amzn-errortype": name})


class ChatServer:
    """Answers chats with ``chat``, and requests for secrets with ``secret``; keeps what it was asked.

    While ``held`` is not set, it receives requests and answers none.
    """

    def __init__(self, chat: Callable[[Asked], Reply] = lambda asked: completion("jeans")) -> None:
        self.chat = chat
        self.secret: Callable[[Asked], Reply] = lambda asked: aws_failure("ResourceNotFoundException")
        self.chats: list[Asked] = []
        self.secrets: list[Asked] = []
        self.held = threading.Event()
        self.held.set()
        self.ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                asked = Asked(
                    self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(data)
                )
                about_secrets = "x-amz-target" in asked.headers
                (outer.secrets if about_secrets else outer.chats).append(asked)
                reply = (outer.secret if about_secrets else outer.chat)(asked)
                outer.held.wait(60)
                with contextlib.suppress(OSError):
                    self._send(reply)

            def _send(self, reply: Reply) -> None:
                if reply.drop:
                    self.close_connection = True
                    return
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(10**6 if reply.drip else len(body)))
                self.end_headers()
                while reply.drip and not outer.ended.wait(0.02):
                    self.wfile.write(b" ")
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing on stderr."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._http.server_port}"
        self.url = f"{self.origin}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.held.set()
        self.ended.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
