"""teardown.py against moto: it deletes what deploy.py made, all of it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aws_scripts import BUCKET, ON_CPU, REGION, Run, packed

Aws = Callable[[str], Any]
Script = Callable[..., Run]


def left(aws: Aws) -> dict[str, list[str]]:
    """What the account holds."""
    sagemaker = aws("sagemaker")
    scaled = aws("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    return {
        "endpoints": [one["EndpointName"] for one in sagemaker.list_endpoints()["Endpoints"]],
        "configs": [one["EndpointConfigName"] for one in sagemaker.list_endpoint_configs()["EndpointConfigs"]],
        "models": [one["ModelName"] for one in sagemaker.list_models()["Models"]],
        "roles": [one["RoleName"] for one in aws("iam").list_roles(PathPrefix="/")["Roles"]],
        "repositories": [one["repositoryName"] for one in aws("ecr").describe_repositories()["repositories"]],
        "buckets": [one["Name"] for one in aws("s3").list_buckets()["Buckets"]],
        "topics": [one["TopicArn"] for one in aws("sns").list_topics()["Topics"]],
        "alarms": [one["AlarmName"] for one in aws("cloudwatch").describe_alarms()["MetricAlarms"]],
        "scaled": [one["ResourceId"] for one in scaled],
    }


def test_nothing_stays_of_a_deployment(aws: Aws, image: str, run: Script, archive: Path) -> None:
    assert run("deploy", *ON_CPU, "--async", "--model-data", str(archive)).status == 0
    assert run("autoscale", "--name", "shop", "--min", "0").status == 0
    packed(archive, b"a later version")
    assert run("deploy", *ON_CPU, "--model-only", "--model-data", str(archive)).status == 0
    before = left(aws)
    assert all(before.values())
    assert len(before["models"]) == 2  # an earlier version's too
    dry = run("teardown", "--name", "shop", "--dry-run")
    assert (dry.status, left(aws)) == (0, before)
    for title in ("endpoint shop", "bucket", "role", "image repository", "topic", "alarm", "automatic scaling"):
        assert title in dry.out
    ended = run("teardown", "--name", "shop", "--yes")
    assert ended.status == 0, ended.err
    # An automatic role of scaling is the account's, and is none of ours.
    assert {kind: names for kind, names in left(aws).items() if names} == {}
    assert "nothing of shop is there" in run("teardown", "--name", "shop", "--yes").out


def test_without_a_yes_nothing_is_deleted(aws: Aws, image: str, run: Script) -> None:
    assert run("deploy", *ON_CPU).status == 0
    before = left(aws)
    ended = run("teardown", "--name", "shop")
    assert (ended.status, "give --yes" in ended.err, left(aws)) == (1, True, before)


def test_what_lacks_the_tag_or_is_of_another_deployment_is_left_alone(aws: Aws, run: Script, image: str) -> None:
    aws("iam").create_role(RoleName=f"shop-execution-{REGION}", AssumeRolePolicyDocument="{}")
    aws("sns").create_topic(Name="shop-success")
    place = {"LocationConstraint": REGION}
    aws("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
    aws("ecr").create_repository(repositoryName="shop-two", tags=[{"Key": "segserve:deployment", "Value": "shop-two"}])
    assert run("deploy", "--name", "shop-two", "--image", "shop", "--instance-type", "ml.m5.xlarge").status == 0
    others = left(aws)
    ended = run("teardown", "--name", "shop", "--yes")
    assert ended.status == 0
    assert ended.out.count("left alone") == 3
    after = left(aws)
    assert after.pop("repositories") == ["shop-two"]
    others.pop("repositories")
    assert after == others


@pytest.mark.parametrize(("policy", "stays"), [("shop-invocations", False), ("payroll", True)])
def test_scaling_that_outlived_its_endpoint_goes_too(
    aws: Aws, image: str, run: Script, policy: str, stays: bool
) -> None:
    """Whoever deletes the endpoint in the console leaves its scaling behind, for the next one of that name."""
    assert run("deploy", *ON_CPU).status == 0
    assert run("autoscale", "--name", "shop").status == 0
    variant = {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/shop/variant/main"}
    variant["ScalableDimension"] = "sagemaker:variant:DesiredInstanceCount"
    scaling = aws("application-autoscaling")
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    config = {"TargetValue": 1.0, "PredefinedMetricSpecification": metric}
    scaling.put_scaling_policy(
        PolicyName=policy,
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=config,
        **variant,
    )
    aws("sagemaker").delete_endpoint(EndpointName="shop")
    assert run("teardown", "--name", "shop", "--yes").status == 0
    assert bool(left(aws)["scaled"]) == stays


def test_images_and_data_can_stay(aws: Aws, image: str, run: Script, archive: Path) -> None:
    assert run("deploy", *ON_CPU, "--model-data", str(archive)).status == 0
    assert run("teardown", "--name", "shop", "--yes", "--keep-images", "--keep-data").status == 0
    after = left(aws)
    assert (after["repositories"], after["buckets"], after["endpoints"]) == (["shop"], [BUCKET], [])


def test_of_a_bucket_of_ones_own_only_the_uploaded_models_go(aws: Aws, image: str, run: Script, archive: Path) -> None:
    s3 = aws("s3")
    s3.create_bucket(Bucket="company", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="company", Key="shop/model/notes.txt", Body=b"not ours")
    s3.put_object(Bucket="company", Key="payroll.csv", Body=b"not ours")
    options = ("--bucket", "company")
    assert run("deploy", *ON_CPU, "--model-data", str(archive), *options).status == 0
    assert len(s3.list_objects_v2(Bucket="company")["Contents"]) == 3
    assert run("teardown", "--name", "shop", "--yes", *options).status == 0
    kept = [entry["Key"] for entry in s3.list_objects_v2(Bucket="company")["Contents"]]
    assert kept == ["payroll.csv", "shop/model/notes.txt"]
