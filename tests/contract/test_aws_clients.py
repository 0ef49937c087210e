"""Real boto3 clients of SageMaker's runtime against the gateway (``--sagemaker-runtime``), over real sockets.

Nothing is simulated but the models: what these tests cannot show is SageMaker's own router, which the gateway's route
stands in for (its authentication, its variants, its loading of a target model).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import numpy as np
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError
from fake_torchserve import FakeTorchServe, striped_classes
from pictures import HEIGHT, WIDTH, png, source
from sockets import OpenService

from segserve.config import RequestLimits
from segserve.gateway.numpy_files import from_npy

NATIVE = json.dumps({"model": "grounded_sam", "images": [source(png())], "prompt": {"text": "sofa"}})
Connect = Callable[..., Any]


@pytest.fixture
def connect(open_service: OpenService) -> Connect:
    """Starts a gateway in front of the fake TorchServe; returns a client of it."""

    def open_one(**settings: Any) -> Any:
        return boto3.client(
            "sagemaker-runtime",
            endpoint_url=open_service(**{"sagemaker_runtime": True, **settings}).url,
            region_name="eu-central-1",
            aws_access_key_id="none",
            aws_secret_access_key="none",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
        )

    return open_one


def invoke(client: Any, body: str | bytes = NATIVE, **options: Any) -> Any:
    return client.invoke_endpoint(**{"EndpointName": "demo", "ContentType": "application/json", "Body": body} | options)


def refused(client: Any, *args: Any, **options: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        invoke(client, *args, **options)
    return caught.value.response


def test_json_in_and_out(connect: Connect) -> None:
    answer = invoke(connect())
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("application/json", "AllTraffic")
    (result,) = json.load(answer["Body"])["results"]
    assert [instance["label"] for instance in result["instances"]] == ["sofa"]


def test_a_raw_image_with_attributes_is_answered_in_the_form_that_accept_names(connect: Connect) -> None:
    attributes = "model=grounded_sam;text=sofa. floor."
    answer = invoke(connect(), png(), ContentType="image/png", Accept="application/x-npy", CustomAttributes=attributes)
    assert answer["ContentType"] == "application/x-npy"
    assert from_npy(answer["Body"].read()).shape == (2, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ("{}", 400, "invalid_request"),
        (NATIVE.replace("grounded_sam", "sofas"), 404, "model_not_found"),
        (NATIVE.replace('"sofa"', '""'), 422, "invalid_prompt"),
    ],
)
def test_what_the_container_refuses_is_a_model_error(connect: Connect, body: str, status: int, told: str) -> None:
    response = refused(connect(), body)
    assert response["Error"]["Code"] == "ModelError" and response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["OriginalStatusCode"] == status
    assert json.loads(response["OriginalMessage"])["error"]["code"] == told
    assert f"Received client error ({status}) from primary" in response["Error"]["Message"]


def test_a_client_catches_it_as_the_services_own_exception(connect: Connect) -> None:
    client = connect()
    with pytest.raises(client.exceptions.ModelError):
        invoke(client, "{}")
    with pytest.raises(client.exceptions.ValidationError, match="EndpointName"):
        invoke(client, EndpointName="no_underscores")


def test_an_answer_too_late_and_a_missing_worker_are_server_errors(
    connect: Connect, torchserve: FakeTorchServe
) -> None:
    client = connect(limits=RequestLimits(timeout_s=0.5))
    torchserve.delay_s = 5
    response = refused(client)
    assert (response["Error"]["Code"], response["OriginalStatusCode"]) == ("ModelError", 504)
    assert "Received server error (504)" in response["Error"]["Message"]


def test_a_body_over_the_limit_is_a_validation_error(connect: Connect) -> None:
    response = refused(connect(limits=RequestLimits(max_body_bytes=1000)), b"x" * 2000)
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == ("ValidationError", 400)


def test_api_keys_hold_behind_it_too(connect: Connect) -> None:
    response = refused(connect(api_keys=frozenset({"key"})))
    assert response["OriginalStatusCode"] == 401


def test_a_stream_brings_the_same_bytes_in_pieces(connect: Connect, torchserve: FakeTorchServe) -> None:
    torchserve.models["semantic"] = ["READY"]
    torchserve.react = striped_classes
    client = connect(models=("grounded_sam", "semantic"))
    wanted = {"ContentType": "image/png", "Accept": "application/x-npy", "Body": png()}
    wanted["CustomAttributes"] = "model=semantic;output=logits"
    answer = client.invoke_endpoint_with_response_stream(EndpointName="demo", **wanted)
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    assert answer["ContentType"] == "application/x-npy"
    assert np.array_equal(from_npy(b"".join(parts)), from_npy(invoke(client, **wanted)["Body"].read()))


def test_a_stream_that_is_refused_is_a_model_error(connect: Connect) -> None:
    client = connect()
    with pytest.raises(client.exceptions.ModelError) as caught:
        client.invoke_endpoint_with_response_stream(EndpointName="demo", ContentType="application/json", Body=b"{}")
    assert caught.value.response["OriginalStatusCode"] == 400


def test_asynchronous_invocations_are_refused_in_words(connect: Connect) -> None:
    with pytest.raises(ClientError) as caught:
        connect().invoke_endpoint_async(EndpointName="e", InputLocation="s3://bucket/key")
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationError" and "asynchronous" in error["Message"]


def test_without_the_option_there_is_no_such_route(connect: Connect) -> None:
    client = connect(sagemaker_runtime=False)
    assert refused(client)["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert requests.post(f"{client.meta.endpoint_url}/endpoints/demo/invocations", timeout=10).status_code == 404
