"""What is known of a request while it runs: its id, and what its log line and its metrics will say."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

_KEY = "segserve.trace"
_INFERENCE_ID = b"x-amzn-sagemaker-inference-id"
_VALID_INFERENCE_ID = re.compile(rb"[\x21-\x7e][\x20-\x7e]{0,63}")
_VALID_ID = re.compile(rb"[\x21-\x7e]{1,128}")


CALLER_GONE = 499
"""The status that stands for an answer nobody waited for."""


@dataclass(slots=True)
class Trace:
    """One request.

    Attributes:
        status: of the answer, once it has begun; CALLER_GONE when the caller went away.
        images: how many.
        inference_id: SageMaker's id of the request, if it sent one.
        gone: whether the caller has closed the connection.
    """

    request_id: str
    status: int | None = None
    model: str | None = None
    images: int | None = None
    error: str | None = None
    inference_id: str | None = None
    gone: bool = False


def begin(scope: MutableMapping[str, Any]) -> Trace:
    """Start the trace of a request, under an id of the caller's that is printable and short, else a new one.

    It is that of X-Request-Id; where SageMaker, which drops it, passes the request on, the inference id.
    """
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    inference_id = next((value for name, value in scope["headers"] if name == _INFERENCE_ID), b"")
    valid = next((each for each in (given, inference_id) if _VALID_ID.fullmatch(each)), None)
    trace = Trace(valid.decode("ascii") if valid else os.urandom(8).hex())
    if _VALID_INFERENCE_ID.fullmatch(inference_id):
        trace.inference_id = inference_id.decode("ascii")
    scope[_KEY] = trace
    return trace


def trace_of(scope: MutableMapping[str, Any]) -> Trace:
    """The trace of the request that a scope belongs to."""
    trace: Trace = scope[_KEY]
    return trace
