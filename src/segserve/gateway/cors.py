"""Cross-origin resource sharing (the Fetch standard's CORS protocol), as plain ASGI.

Two layers, since the headers belong on every answer, the failures of all other layers included, while a preflight is a
request like others, to be logged and to get its id, only that it never carries a key.
"""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segserve.config import CorsPolicy

_METHODS = "GET, POST, PUT, DELETE"
_REQUEST_HEADERS = "Accept, Authorization, Content-Type, X-API-Key, X-Request-Id, X-Amzn-SageMaker-Custom-Attributes"
_ANSWER_HEADERS = b"X-Request-Id, Retry-After, X-Masked-Percentage, X-Unmasked-Percentage"
_KEPT_S = 600

Headers = list[tuple[bytes, bytes]]


class CorsHeaders:
    """Outermost: lets pages of the policy's origins read the answers, whichever layer they come from."""

    def __init__(self, app: ASGIApp, policy: CorsPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added = _allowing(scope, self._policy)

        async def shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, shared)


class Preflight:
    """Answers what browsers ask before a request of an allowed origin; asks for no key. Any other goes on."""

    def __init__(self, app: ASGIApp, policy: CorsPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] != "OPTIONS"
            or not _header(scope, b"access-control-request-method")
            or not _is_allowed(_header(scope, b"origin"), self._policy)
        ):
            await self._app(scope, receive, send)
            return
        headers = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _REQUEST_HEADERS,
            "Access-Control-Max-Age": str(_KEPT_S),
        }
        await Response(status_code=204, headers=headers)(scope, receive, send)


def _allowing(scope: Scope, policy: CorsPolicy) -> Headers:
    """The headers that let a page read an answer."""
    origin = _header(scope, b"origin")
    # What depends on the origin must not be kept by a cache for another one.
    added: Headers = [] if "*" in policy.origins else [(b"vary", b"Origin")]
    if not _is_allowed(origin, policy):
        return added
    shown = b"*" if "*" in policy.origins else origin
    added += [(b"access-control-allow-origin", shown), (b"access-control-expose-headers", _ANSWER_HEADERS)]
    if policy.credentials:
        added.append((b"access-control-allow-credentials", b"true"))
    return added


def _is_allowed(origin: bytes, policy: CorsPolicy) -> bool:
    return bool(origin) and ("*" in policy.origins or origin.decode("latin-1") in policy.origins)


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for header, value in scope["headers"] if header == name), b"")
