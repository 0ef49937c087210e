"""API Gateway as far as a Lambda function sees it: events, limits, and a small HTTP server in front of a handler.

What it cannot show: throttling, authorizers, custom domains, and what API Gateway itself says when it refuses.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

LAMBDA_BYTES = 6 * 2**20 + 100
_GATEWAY_BYTES = 10_000_000

Handler = Callable[[dict[str, Any], object], dict[str, Any]]


def http_event(
    method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"", stage: str = "$default"
) -> dict[str, Any]:
    """What an HTTP API sends (payload format 2.0); target: path with query, the stage's name included."""
    path, _, query = target.partition("?")
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": lower,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "a1b2c3",
            "domainName": "a1b2c3.execute-api.eu-west-1.amazonaws.com",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
            "requestId": "JKJaXmPLvHcESHA=",
            "stage": stage,
        },
        "isBase64Encoded": False,
    }
    return event | _body(lower.get("content-type", ""), body)


def rest_event(
    method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"", stage: str = "prod"
) -> dict[str, Any]:
    """What a REST API sends (payload format 1.0), with */* as its binary media type; target: without the stage."""
    path, _, query = target.partition("?")
    several = parse_qs(query, keep_blank_values=True)
    given = dict(headers or {})
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": given,
        "multiValueHeaders": {name: [value] for name, value in given.items()},
        "queryStringParameters": {name: values[-1] for name, values in several.items()} or None,
        "multiValueQueryStringParameters": several or None,
        "requestContext": {
            "stage": stage,
            "path": f"/{stage}{path}",
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
        },
        "body": base64.b64encode(body).decode("ascii") if body else None,
        "isBase64Encoded": bool(body),
    }


def body_of(result: Mapping[str, Any]) -> bytes:
    """The body that a function's result stands for."""
    text = result.get("body", "")
    return base64.b64decode(text) if result.get("isBase64Encoded") else text.encode("utf-8")


@contextmanager
def api_gateway(handler: Handler, stage: str = "$default") -> Iterator[str]:
    """An HTTP API in front of a function; gives its address, the stage's path included."""
    prefix = "" if stage == "$default" else f"/{stage}"

    class Connection(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            event = http_event(self.command, self.path, dict(self.headers.items()), body, stage)
            text = json.dumps(event)
            if len(body) > _GATEWAY_BYTES or len(text) > LAMBDA_BYTES:
                self._answer(413, {"Content-Type": "application/json"}, b'{"message":"Request Entity Too Large"}')
                return
            result = handler(json.loads(text), None)
            if len(json.dumps(result)) > LAMBDA_BYTES:
                self._answer(500, {"Content-Type": "application/json"}, b'{"message":"Internal Server Error"}')
                return
            self._answer(result["statusCode"], result["headers"], body_of(result))

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status not in (204, 304):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_OPTIONS = _pass_on  # noqa: N815 - http.server's names

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Connection)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{prefix}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def _body(content_type: str, body: bytes) -> dict[str, Any]:
    """An HTTP API gives text as text and everything else as base64."""
    if not body:
        return {}
    if content_type.startswith(("text/", "application/json", "application/javascript", "application/xml")):
        return {"body": body.decode("utf-8")}
    return {"body": base64.b64encode(body).decode("ascii"), "isBase64Encoded": True}
