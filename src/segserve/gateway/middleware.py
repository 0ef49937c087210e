"""What wraps every route, as plain ASGI: observation, keys, and the bounds of a request (size, time, a caller gone)."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segserve.errors import (
    InternalError,
    NotReadyError,
    SegserveError,
    TimedOutError,
    TooLargeError,
    UnauthorizedError,
)
from segserve.gateway.failures import error_response, seed_fields
from segserve.gateway.metrics import Metrics
from segserve.gateway.trace import CALLER_GONE, Trace, begin, trace_of

logger = logging.getLogger("segserve.access")

OPEN_ROUTES = frozenset({"/ping", "/livez", "/readyz"})
"""Health checks: they ask for no key."""

_STREAM_LIMITS = 10
"""A streamed answer may take so many times the time limit in all."""


class Observation:
    """Outermost: request id, one log line, metrics, trailing slashes, and the last resort for bugs."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        trace = begin(scope)
        path: str = scope["path"]
        if len(path) > 1 and path.endswith("/"):
            scope["path"] = path.rstrip("/") or "/"
            scope["raw_path"] = scope["path"].encode("utf-8")

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
                message["headers"] = [*message["headers"], *_returned_ids(trace)]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except SegserveError as error:
            await self._fail(error, trace, scope, receive, observed)
        except asyncio.CancelledError:
            # The server's last resort when it stops and its grace is over. The task ends here, so nothing is held up.
            stopping = NotReadyError("The service is stopping and could not finish the request. Try again.")
            await self._fail(stopping, trace, scope, receive, observed)
        except Exception:
            logger.exception("bug", extra={"fields": {"request_id": trace.request_id, "path": scope["path"]}})
            bug = InternalError("An internal error; the server's log has it under the request id.")
            await self._fail(bug, trace, scope, receive, observed)
        finally:
            self._report(scope, trace, time.perf_counter() - started)

    async def _fail(self, error: SegserveError, trace: Trace, scope: Scope, receive: Receive, send: Send) -> None:
        trace.error = error.error_code
        if trace.status is None:
            before = seed_fields(scope["path"], error)
            await error_response(error, trace.request_id, before)(scope, receive, send)

    def _report(self, scope: Scope, trace: Trace, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        status = trace.status or CALLER_GONE
        self._metrics.count(route, scope["method"], status, seconds)
        if not logger.isEnabledFor(logging.INFO):
            return
        fields: dict[str, Any] = {
            "request_id": trace.request_id,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(seconds * 1e3, 1),
        }
        for name in ("model", "images", "error", "inference_id"):
            value = getattr(trace, name)
            if value is not None:
                fields[name] = value
        logger.info("request", extra={"fields": fields})


def _returned_ids(trace: Trace) -> list[tuple[bytes, bytes]]:
    ids = [(b"x-request-id", trace.request_id.encode("ascii"))]
    if trace.inference_id is not None:
        ids.append((b"x-amzn-sagemaker-inference-id", trace.inference_id.encode("ascii")))
    return ids


class Gatekeeper:
    """Asks for a key: ``Authorization: Bearer …`` or ``X-API-Key``. Without keys it lets everyone pass.

    Args:
        keys: those of callers.
        admin_keys: open the same routes, where keys are asked for.
        open_paths: that ask for no key, beside the health checks.
        fronts: beginnings of paths whose routes hand the request to another route of the app, which asks for it.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Iterable[str],
        admin_keys: Iterable[str] = (),
        open_paths: frozenset[str] = frozenset(),
        fronts: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._fronts = fronts
        self._open_paths = OPEN_ROUTES | open_paths
        self._keys = [key.encode("utf-8") for key in keys]
        if self._keys:
            self._keys += [key.encode("utf-8") for key in admin_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._keys and scope["type"] == "http" and not self._is_open(scope["path"]):
            check_key(scope, self._keys, "This service needs an API key")
        await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self._open_paths or path.startswith(self._fronts)


def check_key(scope: Scope, keys: Iterable[bytes], why: str) -> None:
    """Whether the request shows one of the keys; compared in constant time, each with every key.

    Raises:
        UnauthorizedError: none, or a wrong one; opens with why.
    """
    shown = b""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            shown = value.strip()
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            shown = value[7:].strip()
    if not shown:
        raise UnauthorizedError(f"{why}: send it as Authorization: Bearer KEY or X-API-Key: KEY; none came.")
    matches = [hmac.compare_digest(shown, key) for key in keys]
    if not any(matches):
        raise UnauthorizedError(f"{why}; the one that came is not valid.")


class Bounds:
    """Reads the body within its limit, answers within the time limit, and stops when the caller goes away.

    A streamed answer begins within the time limit; each further piece of it has as long, and all of it ten times that.
    fronts: as Gatekeeper's; the route behind them bounds the request. slow: other time limits, by path.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body_bytes: int,
        timeout_s: float,
        fronts: tuple[str, ...] = (),
        slow: Mapping[str, float] | None = None,
    ) -> None:
        self._app = app
        self._slow = slow or {}
        self._fronts = fronts
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] in ("GET", "HEAD", "OPTIONS")
            or scope["path"].startswith(self._fronts)
        ):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._slow.get(scope["path"], self._timeout_s)) as deadline:
                body = await self._read(scope, receive)
                if body is None:
                    trace_of(scope).status = CALLER_GONE
                else:
                    await self._answer(body, scope, receive, self._prolonging(send, deadline))
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise TimedOutError(
                f"The request took more than {self._timeout_s:g} s. Send fewer or smaller images."
            ) from error

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the caller went away while sending it."""
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_body_bytes:
                raise self._too_large()
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _answer(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the route with the body at hand; cancel it if the caller goes away meanwhile."""
        answering = asyncio.current_task()
        trace = trace_of(scope)
        replay = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replayed() -> Message:
            return next(replay, {"type": "http.disconnect"})

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            trace.gone = True
            if answering is not None and trace.status is None:
                answering.cancel()

        watcher = asyncio.create_task(watch())
        try:
            await self._app(scope, replayed, send)
        except asyncio.CancelledError:
            if not trace.gone or answering is None or answering.uncancel() > 0:
                raise
            trace.status = CALLER_GONE
        finally:
            watcher.cancel()

    def _prolonging(self, send: Send, deadline: asyncio.Timeout) -> Send:
        """Send, with more time after each piece of a streamed answer."""
        clock = asyncio.get_running_loop().time
        last = clock() + _STREAM_LIMITS * self._timeout_s

        async def sent(message: Message) -> None:
            await send(message)
            if message.get("more_body"):
                deadline.reschedule(min(clock() + self._timeout_s, last))

        return sent

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            f"The body has more than {self._max_body_bytes:,} bytes. Send smaller or fewer images, or their URLs.",
            code="body_too_large",
        )
