"""Every failure that segserve expects, as one tree.

    SegserveError
    ├── RequestError                     the caller can mend it (4xx)
    │   ├── InvalidRequestError     400  malformed body, wrong type, value out of range
    │   ├── UnauthorizedError       401  missing or wrong API key
    │   ├── NotFoundError           404  unknown model, file or route
    │   ├── AlreadyLoadedError      409  a model of that name is loaded, or is just being loaded or unloaded
    │   ├── TooLargeError           413  body, image or answer over its limit
    │   ├── NotAnImageError         415  the bytes are no image format that we read
    │   ├── UndecodableImageError   422  an image, but broken
    │   ├── InvalidPromptError      422  the prompt does not fit the model
    │   ├── FetchError              424  an image URL that could not (or may not) be fetched
    │   └── QueueFullError          429  try again later
    └── ServiceError                     the service is to blame (5xx)
        ├── InternalError           500  a bug; logged with the request id
        ├── NotReadyError           503  the model has no loaded worker yet
        ├── UnreachableError        503  no server answers at the address (raised by the client)
        ├── WorkerLostError         503  the worker died while answering, also on the retry
        ├── TimedOutError           504  no answer in time
        ├── OutOfMemoryError        507  the item alone does not fit into the device's memory
        └── NoRoomError             507  there is no memory for one more model

Messages are written for the caller: they name the field, what was expected and what came, and they never
contain a traceback, a path or an address of the server.
"""

from __future__ import annotations

from typing import Any, ClassVar


class SegserveError(Exception):
    """Base of all expected failures.

    Attributes:
        code: stable machine-readable word, sent as ``error.code``.
        status: the HTTP status it is answered with.
        message: text for the caller, safe to send.
        retry_after: seconds for the ``Retry-After`` header, or None.
        request_id: of the answer that it came in, where it crossed a process boundary.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    retry_after: ClassVar[int | None] = None

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or self.code
        self.request_id: str | None = None

    def to_dict(self, request_id: str | None = None) -> dict[str, Any]:
        """The ``error`` object of an answer: ``{"code", "message"[, "request_id"]}``."""
        body: dict[str, Any] = {"code": self.error_code, "message": self.message}
        if request_id is not None:
            body["request_id"] = request_id
        return body


class RequestError(SegserveError):
    """The caller can mend it."""

    code = "invalid_request"
    status = 400


class InvalidRequestError(RequestError):
    """Malformed body, wrong type, or a value out of its range."""


class UnauthorizedError(RequestError):
    """The API key is missing or wrong."""

    code = "unauthorized"
    status = 401


class NotFoundError(RequestError):
    """Unknown model, file or route."""

    code = "not_found"
    status = 404


class AlreadyLoadedError(RequestError):
    """A model of that name is loaded, or is being loaded or unloaded at this moment."""

    code = "already_loaded"
    status = 409


class TooLargeError(RequestError):
    """A body, an image or an answer is over its limit."""

    code = "too_large"
    status = 413


class NotAnImageError(RequestError):
    """The bytes are in no image format that segserve reads."""

    code = "not_an_image"
    status = 415


class UndecodableImageError(RequestError):
    """The bytes claim to be an image but cannot be decoded."""

    code = "undecodable_image"
    status = 422


class InvalidPromptError(RequestError):
    """The prompt does not fit the model."""

    code = "invalid_prompt"
    status = 422


class FetchError(RequestError):
    """An image URL could not, or may not, be fetched."""

    code = "fetch_failed"
    status = 424


class QueueFullError(RequestError):
    """The model's queue is full."""

    code = "queue_full"
    status = 429
    retry_after = 1


class ServiceError(SegserveError):
    """The service is to blame, not the caller."""

    code = "internal_error"
    status = 500


class InternalError(ServiceError):
    """A bug. The caller sees no detail; the log has it under the request id."""


class NotReadyError(ServiceError):
    """The model has no worker that has loaded it yet."""

    code = "not_ready"
    status = 503
    retry_after = 5


class UnreachableError(ServiceError):
    """No server answers at the address, or the connection broke before an answer came."""

    code = "unreachable"
    status = 503


class WorkerLostError(ServiceError):
    """The worker died while answering, and so did the one that was asked again."""

    code = "worker_lost"
    status = 503
    retry_after = 5


class TimedOutError(ServiceError):
    """No answer in time."""

    code = "timed_out"
    status = 504


class OutOfMemoryError(ServiceError):
    """A single item does not fit into the device's memory."""

    code = "out_of_memory"
    status = 507


class NoRoomError(ServiceError):
    """There is not enough memory for one more model."""

    code = "no_room"
    status = 507


def error_classes() -> list[type[SegserveError]]:
    """All concrete classes of the tree, base classes included, in definition order."""
    found: list[type[SegserveError]] = []
    pending: list[type[SegserveError]] = [SegserveError]
    while pending:
        cls = pending.pop(0)
        found.append(cls)
        pending.extend(cls.__subclasses__())
    return found


def error_from_status(status: int, message: str, code: str | None = None) -> SegserveError:
    """The error of the tree that a status (and, where several share it, a code) stands for.

    Used where an error crosses a process boundary: a worker's answer to the gateway, the gateway's to a client.
    Unknown statuses become InvalidRequestError (4xx) or InternalError (5xx).
    """
    matches = [cls for cls in error_classes() if cls.status == status and "code" in vars(cls)]
    for cls in matches:
        if cls.code == code:
            return cls(message, code=code)
    if matches:
        return matches[0](message, code=code)
    fallback: type[SegserveError] = InvalidRequestError if 400 <= status < 500 else InternalError
    return fallback(message, code=code)
