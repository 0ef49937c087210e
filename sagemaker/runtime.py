"""Invocations of an endpoint through SageMaker's runtime, at once or through its queue."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from calls import Calls
from deployment import Deployment
from failures import DeploymentError, failure_of
from payloads import Payload
from places import split
from waiting import wait

_ANSWER_TIMEOUT_S = 70.0
"""SageMaker itself gives up after 60 s."""


_LOADING_S = 360.0
"""A multi-model endpoint loads a model within this time, or not at all."""

LOADING_PAUSE_S = 10.0


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        content_type: of the body.
        seconds: from sending to the last byte, the network included.
        new_session, closed_session: ids of sessions, where the container began or ended one.
        attributes: the custom attributes of the answer.
    """

    body: bytes
    content_type: str
    seconds: float
    new_session: str | None = None
    closed_session: str | None = None
    attributes: str | None = None


class Runtime:
    """A client of SageMaker's runtime.

    Args:
        calls: whose region and credentials are used; None: a server at endpoint_url, which asks for none.
        endpoint_url: of a server that speaks the runtime's protocol; None: AWS.
    """

    def __init__(self, calls: Calls | None, endpoint_url: str | None = None) -> None:
        # Not asked again: an answer that timed out may still be computed.
        config = Config(read_timeout=_ANSWER_TIMEOUT_S, connect_timeout=5, retries={"total_max_attempts": 2})
        self._where = endpoint_url
        if endpoint_url is None and calls is not None:
            self._client = calls.client("sagemaker-runtime", config)
            return
        if urlsplit(endpoint_url or "").scheme not in ("http", "https"):
            raise DeploymentError(f"--endpoint-url {endpoint_url}: expected http://HOST:PORT.")
        unsigned = config.merge(Config(signature_version=UNSIGNED, proxies={}))
        session = boto3.session.Session(region_name="us-east-1")
        self._client = session.client("sagemaker-runtime", endpoint_url=endpoint_url, config=unsigned)

    def invoke(self, params: dict[str, Any], loading_s: float = _LOADING_S) -> Answer:
        """The answer to one request.

        Args:
            loading_s: how long to ask again while a multi-model endpoint fetches and loads the model.

        Raises:
            DeploymentError: the container refused it, with the container's own words; or no answer came.
        """
        started = time.perf_counter()
        try:
            answer = self._client.invoke_endpoint(**params)
            body = answer["Body"].read()
        except ClientError as error:
            is_loading = error.response.get("Error", {}).get("Code") == "ModelNotReadyException"
            if is_loading and loading_s > 0:
                time.sleep(LOADING_PAUSE_S)
                return self.invoke(params, loading_s - LOADING_PAUSE_S)
            raise self._refused(error) from error
        except BotoCoreError as error:
            raise failure_of(error, "sagemaker-runtime InvokeEndpoint") from error
        return Answer(
            body,
            answer.get("ContentType", ""),
            time.perf_counter() - started,
            answer.get("NewSessionId"),
            answer.get("ClosedSessionId"),
            answer.get("CustomAttributes"),
        )

    def _refused(self, error: ClientError) -> DeploymentError:
        status = error.response.get("OriginalStatusCode")
        if status is not None:
            message = str(error.response.get("OriginalMessage", "")).strip()
            return DeploymentError(f"the container answered {status}: {message[:2000]}", "ModelError")
        http = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if self._where is not None and http == 404:
            return DeploymentError(
                f"{self._where} does not speak SageMaker's runtime protocol: start it with segserve serve "
                "--sagemaker-runtime",
                "404",
            )
        return failure_of(error, "sagemaker-runtime InvokeEndpoint")


def invoke_async(deployment: Deployment, payload: Payload, params: dict[str, Any], timeout_s: float) -> Answer:
    """Put the request into the bucket, queue it, and wait for the answer in S3.

    Raises:
        DeploymentError: the container refused it, or no answer came in time.
    """
    calls = deployment.calls
    key = deployment.key("async", "input", hashlib.sha256(payload.body).hexdigest()[:32])
    place = f"s3://{deployment.bucket}/{key}"
    calls.change(
        "s3", "put_object", Bucket=deployment.bucket, Key=key, Body=payload.body, ContentType=payload.content_type
    )
    started = time.perf_counter()
    queued = calls.change("sagemaker-runtime", "invoke_endpoint_async", InputLocation=place, **params)
    if calls.dry_run:
        return Answer(b"", "", 0.0)
    good, bad = queued["OutputLocation"], queued.get("FailureLocation")

    def look() -> dict[str, Any]:
        return {"good": _object(calls, good), "bad": _object(calls, bad) if bad else None}

    found = wait(
        "answer",
        look,
        lambda state: "there" if state["good"] or state["bad"] else "waiting in the queue",
        lambda state: bool(state["good"] or state["bad"]),
        timeout_s,
    )
    if found["good"] is None:
        text = found["bad"]["Body"].read(2000).decode("utf-8", "replace").strip()
        raise DeploymentError(f"the container refused it: {text} ({bad})", "ModelError")
    return Answer(found["good"]["Body"].read(), found["good"].get("ContentType", ""), time.perf_counter() - started)


def _object(calls: Calls, place: str) -> dict[str, Any] | None:
    bucket, key = split(place)
    return calls.read("s3", "get_object", Bucket=bucket, Key=key)
