"""Other routes through ``POST /invocations``: SageMaker passes requests on to that one path only, and few headers.

A proxy in front of an endpoint (sagemaker/lambda) names the route in the custom attributes, percent-encoded:
``X-Amzn-SageMaker-Custom-Attributes: route=GET%20/v1/models``. Body, Content-Type and Accept are the route's own. Of an
answer's headers SageMaker passes on these attributes only, so that the others that callers read travel in them.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segserve.errors import InvalidRequestError
from segserve.gateway.trace import trace_of

_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"

ROUTES: tuple[str, ...] = (
    "GET /ping",
    "GET /docs",
    "GET /openapi.json",
    "GET /v1/models",
    "GET /v1/models/{name}",
    "GET /v1/categories",
    "POST /v1/picture",
    "POST /v1/segment",
    "POST /segment/langsam",
    "POST /segment/sam2",
    "POST /predict",
    "POST /infer/url",
    "POST /infer/file",
)
"""What may be named. Nothing that changes the service, its files or its models."""

_KNOWN = re.compile("|".join(re.escape(route).replace(r"\{name\}", "[A-Za-z0-9._-]+") for route in ROUTES))
_ROUTE = re.compile(r"(?P<route>[A-Z]+ /[^?#\s]*)(?:\?(?P<query>[\x21-\x7e]*))?")
_RETURNED = (b"x-masked-percentage", b"x-unmasked-percentage", b"retry-after")


class AttributeRoute:
    """Innermost: keys, limits and the log see the request as it came, and then under the route's path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = _named(scope) if scope["type"] == "http" and scope["path"] == "/invocations" else None
        if named is None:
            await self._app(scope, receive, send)
            return
        method, path, query = named
        headers = [(name, value) for name, value in scope["headers"] if name != _ATTRIBUTES]
        scope.update(method=method, path=path, raw_path=path.encode(), query_string=query.encode(), headers=headers)

        async def returned(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (_ATTRIBUTES, _attributes(scope, message))]
            await send(message)

        await self._app(scope, receive, returned)


def _named(scope: Scope) -> tuple[str, str, str] | None:
    """Method, path and query of the route that the attributes name; None where they name none.

    Raises:
        InvalidRequestError: no route of ROUTES, or other attributes beside it.
    """
    text = next((value.decode("latin-1") for name, value in scope["headers"] if name == _ATTRIBUTES), "")
    pairs = [part.strip().partition("=") for part in text.split(";") if part.strip()]
    given = [unquote(value.strip()) for name, _, value in pairs if name.strip() == "route"]
    if not given:
        return None
    if len(pairs) > 1:
        raise InvalidRequestError(
            "X-Amzn-SageMaker-Custom-Attributes: route stands alone; what else the route takes belongs into its query "
            "(route=POST%20/v1/segment%3Fmodel%3Dmask_rcnn) or the body."
        )
    found = _ROUTE.fullmatch(given[0])
    if found is None or not _KNOWN.fullmatch(found["route"]):
        raise InvalidRequestError(
            f"X-Amzn-SageMaker-Custom-Attributes route: expected one of {', '.join(ROUTES)}; came {given[0][:60]!r}."
        )
    method, path = found["route"].split(" ")
    return method, path, found["query"] or ""


def _attributes(scope: Scope, started: Message) -> bytes:
    """The answer's headers that SageMaker would drop, as attributes."""
    kept = [(name, value) for name, value in started["headers"] if name.lower() in _RETURNED]
    kept.append((b"x-request-id", trace_of(scope).request_id.encode("ascii")))
    return ";".join(f"{name.decode('ascii')}={quote(value.decode('latin-1'))}" for name, value in kept).encode("ascii")
