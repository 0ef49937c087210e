"""The model, the endpoint configuration and the endpoint: created, updated, or left as they are."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import container_logs
from deployment import VARIANT, Deployment
from endpoint_settings import Traffic
from failures import DeploymentError
from waiting import wait

_BUSY = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
_BROKEN = ("Failed", "UpdateRollbackFailed", "OutOfService")
_ROLE_ATTEMPTS = 12
ROLE_PAUSE_S = 5.0
"""A new role is known to all of AWS only after some seconds; SageMaker refuses it until then."""

_ROLE_UNKNOWN = re.compile("assume (the )?role|could not access model data", re.IGNORECASE)
"""How it says so: CreateModel takes the role on to look whether the model's files are there."""


def ensure_model(deployment: Deployment, params: Mapping[str, Any]) -> None:
    """Create the model unless it is there. Its name tells its content."""
    if deployment.calls.read("sagemaker", "describe_model", ModelName=params["ModelName"]) is not None:
        return
    for attempt in range(_ROLE_ATTEMPTS):
        try:
            deployment.calls.change("sagemaker", "create_model", **params)
            return
        except DeploymentError as error:
            young = error.code == "ValidationException" and _ROLE_UNKNOWN.search(str(error))
            if not young or attempt + 1 == _ROLE_ATTEMPTS:
                raise
            time.sleep(ROLE_PAUSE_S)


def ensure_config(deployment: Deployment, params: Mapping[str, Any]) -> None:
    """Create the endpoint configuration unless it is there. Its name tells its content."""
    name = params["EndpointConfigName"]
    if deployment.calls.read("sagemaker", "describe_endpoint_config", EndpointConfigName=name) is None:
        deployment.calls.change("sagemaker", "create_endpoint_config", **params)


def state(deployment: Deployment) -> dict[str, Any] | None:
    """The endpoint as SageMaker describes it; None where there is none."""
    return deployment.calls.read("sagemaker", "describe_endpoint", EndpointName=deployment.name)


def ensure(deployment: Deployment, config: str, traffic: Traffic, instances: int, recreate: bool = False) -> bool:
    """Create the endpoint, or begin its update. Returns whether there is something to wait for.

    Args:
        config: name of the endpoint configuration that it is to have.
        instances: of that configuration.
        recreate: delete an endpoint that has failed, and create it anew.

    Raises:
        DeploymentError: it is busy with something else, or has failed and is not to be recreated.
    """
    found = _standing(deployment, recreate)
    if found is None:
        deployment.calls.change(
            "sagemaker",
            "create_endpoint",
            EndpointName=deployment.name,
            EndpointConfigName=config,
            Tags=deployment.tags(),
        )
        return True
    status = found["EndpointStatus"]
    # An update tells what it leads to; until its end the endpoint has its former configuration.
    pending = (found.get("PendingDeploymentSummary") or {}).get("EndpointConfigName", found["EndpointConfigName"])
    if pending == config:
        return status in _BUSY
    if status in _BUSY:
        raise DeploymentError(
            f"the endpoint {deployment.name} is {status}: wait until that has ended, then run this again."
        )
    traffic.check(instances)
    _update(deployment, config, traffic)
    return True


def _standing(deployment: Deployment, recreate: bool) -> dict[str, Any] | None:
    """The endpoint that can be updated; None where one has to be created, once the old one is gone.

    Raises:
        DeploymentError: somebody else's, or one that has failed and is not to be recreated.
    """
    found = state(deployment)
    if found is None:
        return None
    tags = deployment.calls.pages("sagemaker", "list_tags", "Tags", ResourceArn=found["EndpointArn"])
    deployment.check_owned(tags, f"the endpoint {deployment.name}")
    status = found["EndpointStatus"]
    if status in _BROKEN and not recreate:
        reason = found.get("FailureReason", "no reason given")
        raise DeploymentError(
            f"the endpoint {deployment.name} is {status} since before ({reason}), and such a one cannot be updated. "
            "Give --recreate to delete it and create it anew."
        )
    if status in _BROKEN:
        deployment.calls.change("sagemaker", "delete_endpoint", EndpointName=deployment.name)
    if status in _BROKEN or status == "Deleting":
        wait_until_gone(deployment)
        return None
    return found


def _update(deployment: Deployment, config: str, traffic: Traffic) -> None:
    """Begin a blue/green update. Where the endpoint scales by itself, it keeps the instances that it has now."""
    scaled = deployment.calls.read(
        "application-autoscaling",
        "describe_scalable_targets",
        ServiceNamespace="sagemaker",
        ResourceIds=[deployment.scalable_target],
    )
    kept: dict[str, Any] = {"RetainAllVariantProperties": False}
    if scaled and scaled["ScalableTargets"]:
        kept = {
            "RetainAllVariantProperties": True,
            "ExcludeRetainedVariantProperties": [
                {"VariantPropertyType": "DesiredWeight"},
                {"VariantPropertyType": "DataCaptureConfig"},
            ],
        }
    deployment.calls.change(
        "sagemaker",
        "update_endpoint",
        EndpointName=deployment.name,
        EndpointConfigName=config,
        DeploymentConfig=traffic.deployment_config(),
        **kept,
    )


def wait_until_in_service(deployment: Deployment, config: str, timeout_s: float) -> None:
    """Wait until the endpoint serves with a configuration.

    Raises:
        DeploymentError: it failed, or went back to the former configuration; with the reason and the end of its log.
    """
    end = wait(
        f"endpoint {deployment.name}",
        lambda: state(deployment) or {"EndpointStatus": "Deleted"},
        _told,
        lambda found: found["EndpointStatus"] not in _BUSY,
        timeout_s,
    )
    status, reason = end["EndpointStatus"], end.get("FailureReason", "no reason given")
    if status == "InService" and end["EndpointConfigName"] == config:
        return
    log = "\n".join(container_logs.tail(deployment.calls, container_logs.ENDPOINTS + deployment.name))
    if status == "InService":
        raise DeploymentError(
            f"the update was rolled back, {deployment.name} serves with {end['EndpointConfigName']} as before: "
            f"{reason}\n{log}"
        )
    raise DeploymentError(f"the endpoint {deployment.name} is {status}: {reason}\n{log}")


def _told(found: dict[str, Any]) -> str:
    """Status, and instances that serve of those that are wanted; in an update with its phase."""
    pending = found.get("PendingDeploymentSummary") or {}
    variants = pending.get("ProductionVariants") or found.get("ProductionVariants") or [{}]
    main = next((variant for variant in variants if variant.get("VariantName") == VARIANT), variants[0])
    phase = (main.get("VariantStatus") or [{}])[-1].get("Status")
    counts = ""
    if main.get("DesiredInstanceCount") is not None:
        counts = f", {main.get('CurrentInstanceCount', 0)} of {main['DesiredInstanceCount']} instances"
    return str(found["EndpointStatus"]) + (f" ({phase})" if phase else "") + counts


def wait_until_gone(deployment: Deployment) -> None:
    """Wait until the endpoint is deleted; not in a dry run."""
    if deployment.calls.dry_run:
        return
    wait(
        f"deleting {deployment.name}",
        lambda: state(deployment) or {"EndpointStatus": "Deleted"},
        _told,
        lambda found: found["EndpointStatus"] == "Deleted",
        1_800,
    )
