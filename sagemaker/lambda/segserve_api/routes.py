"""The API's routes, and how each is asked of an endpoint, which knows ``/invocations`` only."""

from __future__ import annotations

import re
from urllib.parse import quote

from segserve_api.errors import ApiError

_NAMED = {
    "/ping": "GET",
    "/docs": "GET",
    "/openapi.json": "GET",
    "/v1/models": "GET",
    "/v1/categories": "GET",
    "/v1/picture": "POST",
    "/v1/segment": "POST",
    "/segment/langsam": "POST",
    "/segment/sam2": "POST",
    "/predict": "POST",
    "/infer/url": "POST",
    "/infer/file": "POST",
}
_MODEL = re.compile(r"/v1/models/[A-Za-z0-9._-]+")
_MAX_ATTRIBUTES = 1024
INVOCATIONS = "/invocations"


def is_known(path: str) -> bool:
    """Whether the API has the path."""
    return path == INVOCATIONS or path in _NAMED or _MODEL.fullmatch(path) is not None


def attributes_for(method: str, path: str, query: str, given: str) -> str:
    """The custom attributes with which the endpoint is asked for a route.

    Args:
        given: the caller's own, which ``/invocations`` takes.

    Raises:
        ApiError: 404 or 405 for what the API does not have, 414 for a query that is too long.
    """
    if not is_known(path):
        raise ApiError(
            404,
            "not_found",
            f"There is no route {path[:80]!r} here: this API passes on POST {INVOCATIONS} and "
            f"{', '.join(f'{verb} {name}' for name, verb in _NAMED.items())}.",
        )
    expected = "POST" if path == INVOCATIONS else _NAMED.get(path, "GET")
    if method != expected:
        scaling = " The endpoint's own scaling sets the workers." if method == "PUT" else ""
        raise ApiError(405, "method_not_allowed", f"{path} takes {expected} here, not {method[:10]}.{scaling}")
    if path == INVOCATIONS:
        return given
    # Twice for the query: it keeps its own encoding inside the attribute's.
    route = quote(f"{method} {path}{f'?{query}' if query else ''}", safe="/")
    if len(route) > _MAX_ATTRIBUTES - len("route="):
        raise ApiError(
            414, "uri_too_long", "The query is too long for an endpoint: send these fields as JSON or a form."
        )
    return f"route={route}"
