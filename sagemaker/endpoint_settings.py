"""What is asked of an endpoint, as the parameters of SageMaker's calls. Pure: nothing here asks AWS."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from deployment import VARIANT, Deployment
from failures import DeploymentError

SERVERLESS_REFUSED = (
    "serverless endpoints do not fit segserve: they have no GPU, 6 GB of memory and 5 GB of disk at most, take images "
    "of 10 GB at most (PyTorch with CUDA comes near that) and payloads of 4 MB (segserve takes 25 MB), and are neither "
    "multi-model nor async. For rare traffic use --async, with autoscale.py --async --min 0: no instance while idle."
)
GPU_AMI = "al2023-ami-sagemaker-inference-gpu-4-1"
"""NVIDIA driver 580: CUDA 12 and 13, which PyTorch's wheels are built for, run on it."""

_LONGEST_UPDATE_S = 28_800
_PROVISIONING_S = 3_600


def has_nvidia_gpu(instance_type: str) -> bool:
    """Whether instances of a type have NVIDIA GPUs: the families g and p, such as ml.g5.xlarge."""
    return re.match(r"ml\.[gp][0-9]", instance_type) is not None


@dataclass(frozen=True)
class Hosting:
    """How the containers are hosted.

    Attributes:
        instance_type: such as ml.g5.xlarge.
        instance_count: at creation; autoscale.py may change it later.
        asynchronous: requests wait in a queue, answers go to S3.
        multi_model: the endpoint loads models from a folder in S3 when they are asked for.
        concurrency: requests that an async endpoint gives one instance at a time.
        startup_timeout_s: for the container to be ready.
        download_timeout_s: for the model's files.
        volume_gb: disk of each instance; None: SageMaker's choice. Instances with their own disk take none.
        inference_ami: the machine image with the GPU's driver; None: SageMaker's choice, whose driver is old.
    """

    instance_type: str = "ml.g5.xlarge"
    instance_count: int = 1
    asynchronous: bool = False
    multi_model: bool = False
    concurrency: int = 4
    startup_timeout_s: int = 600
    download_timeout_s: int = 600
    volume_gb: int | None = None
    inference_ami: str | None = None

    def __post_init__(self) -> None:
        if self.asynchronous and self.multi_model:
            raise DeploymentError(
                "--async and --multi-model exclude each other: SageMaker's InvokeEndpointAsync has no TargetModel."
            )
        if self.multi_model and has_nvidia_gpu(self.instance_type):
            raise DeploymentError(
                f"--multi-model with --instance-type {self.instance_type}: on GPUs SageMaker has multi-model endpoints "
                "for NVIDIA's Triton container only. Take CPU instances, or one model.tar.gz with all the archives."
            )


@dataclass(frozen=True)
class Traffic:
    """How an update moves requests to the new instances, and when it goes back.

    Attributes:
        mode: all-at-once, canary (a first step, then the rest) or linear (equal steps).
        step_percent: of the instances in the canary, or in each step.
        step_wait_s: between the steps, with the alarms watched.
        bake_s: after the last step, before the old instances end.
        alarms: CloudWatch alarms that undo the update when one goes off meanwhile.
    """

    mode: str = "all-at-once"
    step_percent: int = 50
    step_wait_s: int = 300
    bake_s: int = 300
    alarms: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self._pauses_s >= _LONGEST_UPDATE_S:
            raise DeploymentError(
                f"--step-wait and --bake make {self._pauses_s:,} s of pauses, and an update ends after "
                f"{_LONGEST_UPDATE_S:,} s: shorten them, or take a larger --step-percent."
            )

    def check(self, instances: int) -> None:
        """Raise where SageMaker could not do it.

        Raises:
            DeploymentError: too few instances for steps.
        """
        if self.mode != "all-at-once" and instances < 2:
            raise DeploymentError(
                f"--traffic {self.mode}: a step is half of the instances at most; it needs --instance-count 2 or more."
            )

    @property
    def _steps(self) -> int:
        return {"all-at-once": 1, "canary": 2, "linear": math.ceil(100 / self.step_percent)}[self.mode]

    @property
    def _pauses_s(self) -> int:
        return (self._steps - 1) * self.step_wait_s + self.bake_s

    def deployment_config(self) -> dict[str, Any]:
        """UpdateEndpoint's DeploymentConfig."""
        size = {"Type": "CAPACITY_PERCENT", "Value": self.step_percent}
        routing: dict[str, Any] = {
            "Type": self.mode.replace("-", "_").upper(),
            "WaitIntervalInSeconds": self.step_wait_s if self._steps > 1 else 0,
            **({"CanarySize": size} if self.mode == "canary" else {}),
            **({"LinearStepSize": size} if self.mode == "linear" else {}),
        }
        made: dict[str, Any] = {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": routing,
                "TerminationWaitInSeconds": self.bake_s,
                "MaximumExecutionTimeoutInSeconds": min(_PROVISIONING_S + self._pauses_s, _LONGEST_UPDATE_S),
            }
        }
        if self.alarms:
            made["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in self.alarms]}
        return made


def model(
    deployment: Deployment, image: str, environment: dict[str, str], hosting: Hosting, model_data: str | None
) -> dict[str, Any]:
    """CreateModel's parameters."""
    container: dict[str, Any] = {
        "Image": image,
        "Mode": "MultiModel" if hosting.multi_model else "SingleModel",
        "Environment": environment,
    }
    if hosting.multi_model:
        # Kept between invocations; unloaded only for want of memory.
        container["MultiModelConfig"] = {"ModelCacheSetting": "Enabled"}
    if model_data is not None:
        container["ModelDataUrl"] = model_data
    content = {"PrimaryContainer": container, "ExecutionRoleArn": deployment.role_arn}
    return {"ModelName": deployment.content_name(content), **content, "Tags": deployment.tags()}


def endpoint_config(deployment: Deployment, model_name: str, hosting: Hosting) -> dict[str, Any]:
    """CreateEndpointConfig's parameters."""
    variant: dict[str, Any] = {
        "VariantName": VARIANT,
        "ModelName": model_name,
        "InstanceType": hosting.instance_type,
        "InitialInstanceCount": hosting.instance_count,
        "InitialVariantWeight": 1.0,
        "ModelDataDownloadTimeoutInSeconds": hosting.download_timeout_s,
        "ContainerStartupHealthCheckTimeoutInSeconds": hosting.startup_timeout_s,
    }
    if not hosting.asynchronous:
        variant["RoutingConfig"] = {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    if hosting.volume_gb is not None:
        variant["VolumeSizeInGB"] = hosting.volume_gb
    if hosting.inference_ami is not None:
        variant["InferenceAmiVersion"] = hosting.inference_ami
    content: dict[str, Any] = {"ProductionVariants": [variant]}
    if hosting.asynchronous:
        content["AsyncInferenceConfig"] = {
            "OutputConfig": {
                "S3OutputPath": deployment.place("async", "output"),
                "S3FailurePath": deployment.place("async", "failure"),
                "NotificationConfig": {
                    "SuccessTopic": deployment.topic("success"),
                    "ErrorTopic": deployment.topic("error"),
                },
            },
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": hosting.concurrency},
        }
    return {"EndpointConfigName": deployment.content_name(content), **content, "Tags": deployment.tags()}
