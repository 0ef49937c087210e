"""Automatic scaling of an endpoint's instances: the policies, and putting them in place or away."""

from __future__ import annotations

from typing import Any

import alarms
from deployment import Deployment
from failures import DeploymentError

_DIMENSION = "sagemaker:variant:DesiredInstanceCount"
_FROM_ZERO = "from-zero"


def _variant(deployment: Deployment) -> dict[str, str]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": deployment.scalable_target,
        "ScalableDimension": _DIMENSION,
    }


def tracking_policy(
    deployment: Deployment, target: float, asynchronous: bool, scale_in_s: int, scale_out_s: int
) -> dict[str, Any]:
    """PutScalingPolicy's parameters of the policy that keeps a metric at its target.

    Args:
        target: invocations per instance and minute; of an async endpoint waiting requests per instance.
        scale_in_s, scale_out_s: pause after instances went, or came.
    """
    metric: dict[str, Any] = {
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    }
    if asynchronous:
        # Async endpoints publish no InvocationsPerInstance.
        metric = {
            "CustomizedMetricSpecification": {
                "MetricName": "ApproximateBacklogSizePerInstance",
                "Namespace": "AWS/SageMaker",
                "Dimensions": [{"Name": "EndpointName", "Value": deployment.name}],
                "Statistic": "Average",
            }
        }
    return {
        "PolicyName": f"{deployment.name}-{'backlog' if asynchronous else 'invocations'}",
        **_variant(deployment),
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": target,
            **metric,
            "ScaleInCooldown": scale_in_s,
            "ScaleOutCooldown": scale_out_s,
        },
    }


def from_zero_policy(deployment: Deployment, scale_out_s: int) -> dict[str, Any]:
    """PutScalingPolicy's parameters of the policy that starts the first instance.

    Target tracking cannot: with no instance there is no backlog per instance.
    """
    return {
        "PolicyName": f"{deployment.name}-{_FROM_ZERO}",
        **_variant(deployment),
        "PolicyType": "StepScaling",
        "StepScalingPolicyConfiguration": {
            "AdjustmentType": "ChangeInCapacity",
            "MetricAggregationType": "Average",
            "Cooldown": scale_out_s,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
        },
    }


def ensure_target(deployment: Deployment, least: int, most: int) -> None:
    """Let the endpoint's instances be counted between two bounds."""
    calls = deployment.calls
    found = calls.read(
        "application-autoscaling",
        "describe_scalable_targets",
        ServiceNamespace="sagemaker",
        ResourceIds=[deployment.scalable_target],
        ScalableDimension=_DIMENSION,
    )
    held = (found or {}).get("ScalableTargets", [])
    if not held or (held[0]["MinCapacity"], held[0]["MaxCapacity"]) != (least, most):
        calls.change(
            "application-autoscaling",
            "register_scalable_target",
            **_variant(deployment),
            MinCapacity=least,
            MaxCapacity=most,
        )


def ensure_policies(deployment: Deployment, wanted: list[dict[str, Any]]) -> dict[str, str]:
    """Put the policies that are missing or others, delete the rest. Returns the ARN of each by its name."""
    calls = deployment.calls
    held = {policy["PolicyName"]: policy for policy in _policies(deployment)}
    arns: dict[str, str] = {}
    for policy in wanted:
        name = policy["PolicyName"]
        found = held.pop(name, None)
        if found is not None and all(found.get(key) == value for key, value in policy.items()):
            arns[name] = found["PolicyARN"]
            continue
        answer = calls.change("application-autoscaling", "put_scaling_policy", **policy)
        stand_in = calls.arn("autoscaling", f"scalingPolicy:…:policyName/{name}")
        arns[name] = answer.get("PolicyARN", stand_in)
    for name in held:
        # Such as the tracking policy of the other kind of endpoint: two would work against each other.
        calls.change("application-autoscaling", "delete_scaling_policy", PolicyName=name, **_variant(deployment))
    return arns


def ensure_backlog_alarm(deployment: Deployment, arns: dict[str, str]) -> None:
    """The alarm that runs the from-zero policy; none where there is no such policy."""
    arn = arns.get(f"{deployment.name}-{_FROM_ZERO}")
    if arn is not None:
        alarms.ensure(deployment, alarms.backlog_alarm(deployment, arn))
    else:
        _delete_backlog_alarm(deployment)


def remove(deployment: Deployment) -> None:
    """End the scaling; the instances that are there stay."""
    calls = deployment.calls
    for policy in _policies(deployment):
        params = {"PolicyName": policy["PolicyName"], **_variant(deployment)}
        calls.change("application-autoscaling", "delete_scaling_policy", **params)
    _delete_backlog_alarm(deployment)
    if is_target(deployment):
        calls.change("application-autoscaling", "deregister_scalable_target", **_variant(deployment))


def is_target(deployment: Deployment) -> bool:
    """Whether the endpoint is scaled."""
    found = deployment.calls.read(
        "application-autoscaling",
        "describe_scalable_targets",
        ServiceNamespace="sagemaker",
        ResourceIds=[deployment.scalable_target],
    )
    return bool((found or {}).get("ScalableTargets"))


def is_ours(deployment: Deployment) -> bool:
    """Whether all the policies bear the names that autoscale.py gives."""
    names = {f"{deployment.name}-{kind}" for kind in ("backlog", "invocations", _FROM_ZERO)}
    return all(policy["PolicyName"] in names for policy in _policies(deployment))


def is_async(deployment: Deployment, said: bool) -> bool:
    """Whether the endpoint is an async one.

    Args:
        said: that --async says so; decides only where AWS cannot be asked.

    Raises:
        DeploymentError: there is no such endpoint, or --async does not fit it.
    """
    calls = deployment.calls
    found = calls.read("sagemaker", "describe_endpoint", EndpointName=deployment.name)
    if found is None:
        if calls.dry_run:
            return said
        raise DeploymentError(f"there is no endpoint {deployment.name} in {calls.region}: run deploy.py first.")
    name = found["EndpointConfigName"]
    config = calls.read("sagemaker", "describe_endpoint_config", EndpointConfigName=name) or {}
    is_one = bool(config.get("AsyncInferenceConfig"))
    if said and not is_one:
        raise DeploymentError(f"--async: the endpoint {deployment.name} answers in real time.")
    return is_one


def _policies(deployment: Deployment) -> list[dict[str, Any]]:
    return deployment.calls.pages(
        "application-autoscaling",
        "describe_scaling_policies",
        "ScalingPolicies",
        ServiceNamespace="sagemaker",
        ResourceId=deployment.scalable_target,
    )


def _delete_backlog_alarm(deployment: Deployment) -> None:
    name = deployment.alarm("backlog")
    if alarms.existing(deployment, name) is not None:
        deployment.calls.change("cloudwatch", "delete_alarms", AlarmNames=[name])
