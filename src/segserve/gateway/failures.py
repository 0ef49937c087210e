"""Exceptions to responses: the one place. Every failure has the same shape and the request's id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from segserve.errors import SegserveError
from segserve.gateway.answers import json_response
from segserve.gateway.trace import trace_of


def error_response(
    error: SegserveError, request_id: str, before: Mapping[str, Any] | None = None, status: int | None = None
) -> Response:
    """The answer to a failed request.

    Args:
        before: fields that a seed's clients expect ahead of the error object.
        status: the HTTP status that they expect, where it is not the error's own.
    """
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = {**(before or {}), "error": error.to_dict(request_id)}
    return json_response(body, status=status or error.status, headers=headers)


def seed_fields(path: str, error: SegserveError) -> dict[str, Any]:
    """What a seed's clients expect ahead of the error object when a request to path failed before its route."""
    return {"detail": f"Fail! Error: {error.message}"} if path.startswith("/infer/") else {}


async def on_segserve_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for the expected failures."""
    if not isinstance(error, SegserveError):
        raise error
    trace = trace_of(request.scope)
    trace.error = error.error_code
    return error_response(error, trace.request_id)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's handler for what its router raises: unknown routes and methods."""
    if not isinstance(error, HTTPException):
        raise error
    trace = trace_of(request.scope)
    body: dict[str, Any]
    if error.status_code == 404:
        body = {"code": "not_found", "message": f"There is no route {request.url.path}; /docs lists them all."}
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        body = {
            "code": "method_not_allowed",
            "message": f"{request.url.path} does not take {request.method}; it takes {allowed}.",
        }
    else:
        body = {"code": "invalid_request", "message": str(error.detail)}
    trace.error = body["code"]
    body["request_id"] = trace.request_id
    return json_response({"error": body}, status=error.status_code, headers=dict(error.headers or {}))
