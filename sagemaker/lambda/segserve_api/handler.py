"""The function: ``segserve_api.handler.lambda_handler``."""

from __future__ import annotations

import json
import logging
import os
import time
from functools import cache
from typing import Any

from segserve_api import cors
from segserve_api.endpoint import Endpoint
from segserve_api.errors import ApiError
from segserve_api.keys import Keys
from segserve_api.messages import Answer, ApiRequest, Event, json_answer, read_event, request_id_of, write_event
from segserve_api.page import Page
from segserve_api.routes import is_known
from segserve_api.settings import ApiSettings, settings_from_environment

logger = logging.getLogger("segserve_api")
logger.setLevel(logging.INFO)

_HTML = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""Of HTML that comes from the endpoint (its documentation); the page's files bring a policy of their own."""


class Api:
    """Requests in, answers out.

    Args:
        endpoint, keys, page: made from the settings where they are None.
    """

    def __init__(
        self,
        settings: ApiSettings,
        endpoint: Endpoint | None = None,
        keys: Keys | None = None,
        page: Page | None = None,
    ) -> None:
        self._settings = settings
        self._endpoint = endpoint or Endpoint(settings)
        self._keys = keys or Keys(settings.api_key_secret)
        self._page = page or Page()

    def handle(self, event: Event) -> dict[str, Any]:
        """Answer an event of API Gateway. Always an answer, never an exception."""
        started = time.perf_counter()
        request_id = "unknown"
        request: ApiRequest | None = None
        failure: ApiError | None = None
        try:
            request_id = request_id_of(event)
            request = read_event(event, self._settings.base_path, self._has)
            result = write_event(self._finished(self._answered(request, event), request.headers, request_id))
        except ApiError as error:
            failure = error
        except Exception:
            logger.exception(json.dumps({"message": "bug", "request_id": request_id}))
            text = "An internal error; the API's log has it under the request id."
            failure = ApiError(500, "internal_error", text)
        if failure is not None:
            headers = {} if request is None else request.headers
            result = write_event(self._finished(_refusal(failure, request_id), headers, request_id))
        _log(request, request_id, result["statusCode"], time.perf_counter() - started, failure)
        return result

    def _has(self, path: str) -> bool:
        return is_known(path) or self._page.has(path)

    def _answered(self, request: ApiRequest, event: Event) -> Answer:
        if cors.is_preflight(request.method, request.headers):
            return Answer(204, headers=cors.preflight(self._settings.origins, request.headers))
        location = str(event.get("rawPath") or (event.get("requestContext") or {}).get("path") or "/")
        file = self._page.answer(request, location)
        if file is not None:
            return file
        self._keys.check(request.headers)
        size = len(request.body)
        if size > self._settings.max_body_bytes:
            raise ApiError(
                413,
                "body_too_large",
                f"The body has {size:,} bytes, this API takes {self._settings.max_body_bytes:,}: send a smaller "
                "picture (a JPEG instead of a PNG), name it by its URL, or ask the endpoint itself, which takes 25 MB.",
            )
        return self._endpoint.answer(request)

    def _finished(self, answer: Answer, headers: Any, request_id: str) -> Answer:
        """The answer with what every one of them carries."""
        added = {"X-Request-Id": request_id, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        if answer.content_type.startswith("text/html"):
            added["Content-Security-Policy"] = _HTML
        shared = cors.allowing(self._settings.origins, headers)
        return Answer(answer.status, answer.body, answer.content_type, {**added, **shared, **answer.headers})


def _refusal(failure: ApiError, request_id: str) -> Answer:
    if failure.body:
        kind = "application/json" if failure.is_json else "text/plain; charset=utf-8"
        return Answer(failure.status, failure.body.encode("utf-8"), kind, failure.headers)
    return json_answer(failure.status, failure.to_dict(request_id), failure.headers)


def _log(request: ApiRequest | None, request_id: str, status: int, seconds: float, failure: ApiError | None) -> None:
    fields: dict[str, Any] = {"message": "request", "request_id": request_id, "status": status}
    fields["ms"] = round(seconds * 1e3, 1)
    if request is not None:
        fields |= {"method": request.method, "path": request.path, "bytes": len(request.body)}
    if failure is not None:
        fields |= {"error": failure.code, "reason": failure.reason}
    logger.info(json.dumps(fields))


@cache
def _api() -> Api:
    """One for the function's lifetime; a wrong variable fails each request and is logged."""
    return Api(settings_from_environment(os.environ))


def lambda_handler(event: Event, context: object) -> dict[str, Any]:
    """API Gateway's entry."""
    return _api().handle(event)
