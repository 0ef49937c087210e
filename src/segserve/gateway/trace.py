"""What is known of a request while it runs: its id, and what its log line and its metrics will say."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

_KEY = "segserve.trace"
_VALID_ID = re.compile(rb"[\x21-\x7e]{1,128}")


CALLER_GONE = 499
"""The status that stands for an answer nobody waited for."""


@dataclass(slots=True)
class Trace:
    """One request.

    Attributes:
        status: of the answer, once it has begun; CALLER_GONE when the caller went away.
        images: how many.
        gone: whether the caller has closed the connection.
    """

    request_id: str
    status: int | None = None
    model: str | None = None
    images: int | None = None
    error: str | None = None
    gone: bool = False


def begin(scope: MutableMapping[str, Any]) -> Trace:
    """Start the trace of a request, under the caller's X-Request-Id if it is printable and short, else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    request_id = given.decode("ascii") if _VALID_ID.fullmatch(given) else os.urandom(8).hex()
    trace = Trace(request_id)
    scope[_KEY] = trace
    return trace


def trace_of(scope: MutableMapping[str, Any]) -> Trace:
    """The trace of the request that a scope belongs to."""
    trace: Trace = scope[_KEY]
    return trace
