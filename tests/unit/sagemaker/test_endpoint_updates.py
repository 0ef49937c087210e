"""deploy.py's updates and failures against botocore's Stubber: SageMaker's real description checks what is sent.

moto has no UpdateEndpoint and no endpoint that fails, so SageMaker's answers are given here; the rest is moto. What
neither shows: that SageMaker really moves traffic, watches the alarms and goes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from aws_scripts import ON_CPU, REGION, Run
from botocore.stub import ANY, Stubber

from calls import Calls

Aws = Callable[[str], Any]
Script = Callable[..., Run]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ARN = f"arn:aws:sagemaker:{REGION}:123456789012"


class SageMaker:
    """SageMaker's answers in their order; an endpoint's name for its configuration is learned from what is sent."""

    def __init__(self, stub: Stubber) -> None:
        self.stub = stub

    def has_model_and_config(self) -> None:
        """The model and the configuration are there already."""
        self.stub.add_response("describe_model", {"ModelName": "m", "CreationTime": NOW, "ModelArn": f"{ARN}:model/m"})
        config = {"EndpointConfigName": "c", "EndpointConfigArn": f"{ARN}:endpoint-config/c", "CreationTime": NOW}
        self.stub.add_response("describe_endpoint_config", {**config, "ProductionVariants": [{"VariantName": "main"}]})

    def has_endpoint(self, status: str, config: str, **more: Any) -> None:
        """The endpoint as it is when it is looked at next."""
        told = {"EndpointName": "shop", "EndpointArn": f"{ARN}:endpoint/shop", "EndpointConfigName": config}
        times = {"CreationTime": NOW, "LastModifiedTime": NOW}
        self.stub.add_response("describe_endpoint", {**told, "EndpointStatus": status, **times, **more})

    def had_endpoint(self, status: str, config: str, **more: Any) -> None:
        """The endpoint that deploy.py finds: its own, as the tag says."""
        self.has_endpoint(status, config, **more)
        self.stub.add_response("list_tags", {"Tags": [{"Key": "segserve:deployment", "Value": "shop"}]})

    def has_no_endpoint(self) -> None:
        self.stub.add_client_error("describe_endpoint", "ValidationException", 'Could not find endpoint "shop".')

    def takes(self, operation: str, **params: Any) -> None:
        """The next call must be this one, with these parameters."""
        answers = {"create_endpoint": {"EndpointArn": "a" * 20}, "update_endpoint": {"EndpointArn": "a" * 20}}
        self.stub.add_response(operation, answers.get(operation, {}), params)


@pytest.fixture
def sagemaker(aws: Aws, image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMaker]:
    client = boto3.client("sagemaker", region_name=REGION)
    others = Calls.client
    monkeypatch.setattr(
        Calls, "client", lambda self, name, config: client if name == "sagemaker" else others(self, name, config)
    )
    with Stubber(client) as stub:
        yield SageMaker(stub)
        stub.assert_no_pending_responses()


@pytest.fixture
def new_config(sagemaker: SageMaker, run: Script) -> str:
    """The name of the configuration that the options of these tests lead to."""
    sagemaker.has_model_and_config()
    sagemaker.has_no_endpoint()
    dry = run("deploy", *ON_CPU, "--instance-count", "4", "--dry-run")
    found = re.search(r'"EndpointConfigName": "(shop-[0-9a-f]{10})"', dry.out)
    assert found, dry.out + dry.err
    return found[1]


OPTIONS = (*ON_CPU, "--instance-count", "4")
ALARMS = {"Alarms": [{"AlarmName": "segserve-shop-errors"}, {"AlarmName": "segserve-shop-latency"}]}


def blue_green(kind: str, wait: int, lasts: int, **size: Any) -> dict[str, Any]:
    return {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": kind, "WaitIntervalInSeconds": wait, **size},
            "TerminationWaitInSeconds": 120,
            "MaximumExecutionTimeoutInSeconds": lasts,
        },
        "AutoRollbackConfiguration": ALARMS,
    }


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ((), blue_green("ALL_AT_ONCE", 0, 3720)),
        (
            ("--traffic", "canary", "--step-percent", "25", "--step-wait", "60"),
            blue_green("CANARY", 60, 3780, CanarySize={"Type": "CAPACITY_PERCENT", "Value": 25}),
        ),
        (
            ("--traffic", "linear", "--step-percent", "30", "--step-wait", "60"),
            # Steps of 30, 30, 30 and 10 percent: three pauses.
            blue_green("LINEAR", 60, 3900, LinearStepSize={"Type": "CAPACITY_PERCENT", "Value": 30}),
        ),
    ],
)
def test_an_update_moves_traffic_as_told_and_watches_the_alarms(
    aws: Aws,
    sagemaker: SageMaker,
    new_config: str,
    run: Script,
    options: tuple[str, ...],
    config: dict[str, Any],
) -> None:
    sagemaker.has_model_and_config()
    sagemaker.had_endpoint("InService", "shop-0000000000")
    sagemaker.takes(
        "update_endpoint",
        EndpointName="shop",
        EndpointConfigName=new_config,
        DeploymentConfig=config,
        RetainAllVariantProperties=False,
    )
    sagemaker.has_endpoint("Updating", "shop-0000000000")
    sagemaker.has_endpoint("InService", new_config)
    ended = run("deploy", *OPTIONS, "--bake", "120", *options)
    assert ended.status == 0, ended.err
    assert "Updating" in ended.err  # the progress
    assert "is in service" in ended.out
    made = {alarm["AlarmName"] for alarm in aws("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert made == {alarm["AlarmName"] for alarm in ALARMS["Alarms"]}


def test_an_endpoint_that_scales_by_itself_keeps_its_instances(
    aws: Aws, sagemaker: SageMaker, new_config: str, run: Script
) -> None:
    # moto wants the endpoint itself to be there before it can be scaled.
    real = aws("sagemaker")
    container = {"Image": "i", "ModelDataUrl": "s3://bucket/model.tar.gz"}
    role = "arn:aws:iam::123456789012:role/some"
    real.create_model(ModelName="m", PrimaryContainer=container, ExecutionRoleArn=role)
    variant = {"VariantName": "main", "ModelName": "m", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    real.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    real.create_endpoint(EndpointName="shop", EndpointConfigName="c")
    aws("application-autoscaling").register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId="endpoint/shop/variant/main",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=1,
        MaxCapacity=8,
    )
    sagemaker.has_model_and_config()
    sagemaker.had_endpoint("InService", "shop-0000000000")
    sagemaker.takes(
        "update_endpoint",
        EndpointName="shop",
        EndpointConfigName=new_config,
        DeploymentConfig=ANY,
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[
            {"VariantPropertyType": "DesiredWeight"},
            {"VariantPropertyType": "DataCaptureConfig"},
        ],
    )
    assert run("deploy", *OPTIONS, "--no-wait").status == 0


def test_a_rolled_back_update_is_a_failure_with_its_reason_and_log(
    aws: Aws, sagemaker: SageMaker, new_config: str, run: Script
) -> None:
    logs, group = aws("logs"), "/aws/sagemaker/Endpoints/shop"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="main/i-1")
    line = {"timestamp": int(datetime.now(UTC).timestamp() * 1000), "message": "no archive in /opt/ml/model"}
    logs.put_log_events(logGroupName=group, logStreamName="main/i-1", logEvents=[line])
    sagemaker.has_model_and_config()
    sagemaker.had_endpoint("InService", "shop-0000000000")
    sagemaker.takes(
        "update_endpoint",
        EndpointName=ANY,
        EndpointConfigName=ANY,
        DeploymentConfig=ANY,
        RetainAllVariantProperties=False,
    )
    sagemaker.has_endpoint("RollingBack", "shop-0000000000")
    sagemaker.has_endpoint("InService", "shop-0000000000", FailureReason="alarm segserve-shop-errors went off")
    ended = run("deploy", *OPTIONS)
    assert ended.status == 1
    assert "rolled back" in ended.err
    assert "alarm segserve-shop-errors went off" in ended.err
    assert "no archive in /opt/ml/model" in ended.err


def test_a_new_endpoint_that_fails_says_why(sagemaker: SageMaker, new_config: str, run: Script) -> None:
    sagemaker.has_model_and_config()
    sagemaker.has_no_endpoint()
    tags = [{"Key": "segserve:deployment", "Value": "shop"}]
    sagemaker.takes("create_endpoint", EndpointName="shop", EndpointConfigName=new_config, Tags=tags)
    sagemaker.has_endpoint("Creating", new_config)
    sagemaker.has_endpoint(
        "Failed", new_config, FailureReason="The primary container did not pass the ping health check"
    )
    ended = run("deploy", *OPTIONS)
    assert ended.status == 1
    assert "did not pass the ping health check" in ended.err
    assert "nothing in the log group" in ended.err  # there is none: the container has not started


def test_a_failed_endpoint_is_recreated_only_when_told(sagemaker: SageMaker, new_config: str, run: Script) -> None:
    sagemaker.has_model_and_config()
    sagemaker.had_endpoint("Failed", new_config, FailureReason="capacity")
    ended = run("deploy", *OPTIONS)
    assert (ended.status, "--recreate" in ended.err, "capacity" in ended.err) == (1, True, True)
    sagemaker.has_model_and_config()
    sagemaker.had_endpoint("Failed", new_config, FailureReason="capacity")
    sagemaker.takes("delete_endpoint", EndpointName="shop")
    sagemaker.has_endpoint("Deleting", new_config)
    sagemaker.has_no_endpoint()
    sagemaker.takes("create_endpoint", EndpointName="shop", EndpointConfigName=new_config, Tags=ANY)
    sagemaker.has_endpoint("InService", new_config)
    assert run("deploy", *OPTIONS, "--recreate").status == 0


def test_an_endpoint_that_is_busy_with_another_update_is_left_alone(
    sagemaker: SageMaker, new_config: str, run: Script
) -> None:
    sagemaker.has_model_and_config()
    sagemaker.had_endpoint("Updating", "shop-0000000000")
    ended = run("deploy", *OPTIONS)
    assert (ended.status, "is Updating" in ended.err) == (1, True)


def pending(config: str) -> dict[str, Any]:
    return {"PendingDeploymentSummary": {"EndpointConfigName": config}}


def test_a_run_that_was_interrupted_in_an_update_waits_for_it(
    sagemaker: SageMaker, new_config: str, run: Script
) -> None:
    """Until the end of an update SageMaker names the former configuration, and the new one as pending."""
    sagemaker.has_model_and_config()
    sagemaker.had_endpoint("Updating", "shop-0000000000", **pending(new_config))
    sagemaker.has_endpoint("Updating", "shop-0000000000", **pending(new_config))
    sagemaker.has_endpoint("InService", new_config)
    ended = run("deploy", *OPTIONS)
    assert (ended.status, "is in service" in ended.out) == (0, True), ended.err


def test_back_to_the_former_options_while_an_update_goes_on_is_not_in_service_yet(
    sagemaker: SageMaker, new_config: str, run: Script
) -> None:
    sagemaker.has_model_and_config()
    sagemaker.had_endpoint("Updating", new_config, **pending("shop-0000000000"))
    ended = run("deploy", *OPTIONS)
    assert (ended.status, "is Updating" in ended.err) == (1, True)


def test_an_endpoint_of_somebody_else_is_left_alone(sagemaker: SageMaker, run: Script) -> None:
    sagemaker.has_model_and_config()
    sagemaker.has_endpoint("InService", "somebodys")
    sagemaker.stub.add_response("list_tags", {"Tags": [{"Key": "team", "Value": "payroll"}]})
    ended = run("deploy", *ON_CPU)
    assert (ended.status, "the endpoint shop is there already" in ended.err) == (1, True)


def test_steps_need_two_instances(sagemaker: SageMaker, run: Script) -> None:
    sagemaker.has_model_and_config()
    sagemaker.had_endpoint("InService", "shop-0000000000")
    ended = run("deploy", *ON_CPU, "--traffic", "canary")
    assert (ended.status, "--instance-count 2" in ended.err) == (1, True)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("ResourceLimitExceeded", "Service Quotas"),
        ("AccessDeniedException", "deployer.json"),
        ("ThrottlingException", "slow down"),
        ("ExpiredTokenException", "expired"),
    ],
)
def test_what_aws_refuses_is_told_in_one_line(sagemaker: SageMaker, run: Script, code: str, told: str) -> None:
    sagemaker.has_model_and_config()
    sagemaker.has_no_endpoint()
    sagemaker.stub.add_client_error("create_endpoint", code, "said\nby AWS")
    ended = run("deploy", *ON_CPU)
    assert ended.status == 1
    assert ended.err.startswith("error: sagemaker CreateEndpoint")
    assert told in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "reason",
    [
        "Could not assume role arn. Please ensure that the role exists and allows principal to assume the role.",
        # SageMaker looks for the files with the role.
        'Could not access model data at s3://b/model.tar.gz. Please ensure that the role "arn" exists',
    ],
)
def test_a_role_that_sagemaker_does_not_know_yet_is_tried_again(sagemaker: SageMaker, run: Script, reason: str) -> None:
    sagemaker.stub.add_client_error("describe_model", "ValidationException", 'Could not find model "m".')
    sagemaker.stub.add_client_error("create_model", "ValidationException", reason)
    sagemaker.stub.add_client_error("create_model", "ValidationException", reason)
    sagemaker.stub.add_response("create_model", {"ModelArn": f"{ARN}:model/m"})
    assert run("deploy", *ON_CPU, "--model-only").status == 0
