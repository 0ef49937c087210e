"""What can go wrong, as answers: the endpoint's failures with their own status and body, AWS's without details."""

from __future__ import annotations

import json
import re
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

_RETRY_AFTER_S = {429: 2, 503: 5}
_PRIVATE = re.compile(r"arn:[\w:/.-]+|\b\d{12}\b")
"""ARNs and account numbers, which AWS puts into its messages."""

_CUT_ERROR = re.compile(
    r'"error":{"code":"(?P<code>\w+)","message":"(?P<message>(?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-f]{4})*)'
)
"""An error of segserve's API, as far as it goes."""

_AWS = {
    "ThrottlingException": (429, "throttled", "The endpoint gets more requests than it may. Try again."),
    "ThrottledException": (429, "throttled", "The endpoint gets more requests than it may. Try again."),
    "TooManyRequestsException": (429, "throttled", "The endpoint gets more requests than it may. Try again."),
    "ModelNotReadyException": (503, "not_ready", "The endpoint is loading the model. Try again."),
    "ServiceUnavailable": (503, "unavailable", "The endpoint is not available for the moment. Try again."),
    "ServiceUnavailableException": (503, "unavailable", "The endpoint is not available for the moment. Try again."),
}
_NO_ENDPOINT = (503, "not_ready", "The endpoint is not in service: it is being created, or has been deleted.")
_BROKEN = (
    502,
    "endpoint_failed",
    "The endpoint could not be asked; the API's log has the reason under the request id.",
)


class ApiError(Exception):
    """A request that ends with an error answer.

    Attributes:
        status, code, message: as in every error of segserve's API; safe to send.
        reason: for the log only.
        body: sent instead, where the endpoint's container answered itself; JSON or plain text.
    """

    def __init__(self, status: int, code: str, message: str, *, reason: str = "", body: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.reason, self.body = status, code, message, reason, body

    @property
    def headers(self) -> dict[str, str]:
        """Those that the status asks for."""
        headers = {"Retry-After": str(_RETRY_AFTER_S[self.status])} if self.status in _RETRY_AFTER_S else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    @property
    def is_json(self) -> bool:
        """Whether body is JSON."""
        return _is_json(self.body)

    def to_dict(self, request_id: str) -> dict[str, Any]:
        """The error answer of segserve's API."""
        return {"error": {"code": self.code, "message": self.message, "request_id": request_id}}


def error_of(error: ClientError | BotoCoreError, timeout_s: float) -> ApiError:
    """What a failed call of the endpoint is answered with."""
    if isinstance(error, ReadTimeoutError):
        return _timed_out(timeout_s, str(error))
    if not isinstance(error, ClientError):
        return ApiError(*_BROKEN, reason=f"{type(error).__name__}: {error}")
    response: dict[str, Any] = dict(error.response)
    code, message = response["Error"].get("Code", ""), response["Error"].get("Message", "")
    reason = f"{code}: {message}"
    if code == "ModelError":
        return _of_container(response, reason, timeout_s)
    if code in ("ValidationError", "ValidationException"):
        return _of_validation(message, reason)
    # AccessDenied, ExpiredToken, InternalFailure, whatever else: nothing that the caller could mend, or should know.
    return ApiError(*_AWS.get(code, _BROKEN), reason=reason)


def _of_validation(message: str, reason: str) -> ApiError:
    if re.search(r"[Ee]ndpoint .* not found|[Cc]ould not find endpoint", message):
        return ApiError(*_NO_ENDPOINT, reason=reason)
    return ApiError(400, "invalid_request", _PRIVATE.sub("…", message) or "SageMaker refused it.", reason=reason)


def _of_container(response: dict[str, Any], reason: str, timeout_s: float) -> ApiError:
    status, body = int(response.get("OriginalStatusCode") or 0), str(response.get("OriginalMessage") or "")
    if status == 0:
        # SageMaker's own limit of 60 s ran out.
        return _timed_out(min(timeout_s, 60.0), reason)
    if not 400 <= status <= 599 or not body:
        return ApiError(*_BROKEN, reason=reason)
    cut = _CUT_ERROR.search(body)
    if cut and not _is_json(body):
        # SageMaker passes on 2,048 characters: what is left of the error is told in the usual form.
        message = json.loads(f'"{cut["message"]}"') + " …"
        return ApiError(status, cut["code"], message, reason=reason)
    return ApiError(status, "model_error", "The model answered with an error.", reason=reason, body=body)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _timed_out(timeout_s: float, reason: str) -> ApiError:
    return ApiError(
        504,
        "timed_out",
        f"The endpoint took more than {timeout_s:g} s, which is what API Gateway leaves it. Send a smaller picture or "
        "fewer of them, or ask the endpoint itself, which has 60 s, or an asynchronous one.",
        reason=reason,
    )
