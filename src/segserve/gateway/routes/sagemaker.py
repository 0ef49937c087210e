"""SageMaker's contract: ``POST /invocations``, which dispatches on what it gets, and ``GET /execution-parameters``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from segserve.errors import InvalidRequestError
from segserve.gateway import documentation, incoming
from segserve.gateway.answers import json_response
from segserve.gateway.routes.actions import act
from segserve.gateway.routes.segment import respond
from segserve.gateway.routes.tiling import tile
from segserve.gateway.served_models import ServedModels
from segserve.gateway.services import services_of
from segserve.gateway.sessions import CLOSED_HEADER, NEW_HEADER, NEW_SESSION, REQUEST_HEADER
from segserve.gateway.target_model import aimed_at, target_of
from segserve.schema import SegmentRequest, parse

_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
_TRANSFORMS_PER_WORKER = 2
_TRANSFORM_MB = 100
"""CreateTransformJob refuses more for MaxConcurrentTransforms x MaxPayloadInMB."""

Handler = Callable[[Request, dict[str, Any]], Awaitable[Response]]


@dataclass(frozen=True)
class JsonProtocol:
    """A kind of JSON body, told by one of its keys."""

    key: str
    form: str
    handle: Handler


async def _native(request: Request, body: dict[str, Any]) -> Response:
    return await respond(request, _aimed(request, parse(SegmentRequest, body)))


async def _action(request: Request, body: dict[str, Any]) -> Response:
    return _close_session(request) if body["action"] == "close_session" else await act(request, body)


def _aimed(request: Request, native: SegmentRequest) -> SegmentRequest:
    """The request with the target model in place of the one that it does not name; of a path, in any case."""
    target = aimed_at(request) or (target_of(request) if native.model is None else None)
    return native if target is None else native.model_copy(update={"model": target})


def _close_session(request: Request) -> Response:
    session = request.headers.get(REQUEST_HEADER, "").strip()
    if not session or session == NEW_SESSION:
        raise InvalidRequestError("action close_session: the header X-Amzn-SageMaker-Session-Id names no session.")
    services_of(request).sessions.close(session)
    return json_response({"status": "closed"}, headers={CLOSED_HEADER: session})


JSON_PROTOCOLS: tuple[JsonProtocol, ...] = (
    JsonProtocol("action", '{"action": "langsam", "image_url": …, "text_prompt": …}, or "sam2" with x and y', _action),
    JsonProtocol("categoryname", '{"categoryname": "Flooring", "images": [{"url": …}]} for product tiling', tile),
    JsonProtocol("model", '{"model": "grounded_sam", "images": […], "prompt": {…}} as for /v1/segment', _native),
)
"""Looked through in this order."""

_TARGETED = JsonProtocol("images", '{"images": […], "prompt": {…}}', _native)
"""A native request may leave its model out where the path or a header names it."""

_RAW_FORM = (
    "a raw image (Content-Type: image/*) with the header "
    "X-Amzn-SageMaker-Custom-Attributes: model=grounded_sam;text=sofa. floor.;threshold=0.3"
)


def router() -> APIRouter:
    """SageMaker's routes."""
    routes = APIRouter(tags=["sagemaker"])
    routes.add_api_route("/invocations", invocations, methods=["POST"], **documentation.INVOCATIONS)
    routes.add_api_route(
        "/execution-parameters", execution_parameters, methods=["GET"], **documentation.EXECUTION_PARAMETERS
    )
    return routes


async def invocations(request: Request) -> Response:
    """SageMaker's one door: an action, product tiling, a native request, or a raw image with custom attributes."""
    sessions = services_of(request).sessions
    session = request.headers.get(REQUEST_HEADER, "").strip()
    if session and session != NEW_SESSION:
        sessions.check(session)
    response = await _invoked(request)
    if session == NEW_SESSION:
        response.headers[NEW_HEADER] = sessions.open().header
    return response


async def _invoked(request: Request) -> Response:
    body = await request.body()
    content_type = request.headers.get("content-type", "")
    if incoming.is_raw_image(content_type):
        served = services_of(request).served_models
        native = from_attributes(body, request.headers.get(_ATTRIBUTES, ""), served, target_of(request))
        return await respond(request, _aimed(request, native), [body])
    if not incoming.is_json(content_type) and not incoming.looks_like_json(body):
        came = f"came Content-Type {content_type[:80]!r}" if body else "the body is empty (0 bytes)"
        raise InvalidRequestError(_expected(came))
    value = incoming.json_object(body)
    for protocol in (*JSON_PROTOCOLS, *([_TARGETED] if target_of(request) else [])):
        if protocol.key in value:
            return await protocol.handle(request, value)
    keys = ", ".join(repr(key[:40]) for key in list(value)[:6]) or "none"
    raise InvalidRequestError(_expected(f"came a JSON object with the keys {keys}"))


def from_attributes(body: bytes, text: str, served: ServedModels, target: str | None = None) -> SegmentRequest:
    """The native request for an image body that custom attributes describe.

    They have the form ``name=value;…``, values percent-encoded where need be; ``threshold`` stands for the
    model's own threshold. target: the model of a request that names none.

    Raises:
        InvalidRequestError: an empty body, attributes of another form, or an unknown name.
    """
    fields: list[tuple[str, str]] = []
    for pair in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = pair.partition("=")
        if not equals:
            raise InvalidRequestError(
                f"X-Amzn-SageMaker-Custom-Attributes: expected name=value;name=value, came {pair[:60]!r}."
            )
        fields.append((name.strip(), unquote(value.strip())))
    entry = served.known_entry(dict(fields).get("model") or target or served.default())
    threshold = "box_threshold" if entry is None or "box_threshold" in entry.parameters else "score_threshold"
    named = [(threshold if name == "threshold" else name, value) for name, value in fields]
    return incoming.from_raw(body, named, "X-Amzn-SageMaker-Custom-Attributes")


async def execution_parameters(request: Request) -> Response:
    """What a batch transform job should send: as much at a time as there are workers for, and as jobs may hold."""
    services = services_of(request)
    workers = sum(status.ready_workers for status in services.readiness.snapshot.models.values())
    payload_mb = min(max(1, services.settings.limits.max_body_bytes // 2**20), _TRANSFORM_MB)
    return json_response(
        {
            "MaxConcurrentTransforms": max(1, min(workers * _TRANSFORMS_PER_WORKER, _TRANSFORM_MB // payload_mb)),
            "BatchStrategy": "SINGLE_RECORD",
            "MaxPayloadInMB": payload_mb,
        }
    )


def _expected(came: str) -> str:
    forms = [protocol.form for protocol in JSON_PROTOCOLS] + [_RAW_FORM]
    numbered = "; ".join(f"({number}) {form}" for number, form in enumerate(forms, 1))
    return f"/invocations takes one of: {numbered}. Here {came}."
