"""transform.py: moto takes the jobs, the Stubber tells how they end. Neither runs a container, nor reads objects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from aws_scripts import ON_CPU, REGION, Run, packed
from botocore.stub import ANY, Stubber

from calls import Calls

Aws = Callable[[str], Any]
Script = Callable[..., Run]
PLACES = ("--name", "shop", "--input", "s3://pictures/rooms/", "--output", "s3://pictures/masks/")


def test_a_job_uses_the_model_of_the_endpoint(aws: Aws, image: str, run: Script) -> None:
    assert run("deploy", *ON_CPU).status == 0
    options = ("--instance-type", "ml.m5.xlarge", "--concurrency", "4", "--env", "SEGSERVE_MODELS=mask_rcnn")
    ended = run("transform", *PLACES, *options, "--accept", "image/png", "--no-wait")
    assert ended.status == 0, ended.err
    sagemaker = aws("sagemaker")
    (job,) = sagemaker.list_transform_jobs()["TransformJobSummaries"]
    told = sagemaker.describe_transform_job(TransformJobName=job["TransformJobName"])
    assert told["ModelName"] == sagemaker.list_models()["Models"][0]["ModelName"]
    assert told["TransformInput"]["DataSource"]["S3DataSource"] == {
        "S3DataType": "S3Prefix",
        "S3Uri": "s3://pictures/rooms/",
    }
    assert told["TransformInput"]["ContentType"] == "image/jpeg"
    assert (told["TransformOutput"]["S3OutputPath"], told["TransformOutput"]["Accept"]) == (
        "s3://pictures/masks/",
        "image/png",
    )
    assert (told["MaxConcurrentTransforms"], told["BatchStrategy"]) == (4, "SingleRecord")
    assert told["Environment"] == {"SEGSERVE_MODELS": "mask_rcnn"}


@pytest.mark.parametrize(("status", "expected"), [("Completed", 0), ("Failed", 1), ("Stopped", 1)])
def test_the_end_of_a_job_is_told(
    aws: Aws, run: Script, monkeypatch: pytest.MonkeyPatch, status: str, expected: int
) -> None:
    logs, group = aws("logs"), "/aws/sagemaker/TransformJobs"
    logs.create_log_group(logGroupName=group)
    client = boto3.client("sagemaker", region_name=REGION)
    others = Calls.client
    monkeypatch.setattr(
        Calls, "client", lambda self, name, config: client if name == "sagemaker" else others(self, name, config)
    )
    now = datetime(2026, 1, 1, tzinfo=UTC)
    arn = f"arn:aws:sagemaker:{REGION}:123456789012:transform-job/x"
    described = {
        "TransformJobName": "x",
        "TransformJobArn": arn,
        "ModelName": "m",
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://pictures/rooms/"}}},
        "TransformResources": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1},
        "CreationTime": now,
    }
    with Stubber(client) as stub:
        stub.add_response("describe_model", {"ModelName": "m", "CreationTime": now, "ModelArn": "a" * 20})
        stub.add_response("create_transform_job", {"TransformJobArn": arn})
        stub.add_response("describe_transform_job", {**described, "TransformJobStatus": "InProgress"})
        ending = {"TransformJobStatus": status, "FailureReason": "AlgorithmError: 422 of rooms/a.jpg"}
        stub.add_response("describe_transform_job", {**described, **ending}, {"TransformJobName": ANY})
        ended = run("transform", *PLACES, "--model", "m")
        stub.assert_no_pending_responses()
    assert ended.status == expected
    assert ("AlgorithmError: 422" in ended.err) == bool(expected)


def test_what_cannot_be_transformed_is_refused(aws: Aws, image: str, run: Script, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    packed(folder / "semantic.tar.gz", b"one")
    assert run("deploy", *ON_CPU, "--multi-model", "--model-data", str(folder)).status == 0
    for options, told in (
        ((), "multi-model"),
        (("--model", "not-there"), "no model not-there"),
        (("--input", "/tmp/rooms"), "expected s3://bucket/prefix"),
        (("--concurrency", "10", "--max-payload-mb", "20"), "100 MB"),
        (("--env", "OPENAI_API_KEY=sk-secret"), "Secrets Manager"),
    ):
        ended = run("transform", *PLACES, *options)
        assert (ended.status, told in ended.err) == (1, True), (options, ended.err)
    assert aws("sagemaker").list_transform_jobs()["TransformJobSummaries"] == []
