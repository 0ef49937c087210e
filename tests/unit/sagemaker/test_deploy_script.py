"""deploy.py against moto: what it creates, that a second run changes nothing, and what it refuses.

moto has an endpoint in service at once and checks no permissions; updates are in test_endpoint_updates.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aws_scripts import BUCKET, ON_CPU, REGION, Run, packed, push

Aws = Callable[[str], Any]
Script = Callable[..., Run]
TAGS = [{"Key": "segserve:deployment", "Value": "shop"}]


def test_everything_that_an_endpoint_needs_is_created(aws: Aws, image: str, run: Script, archive: Path) -> None:
    ended = run("deploy", *ON_CPU, "--model-data", str(archive), "--env", "SEGSERVE_MODELS=mask_rcnn", "--workers", "2")
    assert (ended.status, ended.err.count("Traceback")) == (0, 0), ended.err
    sagemaker = aws("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName="shop")
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    (variant,) = config["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.m5.xlarge", 1)
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    container = model["PrimaryContainer"]
    assert container["Image"] == f"123456789012.dkr.ecr.{REGION}.amazonaws.com/shop@{image}"
    assert container["Environment"] == {
        "SEGSERVE_LOG_FORMAT": "json",
        "SEGSERVE_MODELS": "mask_rcnn",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
    }
    bucket, _, key = container["ModelDataUrl"].removeprefix("s3://").partition("/")
    assert (bucket, key.endswith("/model.tar.gz")) == (BUCKET, True)
    assert aws("s3").get_object(Bucket=bucket, Key=key)["Body"].read() == archive.read_bytes()
    assert model["ExecutionRoleArn"] == f"arn:aws:iam::123456789012:role/shop-execution-{REGION}"


def test_what_is_made_is_tagged_and_the_bucket_is_shut(aws: Aws, image: str, run: Script, archive: Path) -> None:
    assert run("deploy", *ON_CPU, "--model-data", str(archive)).status == 0
    sagemaker, s3 = aws("sagemaker"), aws("s3")
    endpoint = sagemaker.describe_endpoint(EndpointName="shop")
    assert sagemaker.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"] == TAGS
    assert aws("iam").list_role_tags(RoleName=f"shop-execution-{REGION}")["Tags"] == TAGS
    assert s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == TAGS
    assert all(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values())
    alarms = {alarm["AlarmName"]: alarm for alarm in aws("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert set(alarms) == {"segserve-shop-errors", "segserve-shop-latency"}
    assert alarms["segserve-shop-latency"]["Threshold"] == 55e6  # microseconds


def test_a_second_run_changes_nothing(aws: Aws, image: str, run: Script, archive: Path) -> None:
    options = (*ON_CPU, "--model-data", str(archive), "--openai-secret", "shop-openai", "--images-bucket", "pictures")
    assert run("deploy", *options).status == 0
    again = run("deploy", *options)
    assert (again.status, "Nothing had changed." in again.out) == (0, True), again.out + again.err
    dry = run("deploy", *options, "--dry-run")
    assert "# dry run: 0 changes would be made" in dry.out
    assert " change " not in dry.out


def test_a_dry_run_with_an_account_reads_and_changes_nothing(aws: Aws, image: str, run: Script, archive: Path) -> None:
    ended = run("deploy", *ON_CPU, "--model-data", str(archive), "--dry-run")
    assert ended.status == 0
    assert f"shop@{image}" in ended.out
    assert "CreateEndpoint " in ended.out
    assert aws("sagemaker").list_models()["Models"] == []
    assert aws("s3").list_buckets()["Buckets"] == []
    assert aws("cloudwatch").describe_alarms()["MetricAlarms"] == []


def test_a_new_image_under_the_same_tag_is_a_change(aws: Aws, image: str, run: Script) -> None:
    assert run("deploy", *ON_CPU, "--model-only").status == 0
    assert "Nothing had changed." in run("deploy", *ON_CPU, "--model-only").out
    digest = push(aws("ecr"), "second")
    assert run("deploy", *ON_CPU, "--model-only").status == 0
    described = [
        aws("sagemaker").describe_model(ModelName=model["ModelName"])
        for model in aws("sagemaker").list_models()["Models"]
    ]
    assert sorted(model["PrimaryContainer"]["Image"].partition("@")[2] for model in described) == sorted(
        [image, digest]
    )


def test_an_async_endpoint_writes_to_the_bucket_and_to_topics(aws: Aws, image: str, run: Script) -> None:
    assert run("deploy", *ON_CPU, "--async", "--concurrency", "3").status == 0
    sagemaker = aws("sagemaker")
    name = sagemaker.describe_endpoint(EndpointName="shop")["EndpointConfigName"]
    config = sagemaker.describe_endpoint_config(EndpointConfigName=name)["AsyncInferenceConfig"]
    output = config["OutputConfig"]
    assert output["S3OutputPath"] == f"s3://{BUCKET}/shop/async/output"
    assert output["S3FailurePath"] == f"s3://{BUCKET}/shop/async/failure"
    topics = {topic["TopicArn"] for topic in aws("sns").list_topics()["Topics"]}
    assert set(output["NotificationConfig"].values()) == topics
    assert config["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 3}
    role = aws("iam").get_role_policy(RoleName=f"shop-execution-{REGION}", PolicyName="segserve")["PolicyDocument"]
    assert {"WriteAsyncOutput", "Notify"} <= {statement["Sid"] for statement in role["Statement"]}


def test_a_multi_model_endpoint_gets_the_folder_of_archives(aws: Aws, image: str, run: Script, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    packed(folder / "mask_rcnn.tar.gz", b"one")
    packed(folder / "semantic.tar.gz", b"two")
    assert run("deploy", *ON_CPU, "--multi-model", "--model-data", str(folder)).status == 0
    (model,) = aws("sagemaker").list_models()["Models"]
    container = aws("sagemaker").describe_model(ModelName=model["ModelName"])["PrimaryContainer"]
    assert (container["Mode"], container["ModelDataUrl"]) == ("MultiModel", f"s3://{BUCKET}/shop/models/")
    keys = [entry["Key"] for entry in aws("s3").list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert keys == ["shop/models/mask_rcnn.tar.gz", "shop/models/semantic.tar.gz"]
    assert container["Environment"]["SAGEMAKER_MULTI_MODEL"] == "true"
    # One archive more is uploaded, and is no change of the endpoint.
    packed(folder / "sam2.tar.gz", b"three")
    dry = run("deploy", *ON_CPU, "--multi-model", "--model-data", str(folder), "--dry-run")
    assert "# dry run: 1 change would be made" in dry.out
    assert "shop/models/sam2.tar.gz" in dry.out


def test_a_changed_archive_is_uploaded_under_another_key(aws: Aws, image: str, run: Script, tmp_path: Path) -> None:
    path = packed(tmp_path / "model.tar.gz", b"one")
    assert run("deploy", *ON_CPU, "--model-only", "--model-data", str(path)).status == 0
    packed(path, b"two")
    assert run("deploy", *ON_CPU, "--model-only", "--model-data", str(path)).status == 0
    # The old model still finds its file, so that going back is possible.
    assert len(aws("s3").list_objects_v2(Bucket=BUCKET)["Contents"]) == 2
    assert len(aws("sagemaker").list_models()["Models"]) == 2


def test_a_role_that_somebody_changed_is_set_right(aws: Aws, image: str, run: Script) -> None:
    assert run("deploy", *ON_CPU).status == 0
    iam, name = aws("iam"), f"shop-execution-{REGION}"
    before = iam.get_role_policy(RoleName=name, PolicyName="segserve")["PolicyDocument"]
    wide = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_role_policy(RoleName=name, PolicyName="segserve", PolicyDocument=json.dumps(wide))
    assert run("deploy", *ON_CPU).status == 0
    assert iam.get_role_policy(RoleName=name, PolicyName="segserve")["PolicyDocument"] == before


def test_a_bucket_that_an_interrupted_run_has_left_is_finished(aws: Aws, image: str, run: Script) -> None:
    s3 = aws("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    assert run("deploy", *ON_CPU, "--model-only").status == 0
    assert s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == TAGS
    assert all(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values())


def test_a_bucket_of_somebody_else_is_not_used(aws: Aws, image: str, run: Script, monkeypatch: Any) -> None:
    s3 = aws("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=BUCKET, Key="payroll.csv", Body=b"1")
    ended = run("deploy", *ON_CPU, "--model-only")
    assert (ended.status, f"the bucket {BUCKET} is there already" in ended.err) == (1, True), ended.err
    # The name can be guessed: S3 is told whose bucket it must be. moto does not look at it.
    asked: list[dict[str, Any]] = []
    s3.meta.events.register("provide-client-params.s3.HeadBucket", lambda params, **_: asked.append(params))
    run("deploy", *ON_CPU, "--model-only")
    assert asked[0] == {"Bucket": BUCKET, "ExpectedBucketOwner": "123456789012"}


def test_topics_of_somebody_else_are_not_used(aws: Aws, image: str, run: Script) -> None:
    aws("sns").create_topic(Name="shop-success")
    ended = run("deploy", *ON_CPU, "--async")
    assert (ended.status, "the topic shop-success is there already" in ended.err) == (1, True)


def test_a_role_of_somebody_else_is_left_alone(aws: Aws, image: str, run: Script) -> None:
    aws("iam").create_role(RoleName=f"shop-execution-{REGION}", AssumeRolePolicyDocument="{}")
    ended = run("deploy", *ON_CPU)
    assert (ended.status, "is there already" in ended.err) == (1, True)
    assert aws("iam").list_role_policies(RoleName=f"shop-execution-{REGION}")["PolicyNames"] == []


def test_the_secret_is_named_to_the_container_and_its_value_is_nowhere(aws: Aws, image: str, run: Script) -> None:
    secret = aws("secretsmanager").create_secret(Name="shop-openai", SecretString="sk-nobody-may-see-this")
    ended = run("deploy", *ON_CPU, "--openai-secret", secret["ARN"])
    assert ended.status == 0
    (model,) = aws("sagemaker").list_models()["Models"]
    described = aws("sagemaker").describe_model(ModelName=model["ModelName"])
    assert described["PrimaryContainer"]["Environment"]["SEGSERVE_OPENAI_SECRET"] == secret["ARN"]
    document = aws("iam").get_role_policy(RoleName=f"shop-execution-{REGION}", PolicyName="segserve")["PolicyDocument"]
    readable = [one["Resource"] for one in document["Statement"] if one["Sid"] == "ReadSecret"]
    assert readable == [secret["ARN"]]
    assert "nobody-may-see" not in ended.out + ended.err + str(described) + str(document)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--multi-model", "--model-data", ".", "--instance-type", "ml.g5.xlarge"), "Triton"),
        (("--serverless",), "serverless endpoints do not fit segserve"),
        (("--multi-model",), "needs --model-data"),
        (("--model-data", "missing.tar.gz"), "no such file"),
        (("--model-data", "s3://pictures/"), "expected a model.tar.gz"),
        (("--image", "docker.io/library/debian:12"), "SageMaker pulls from ECR"),
        (("--env", "OPENAI_API_KEY=sk-secret-value"), "Secrets Manager"),
        (("--env", "SEGSERVE_API_KEYS=secret-value"), "refuse every request"),
        (("--env", "SHOP_DB_PASSWORD=secret-value"), "looks like a secret"),
        (("--env", "OPENAI_BASE_URL=https://user:secret-value@host/v1"), "looks like a secret"),
        (("--bucket", "not-there"), "no such bucket"),
        (("--env", "sk-secret-value"), "expected NAME=VALUE"),
        (("--env", "PGPASSWORD=secret-value"), "looks like a secret"),
        (("--openai-secret", "sk-secret-value-1234567890"), "not the key itself"),
        (("--openai-secret", "arn:aws:s3:::secret-value"), "not the key itself"),
        (("--traffic", "linear", "--step-percent", "10", "--step-wait", "3600"), "larger --step-percent"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    aws: Aws, image: str, run: Script, options: tuple[str, ...], told: str
) -> None:
    ended = run("deploy", *ON_CPU, *options)
    assert ended.status == 1
    assert told in ended.err
    assert ended.err.count("\n") == 1
    assert "secret-value" not in ended.out + ended.err
    assert aws("sagemaker").list_models()["Models"] == []


def test_a_missing_image_says_how_to_push_it(aws: Aws, run: Script) -> None:
    ended = run("deploy", *ON_CPU)
    assert ended.status == 1
    assert "no image shop:latest" in ended.err
    assert "build_and_push.sh" in ended.err
    # The repository is there now, to be pushed to.
    assert aws("ecr").describe_repositories()["repositories"][0]["repositoryName"] == "shop"


@pytest.mark.parametrize(
    "media_type", ["application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"]
)
def test_an_image_of_a_kind_that_sagemaker_refuses_is_refused_first(
    aws: Aws, image: str, run: Script, media_type: str
) -> None:
    push(aws("ecr"), "attested", media_type)
    ended = run("deploy", *ON_CPU)
    assert (ended.status, "--provenance=false" in ended.err) == (1, True), ended.err


def test_an_archive_that_is_no_tar_is_refused(aws: Aws, image: str, run: Script, tmp_path: Path) -> None:
    broken = tmp_path / "model.tar.gz"
    broken.write_bytes(b"PK\x03\x04 a .mar renamed")
    ended = run("deploy", *ON_CPU, "--model-data", str(broken))
    assert (ended.status, "not a gzipped tar" in ended.err) == (1, True)


@pytest.mark.parametrize("name", ["Shop", "1shop", "shop_1", "a" * 27, "shop--x", "-shop"])
def test_a_name_that_aws_would_refuse_is_wrong_usage(aws: Aws, run: Script, name: str) -> None:
    assert run("deploy", f"--name={name}").status == 2
