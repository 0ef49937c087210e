"""autoscale.py against moto, which keeps policies and alarms; it scales nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aws_scripts import ON_CPU, Run

Aws = Callable[[str], Any]
Script = Callable[..., Run]


def policies(aws: Aws) -> dict[str, Any]:
    found = aws("application-autoscaling").describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    return {policy["PolicyName"]: policy for policy in found}


def target(aws: Aws) -> tuple[int, int] | None:
    found = aws("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    return (found[0]["MinCapacity"], found[0]["MaxCapacity"]) if found else None


def test_a_real_time_endpoint_follows_its_invocations(aws: Aws, image: str, run: Script) -> None:
    assert run("deploy", *ON_CPU).status == 0
    ended = run("autoscale", "--name", "shop", "--min", "2", "--max", "6", "--target", "90")
    assert ended.status == 0, ended.err
    assert target(aws) == (2, 6)
    (policy,) = policies(aws).values()
    assert policy["ResourceId"] == "endpoint/shop/variant/main"
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    metric = tracking["PredefinedMetricSpecification"]["PredefinedMetricType"]
    assert (metric, tracking["TargetValue"]) == ("SageMakerVariantInvocationsPerInstance", 90)
    again = run("autoscale", "--name", "shop", "--min", "2", "--max", "6", "--target", "90")
    assert "Nothing had changed." in again.out
    assert run("autoscale", "--name", "shop", "--min", "1", "--max", "6", "--target", "30").status == 0
    (policy,) = policies(aws).values()
    assert (target(aws), policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"]) == ((1, 6), 30)


def test_an_async_endpoint_scales_to_zero_and_wakes_up_by_an_alarm(aws: Aws, image: str, run: Script) -> None:
    assert run("deploy", *ON_CPU, "--async").status == 0
    assert run("autoscale", "--name", "shop", "--min", "0", "--max", "3").status == 0
    found = policies(aws)
    assert set(found) == {"shop-backlog", "shop-from-zero"}
    metric = found["shop-backlog"]["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]
    assert metric["MetricName"] == "ApproximateBacklogSizePerInstance"
    assert metric["Dimensions"] == [{"Name": "EndpointName", "Value": "shop"}]
    step = found["shop-from-zero"]["StepScalingPolicyConfiguration"]
    assert step["StepAdjustments"] == [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}]
    (alarm,) = aws("cloudwatch").describe_alarms(AlarmNames=["segserve-shop-backlog"])["MetricAlarms"]
    assert (alarm["MetricName"], alarm["Threshold"]) == ("HasBacklogWithoutCapacity", 1.0)
    assert alarm["AlarmActions"] == [found["shop-from-zero"]["PolicyARN"]]
    assert "Nothing had changed." in run("autoscale", "--name", "shop", "--min", "0", "--max", "3").out
    # One instance at least needs nobody to wake it.
    assert run("autoscale", "--name", "shop", "--min", "1", "--max", "3").status == 0
    assert set(policies(aws)) == {"shop-backlog"}
    assert aws("cloudwatch").describe_alarms(AlarmNames=["segserve-shop-backlog"])["MetricAlarms"] == []


def test_an_alarm_of_somebody_else_is_left_alone(aws: Aws, image: str, run: Script) -> None:
    assert run("deploy", *ON_CPU, "--async").status == 0
    theirs = {"AlarmName": "segserve-shop-backlog", "MetricName": "Theirs", "Namespace": "Shop"}
    measured = {"Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1, "Threshold": 7.0}
    aws("cloudwatch").put_metric_alarm(**theirs, **measured, ComparisonOperator="GreaterThanThreshold")
    for options in (("--min", "0", "--max", "3"), ("--min", "1", "--max", "3"), ("--off",)):
        answer = run("autoscale", "--name", "shop", *options)
        assert answer.status == 1
        assert "the alarm segserve-shop-backlog is there already, not made by these scripts" in answer.err
    (alarm,) = aws("cloudwatch").describe_alarms(AlarmNames=["segserve-shop-backlog"])["MetricAlarms"]
    assert (alarm["MetricName"], alarm["Threshold"]) == ("Theirs", 7.0)


def test_off_leaves_nothing(aws: Aws, image: str, run: Script) -> None:
    assert run("deploy", *ON_CPU, "--async").status == 0
    assert run("autoscale", "--name", "shop", "--min", "0", "--max", "3").status == 0
    dry = run("autoscale", "--name", "shop", "--off", "--dry-run")
    assert dry.out.count(" change ") == 4
    assert target(aws) == (0, 3)
    assert run("autoscale", "--name", "shop", "--off").status == 0
    assert (target(aws), policies(aws)) == (None, {})
    assert aws("cloudwatch").describe_alarms(AlarmNames=["segserve-shop-backlog"])["MetricAlarms"] == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--min", "0"), "only an async endpoint"),
        (("--min", "5", "--max", "2"), "above --max"),
        (("--async",), "answers in real time"),
    ],
)
def test_what_does_not_fit_is_refused(aws: Aws, image: str, run: Script, options: tuple[str, ...], told: str) -> None:
    assert run("deploy", *ON_CPU).status == 0
    ended = run("autoscale", "--name", "shop", *options)
    assert (ended.status, told in ended.err) == (1, True), ended.err
    assert target(aws) is None


def test_an_endpoint_that_is_not_there_is_told(aws: Aws, run: Script) -> None:
    ended = run("autoscale", "--name", "shop")
    assert (ended.status, "there is no endpoint shop" in ended.err) == (1, True)
