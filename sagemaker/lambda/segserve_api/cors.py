"""Cross-origin requests (the Fetch standard's CORS protocol): which pages may read the answers."""

from __future__ import annotations

from collections.abc import Mapping

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Accept, Authorization, Content-Type, X-API-Key, X-Request-Id, "
    "X-Amzn-SageMaker-Custom-Attributes, X-Amzn-SageMaker-Session-Id, X-Amzn-SageMaker-Target-Model",
    "Access-Control-Max-Age": "600",
}
_SHOWN = (
    "X-Request-Id, Retry-After, X-Masked-Percentage, X-Unmasked-Percentage, X-Amzn-SageMaker-Custom-Attributes, "
    "X-Amzn-SageMaker-New-Session-Id"
)


def allowing(origins: tuple[str, ...], headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that let a page of one of the origins read an answer. Never with credentials."""
    if origins == ("*",):
        return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": _SHOWN}
    if not origins:
        return {}
    origin = headers.get("origin", "")
    # What depends on the origin must not be kept by a cache for another one.
    varying = {"Vary": "Origin"}
    if origin not in origins:
        return varying
    return varying | {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _SHOWN}


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser asks before a request."""
    return method == "OPTIONS" and "access-control-request-method" in headers


def preflight(origins: tuple[str, ...], headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of the answer to a preflight, allowing() aside; none for an origin that is not allowed."""
    allowed = origins == ("*",) or headers.get("origin", "") in origins
    return dict(_PREFLIGHT) if allowed else {}
