"""CloudWatch alarms: those that undo a bad update, and the one that wakes an async endpoint up."""

from __future__ import annotations

from typing import Any

from deployment import VARIANT, Deployment

_NAMESPACE = "AWS/SageMaker"


def rollback_alarms(deployment: Deployment, errors: int, latency_s: float) -> list[dict[str, Any]]:
    """PutMetricAlarm's parameters of the alarms that an update watches.

    Args:
        errors: answers with a 5xx status in one minute that are too many.
        latency_s: time in the container that is too long for one request of a hundred.
    """
    variant = [{"Name": "EndpointName", "Value": deployment.name}, {"Name": "VariantName", "Value": VARIANT}]
    shared = {"Namespace": _NAMESPACE, "Dimensions": variant, "Period": 60, "TreatMissingData": "notBreaching"}
    return [
        {
            "AlarmName": deployment.alarm("errors"),
            "AlarmDescription": f"{errors} or more 5xx answers of {deployment.name} in a minute",
            "MetricName": "Invocation5XXErrors",
            "Statistic": "Sum",
            "EvaluationPeriods": 1,
            "Threshold": float(errors),
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            **shared,
        },
        {
            "AlarmName": deployment.alarm("latency"),
            "AlarmDescription": f"p99 of {deployment.name} over {latency_s:g} s for two minutes",
            "MetricName": "ModelLatency",
            "ExtendedStatistic": "p99",
            "EvaluationPeriods": 2,
            # The metric is in microseconds.
            "Threshold": latency_s * 1e6,
            "ComparisonOperator": "GreaterThanThreshold",
            **shared,
        },
    ]


def backlog_alarm(deployment: Deployment, policy_arn: str) -> dict[str, Any]:
    """PutMetricAlarm's parameters of the alarm that starts the first instance when requests wait and none runs."""
    return {
        "AlarmName": deployment.alarm("backlog"),
        "AlarmDescription": f"Requests wait for {deployment.name} and no instance runs",
        "Namespace": _NAMESPACE,
        "MetricName": "HasBacklogWithoutCapacity",
        "Dimensions": [{"Name": "EndpointName", "Value": deployment.name}],
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 2,
        "DatapointsToAlarm": 2,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
        "AlarmActions": [policy_arn],
    }


def existing(deployment: Deployment, name: str) -> dict[str, Any] | None:
    """The deployment's alarm of that name, as CloudWatch describes it; None where there is none.

    Raises:
        DeploymentError: it is somebody else's.
    """
    calls = deployment.calls
    found = (calls.read("cloudwatch", "describe_alarms", AlarmNames=[name]) or {}).get("MetricAlarms", [])
    if not found:
        return None
    tags = calls.read("cloudwatch", "list_tags_for_resource", ResourceARN=found[0]["AlarmArn"]) or {}
    deployment.check_owned(tags.get("Tags"), f"the alarm {name}")
    return dict(found[0])


def ensure(deployment: Deployment, alarm: dict[str, Any]) -> None:
    """Create an alarm, or change it where it is another.

    Raises:
        DeploymentError: one of that name is somebody else's.
    """
    found = existing(deployment, alarm["AlarmName"])
    if found is None or any(found.get(name) != value for name, value in alarm.items()):
        deployment.calls.change("cloudwatch", "put_metric_alarm", **alarm, Tags=deployment.tags())
