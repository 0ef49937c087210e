"""Requests and answers, from and to the events of API Gateway: HTTP API (payload 2.0), REST API (1.0), function URL."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from segserve_api.errors import ApiError
from segserve_api.settings import LAMBDA_PAYLOAD_BYTES

Event = Mapping[str, Any]

_VALID_ID = re.compile(r"[\x21-\x7e]{1,64}")
_TEXT = re.compile(r"text/.*|application/(json|javascript|.+\+json|.+\+xml|xml)|image/svg\+xml")
_OVERHEAD_BYTES = 16_384
"""For an answer's headers and braces."""


@dataclass(frozen=True)
class ApiRequest:
    """One request.

    Attributes:
        path: without the stage; begins with a slash.
        query: as it came, without the question mark.
        headers: by name in lower case.
        body: its bytes, whichever way the event holds them.
        stage: the path's first part that was taken away, with its slash; empty: none.
        request_id: the caller's X-Request-Id if it is printable and short, else API Gateway's.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    stage: str
    request_id: str

    @property
    def content_type(self) -> str:
        """As it came; JSON where none came."""
        return self.headers.get("content-type", "").strip() or "application/json"


@dataclass(frozen=True)
class Answer:
    """One answer. Its body's form follows from its Content-Type."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def request_id_of(event: Event) -> str:
    """The id under which a request is answered and logged, also when its event cannot be read."""
    given = _headers(event).get("x-request-id", "")
    if _VALID_ID.fullmatch(given):
        return given
    return str((event.get("requestContext") or {}).get("requestId") or "unknown")


def read_event(event: Event, base_path: str, is_known: Callable[[str], bool]) -> ApiRequest:
    """The request that an event holds.

    Args:
        base_path: that a custom domain puts in front of paths, without slashes.
        is_known: whether a path is one of the API's, so that a stage is not taken for a part of it.

    Raises:
        ApiError: 400 for a body that is not what the event says it is.
    """
    context = event.get("requestContext") or {}
    if "http" in context:
        method, path = context["http"]["method"], event.get("rawPath") or "/"
        query = event.get("rawQueryString") or ""
    else:
        method, path = event["httpMethod"], event.get("path") or "/"
        query = _query_of(event)
    path, stage = _without_stage(path, (str(context.get("stage") or ""), base_path), is_known)
    headers = _headers(event)
    return ApiRequest(method.upper(), path, query, headers, _body(event, headers), stage, request_id_of(event))


def write_event(answer: Answer) -> dict[str, Any]:
    """What the function returns to API Gateway.

    Raises:
        ApiError: 413 for an answer that Lambda would not pass on.
    """
    body, is_base64 = _encoded(answer)
    headers = {"Content-Type": answer.content_type, **answer.headers} if answer.body else dict(answer.headers)
    # Quotation marks and backslashes double in JSON; only a body that could reach the limit is measured.
    size = len(body) if is_base64 or 2 * len(body) < LAMBDA_PAYLOAD_BYTES else len(json.dumps(body))
    if size > LAMBDA_PAYLOAD_BYTES - _OVERHEAD_BYTES:
        raise ApiError(
            413,
            "answer_too_large",
            f"The answer has {size:,} bytes and Lambda passes on {LAMBDA_PAYLOAD_BYTES - _OVERHEAD_BYTES:,}: ask for "
            "less (mask_format rle, no render, a smaller picture), or ask the endpoint itself, which passes on 25 MB.",
        )
    return {"statusCode": answer.status, "headers": headers, "body": body, "isBase64Encoded": is_base64}


def json_answer(status: int, value: object, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer of JSON."""
    return Answer(status, json.dumps(value, ensure_ascii=False).encode("utf-8"), headers=headers or {})


def _encoded(answer: Answer) -> tuple[str, bool]:
    kind = answer.content_type.partition(";")[0].strip().lower()
    if not answer.body:
        return "", False
    if _TEXT.fullmatch(kind):
        try:
            return answer.body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(answer.body).decode("ascii"), True


def _headers(event: Event) -> dict[str, str]:
    several = {name.lower(): ",".join(values) for name, values in (event.get("multiValueHeaders") or {}).items()}
    return several | {name.lower(): str(value) for name, value in (event.get("headers") or {}).items()}


def _query_of(event: Event) -> str:
    """REST APIs give the query decoded and in pieces."""
    several = event.get("multiValueQueryStringParameters")
    if several is None:
        several = {name: [value] for name, value in (event.get("queryStringParameters") or {}).items()}
    return urlencode([(name, value) for name, values in several.items() for value in values])


def _body(event: Event, headers: Mapping[str, str]) -> bytes:
    text = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        kind = headers.get("content-type", "").lower()
        if text and kind.startswith(("image/", "application/octet-stream")) and "svg" not in kind:
            raise ApiError(
                400,
                "invalid_request",
                "The picture's bytes arrived as text, broken. A REST API must list its type in binaryMediaTypes (*/*).",
            )
        return str(text).encode("utf-8")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, "invalid_request", "The body is not the base64 text that the event says it is.") from error


def _without_stage(path: str, prefixes: tuple[str, ...], is_known: Callable[[str], bool]) -> tuple[str, str]:
    if len(path) > 1:
        path = path.rstrip("/") or "/"
    if is_known(path):
        return path, ""
    for prefix in filter(None, prefixes):
        if path == f"/{prefix}" or path.startswith(f"/{prefix}/"):
            return path[len(prefix) + 1 :] or "/", f"/{prefix}"
    return path, ""
