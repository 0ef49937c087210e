"""The SageMaker endpoint behind the API."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from segserve_api.errors import error_of
from segserve_api.messages import Answer, ApiRequest
from segserve_api.routes import INVOCATIONS, attributes_for
from segserve_api.settings import ApiSettings

CONNECT_S = 2.0
_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
_RETURNED = {"x-masked-percentage": "X-Masked-Percentage", "x-unmasked-percentage": "X-Unmasked-Percentage"}


class Endpoint:
    """Asks the endpoint. One for the function's lifetime: it keeps its connections.

    Args:
        runtime: boto3's client of the service sagemaker-runtime; made from the settings when it is None.
    """

    def __init__(self, settings: ApiSettings, runtime: Any = None) -> None:
        self._settings = settings
        # Once, and in time: API Gateway gives the whole request 29 s, so that a second attempt would come too late.
        config = Config(connect_timeout=CONNECT_S, read_timeout=settings.timeout_s, retries={"total_max_attempts": 1})
        self._runtime = runtime or boto3.client("sagemaker-runtime", config=config)

    def answer(self, request: ApiRequest) -> Answer:
        """Pass a request on.

        Raises:
            ApiError: it is not one for the endpoint, or the endpoint failed.
        """
        asked = self._arguments(request)
        try:
            response = self._runtime.invoke_endpoint(**asked)
            body = response["Body"].read()
        except (ClientError, BotoCoreError) as error:
            raise error_of(error, self._settings.timeout_s) from error
        headers = _returned(response, request.path)
        return Answer(200, body, response.get("ContentType") or "application/octet-stream", headers)

    def _arguments(self, request: ApiRequest) -> dict[str, Any]:
        given = request.headers.get(_ATTRIBUTES, "")
        attributes = attributes_for(request.method, request.path, request.query, given)
        asked = {
            "EndpointName": self._settings.endpoint_name,
            "ContentType": request.content_type,
            "Accept": request.headers.get("accept", "").strip() or "*/*",
            "CustomAttributes": attributes,
            "TargetModel": request.headers.get("x-amzn-sagemaker-target-model", "") or self._settings.target_model,
            "SessionId": request.headers.get("x-amzn-sagemaker-session-id", ""),
            "InferenceId": request.request_id,
            # A route without a body still is an invocation, which has one.
            "Body": request.body if request.method == "POST" else b"{}",
        }
        return {name: value for name, value in asked.items() if value or name == "Body"}


def _returned(response: dict[str, Any], path: str) -> dict[str, str]:
    """An answer's headers; those of a named route travel in the custom attributes."""
    attributes = str(response.get("CustomAttributes") or "")
    headers: dict[str, str] = {}
    if response.get("NewSessionId"):
        headers["X-Amzn-SageMaker-New-Session-Id"] = str(response["NewSessionId"])
    if path == INVOCATIONS:
        return headers | ({"X-Amzn-SageMaker-Custom-Attributes": attributes} if attributes else {})
    for pair in attributes.split(";"):
        name, _, value = pair.partition("=")
        shown = _RETURNED.get(name.strip().lower())
        told = unquote(value)
        # Looked at as it is sent: a decoded line break would begin another header.
        if shown and told.isascii() and told.isprintable():
            headers[shown] = told
    return headers
