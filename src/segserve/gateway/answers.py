"""JSON responses, written straight from plain values: no second validation of what a worker answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response


def json_bytes(value: Any) -> bytes:
    """Compact UTF-8 JSON. NaN and infinities, which are no JSON, are a ValueError."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response with value as JSON."""
    return Response(json_bytes(value), status_code=status, headers=headers, media_type="application/json")
