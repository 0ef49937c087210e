"""SageMaker's runtime in front of the container's own routes, so that AWS clients can ask this gateway (development).

``boto3.client("sagemaker-runtime", endpoint_url="http://127.0.0.1:8080")`` sends ``POST /endpoints/NAME/invocations``.
As on SageMaker, the request goes to the container's ``/invocations`` with the headers that the service passes on, and
what the container answers with 4xx or 5xx comes back as the client's ModelError.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Scope

from segserve.gateway import documentation
from segserve.gateway.answers import json_response
from segserve.gateway.event_stream import MEDIA_TYPE, payload_part, stream_error
from segserve.gateway.trace import trace_of

PREFIX = "/endpoints/"
"""Its routes bound nothing and ask for no key by themselves: the container's route behind them does."""

_ENDPOINT = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_VARIANT = "AllTraffic"
_PASSED_ON = (b"content-type", b"content-length", b"x-api-key")
_PASSED_ON_PREFIX = b"x-amzn-sagemaker-"
_PASSED_BACK = ("content-type", "x-amzn-sagemaker-")
_STREAM_ACCEPT = b"x-amzn-sagemaker-accept"
_MESSAGE_LENGTH = 2048
_PART_BYTES = 2**20
"""Of one piece of a streamed answer: clients refuse messages of more than 24 MiB."""


def router() -> APIRouter:
    """The runtime's routes."""
    routes = APIRouter(tags=["SageMaker's runtime"])
    routes.add_api_route(
        "/endpoints/{name}/invocations", invoke_endpoint, methods=["POST"], **documentation.INVOKE_ENDPOINT
    )
    routes.add_api_route(
        "/endpoints/{name}/invocations-response-stream",
        invoke_endpoint_with_response_stream,
        methods=["POST"],
        **documentation.INVOKE_ENDPOINT_STREAM,
    )
    routes.add_api_route(
        "/endpoints/{name}/async-invocations", invoke_endpoint_async, methods=["POST"], include_in_schema=False
    )
    return routes


async def invoke_endpoint_async(request: Request, name: str) -> Response:
    """InvokeEndpointAsync: refused in words, since there is no queue and no S3 here."""
    return _validation_error(
        f"Endpoint {name[:63]} answers at once: there are no asynchronous invocations here. Use InvokeEndpoint."
    )


async def invoke_endpoint(request: Request, name: str) -> Response:
    """InvokeEndpoint of SageMaker's runtime: what `/invocations` answers. Any endpoint name will do."""
    if not _ENDPOINT.fullmatch(name):
        return _validation_error(f"EndpointName: expected letters, digits and hyphens, at most 63; came {name[:80]!r}.")
    answer = _Answer()
    await request.app(_container_scope(request, b"accept"), request.receive, answer.send)
    body = b"".join(answer.chunks)
    if answer.status >= 400:
        return _failure(answer.status, body)
    return Response(body, headers={**answer.passed_back(), "x-Amzn-Invoked-Production-Variant": _VARIANT})


async def invoke_endpoint_with_response_stream(request: Request, name: str) -> Response:
    """InvokeEndpointWithResponseStream: what `/invocations` answers, in pieces as AWS's event stream has them."""
    if not _ENDPOINT.fullmatch(name):
        return _validation_error(f"EndpointName: expected letters, digits and hyphens, at most 63; came {name[:80]!r}.")
    answer = _Answer()
    asked = asyncio.create_task(request.app(_container_scope(request, _STREAM_ACCEPT), request.receive, answer.send))
    try:
        # The container's task is done before its answer has begun only if it failed without one.
        await asyncio.wait({asked, begun := asyncio.create_task(answer.begun.wait())}, return_when="FIRST_COMPLETED")
        begun.cancel()
        if not answer.begun.is_set() or answer.status >= 400:
            await asked
            return _failure(answer.status, b"".join(answer.chunks))
    except asyncio.CancelledError:
        asked.cancel()
        raise
    passed = answer.passed_back()
    headers = {
        "X-Amzn-SageMaker-Content-Type": passed.pop("content-type", ""),
        "x-Amzn-Invoked-Production-Variant": _VARIANT,
        **passed,
    }
    return StreamingResponse(_parts(answer, asked), headers=headers, media_type=MEDIA_TYPE)


@dataclass
class _Answer:
    """The container's answer, as it comes."""

    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
            self.headers = {name.lower(): value for name, value in pairs}
            self.begun.set()
        elif message["type"] == "http.response.body" and message.get("body"):
            self.chunks.append(message["body"])
            self.more.set()

    def passed_back(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.startswith(_PASSED_BACK)}


async def _parts(answer: _Answer, asked: asyncio.Task[None]) -> AsyncIterator[bytes]:
    """The pieces of the answer as event-stream messages, each when the container has sent it."""
    asked.add_done_callback(lambda task: answer.more.set())
    try:
        while True:
            await answer.more.wait()
            answer.more.clear()
            ended = asked.done()
            for chunk in answer.chunks:
                for start in range(0, len(chunk), _PART_BYTES):
                    yield payload_part(chunk[start : start + _PART_BYTES])
            answer.chunks.clear()
            if ended:
                break
        if not asked.cancelled() and asked.exception() is not None:
            told = {"Message": "The container's answer broke off.", "ErrorCode": "StreamBroken"}
            yield stream_error("ModelStreamError", json.dumps(told).encode())
    finally:
        asked.cancel()


def _container_scope(request: Request, accept: bytes) -> Scope:
    """The request as the container gets it: at /invocations, with the headers that SageMaker passes on.

    accept: the header that holds the container's Accept; a stream's client means the event stream with its own.
    """
    headers = [
        (name, value)
        for name, value in request.scope["headers"]
        if name in _PASSED_ON or (name.startswith(_PASSED_ON_PREFIX) and name != _STREAM_ACCEPT)
    ]
    headers += [(b"accept", value) for name, value in request.scope["headers"] if name == accept]
    headers.append((b"x-request-id", trace_of(request.scope).request_id.encode("ascii")))
    kept = ("type", "asgi", "http_version", "method", "scheme", "client", "server", "state", "extensions")
    scope = {name: request.scope[name] for name in kept if name in request.scope}
    container = {"path": "/invocations", "raw_path": b"/invocations", "root_path": "", "query_string": b""}
    return {**scope, **container, "headers": headers}


def _failure(status: int, body: bytes) -> Response:
    """What the client is told when the container answers with an error."""
    text = body.decode("utf-8", "replace")
    if status == 413 and '"body_too_large"' in text:
        return _validation_error(f"The body is larger than the container takes: {text}")
    whose = "client" if status < 500 else "server"
    told = {
        "Message": f'Received {whose} error ({status}) from primary with message "{text}".'[:_MESSAGE_LENGTH],
        "OriginalStatusCode": status,
        "OriginalMessage": text[:_MESSAGE_LENGTH],
        "LogStreamArn": "",
    }
    return json_response(told, status=424, headers={"x-amzn-ErrorType": "ModelError"})


def _validation_error(message: str) -> Response:
    return json_response(
        {"Message": message[:_MESSAGE_LENGTH]}, status=400, headers={"x-amzn-ErrorType": "ValidationError"}
    )
