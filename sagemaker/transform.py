"""Batch transform: every object under an S3 prefix through the model, one request each; instances only while it runs.

    python sagemaker/transform.py --input s3://BUCKET/rooms/ --output s3://BUCKET/masks/ --content-type image/jpeg \
        --env SEGSERVE_MODELS=mask_rcnn

Object KEY of the input becomes KEY.out in the output, below the same folders: JSON with the instances, or with
--accept image/png the drawn picture. Batch transform passes no custom attributes on, so that a raw picture goes to the
served model with its defaults: a model of fixed classes (mask_rcnn, semantic). What needs a prompt (grounded_sam, sam2)
takes JSON requests as objects (--content-type application/json), which may name pictures as s3://.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import container_logs
import environment
from command_line import add_dry_run, count, deployment_of, end, parser
from deployment import Deployment
from endpoint_settings import has_nvidia_gpu
from failures import DeploymentError
from places import split
from waiting import wait

_GPU_AMI = "al2-ami-sagemaker-batch-gpu-535"
"""The newest for batch jobs: NVIDIA driver 535 runs PyTorch built for CUDA 12, not for 13."""

_BUSY = ("InProgress", "Stopping")


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = parser(
        "transform.py",
        "Send every object under an S3 prefix through the deployed model. KEY of the input gives KEY.out in the "
        "output. The model's role must be let at both: deploy.py --read-from S3 --write-to S3.",
        "python sagemaker/transform.py --input s3://shop-pictures/rooms/ --output s3://shop-pictures/masks/ "
        "--content-type image/jpeg --env SEGSERVE_MODELS=mask_rcnn",
    )
    add_dry_run(made)
    made.add_argument("--input", required=True, metavar="S3", help="prefix of the objects")
    made.add_argument("--output", required=True, metavar="S3", help="prefix for the answers")
    made.add_argument("--content-type", default="image/jpeg", help="of all objects: image/*, or application/json")
    made.add_argument("--accept", default="application/json", help="image/png: the drawn picture")
    made.add_argument("--model", help="SageMaker's name of the model; none: the one of the endpoint --name")
    made.add_argument("--instance-type", default="ml.g4dn.xlarge", help="of SageMaker")
    made.add_argument("--instance-count", type=count(1, 100), default=1, help="the objects are shared out among them")
    made.add_argument("--concurrency", type=count(1, 100), help="requests at a time; none: as the container says")
    made.add_argument("--max-payload-mb", type=count(1, 25), help="of one object; none: as the container says")
    made.add_argument("--timeout-per-request", type=count(1, 3600), default=120, help="seconds for one object")
    made.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for the container; no secrets")
    made.add_argument("--no-wait", action="store_true", help="end as soon as the job has begun")
    made.add_argument("--timeout", type=count(60, 432000), default=86400, help="seconds to wait at most")
    return made


def main() -> int:
    """The command line."""
    args = arguments().parse_args()
    deployment = deployment_of(args)
    params = job(deployment, args)
    deployment.calls.change("sagemaker", "create_transform_job", **params)
    if deployment.calls.dry_run:
        print("# dry run: 1 change would be made")
        return 0
    name = params["TransformJobName"]
    if args.no_wait:
        print(f"job {name} has begun; answers go to {args.output}")
        return 0
    wait_for(deployment, name, args.timeout)
    print(f"job {name} is done: answers in {args.output}, KEY.out for each KEY below {args.input}")
    return 0


def job(deployment: Deployment, args: argparse.Namespace) -> dict[str, Any]:
    """CreateTransformJob's parameters.

    Raises:
        DeploymentError: no such model, or a multi-model one.
    """
    split(args.input)
    split(args.output)
    if (args.concurrency or 1) * (args.max_payload_mb or 1) > 100:
        raise DeploymentError(
            f"--concurrency {args.concurrency} x --max-payload-mb {args.max_payload_mb}: SageMaker takes 100 MB in all."
        )
    variables = environment.pairs(args.env)
    params: dict[str, Any] = {
        "TransformJobName": f"{deployment.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}",
        "ModelName": _model(deployment, args.model),
        "BatchStrategy": "SingleRecord",
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": args.timeout_per_request, "InvocationsMaxRetries": 1},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": args.input}},
            "ContentType": args.content_type,
            "CompressionType": "None",
            "SplitType": "None",
        },
        "TransformOutput": {"S3OutputPath": args.output, "Accept": args.accept, "AssembleWith": "None"},
        "TransformResources": {"InstanceType": args.instance_type, "InstanceCount": args.instance_count},
        "Tags": deployment.tags(),
    }
    if variables:
        params["Environment"] = variables
    if has_nvidia_gpu(args.instance_type):
        params["TransformResources"]["TransformAmiVersion"] = _GPU_AMI
    if args.concurrency is not None:
        params["MaxConcurrentTransforms"] = args.concurrency
    if args.max_payload_mb is not None:
        params["MaxPayloadInMB"] = args.max_payload_mb
    return params


def wait_for(deployment: Deployment, name: str, timeout_s: float) -> None:
    """Wait for a job's end.

    Raises:
        DeploymentError: it failed; with the reason and the end of its log.
    """
    calls = deployment.calls
    end_state = wait(
        f"job {name}",
        lambda: calls.read("sagemaker", "describe_transform_job", TransformJobName=name) or {},
        lambda found: str(found.get("TransformJobStatus", "unknown")),
        lambda found: found.get("TransformJobStatus") not in _BUSY,
        timeout_s,
    )
    if end_state.get("TransformJobStatus") != "Completed":
        log = "\n".join(container_logs.tail(calls, container_logs.TRANSFORM_JOBS, prefix=f"{name}/"))
        status, reason = end_state.get("TransformJobStatus"), end_state.get("FailureReason", "no reason given")
        raise DeploymentError(f"job {name} is {status}: {reason}\n{log}")


def _model(deployment: Deployment, named: str | None) -> str:
    """SageMaker's name of the model that the endpoint runs, or of the one that is named."""
    calls = deployment.calls
    if named is None:
        found = calls.read("sagemaker", "describe_endpoint", EndpointName=deployment.name)
        if found is None:
            if calls.dry_run:
                return f"{deployment.name}-0000000000"
            raise DeploymentError(
                f"there is no endpoint {deployment.name} to take the model of; name one with --model "
                "(deploy.py --model-only prints its name)."
            )
        config = calls.read("sagemaker", "describe_endpoint_config", EndpointConfigName=found["EndpointConfigName"])
        named = str((config or {})["ProductionVariants"][0]["ModelName"])
    described = calls.read("sagemaker", "describe_model", ModelName=named)
    if described is None and not calls.dry_run:
        raise DeploymentError(f"there is no model {named} in {calls.region}.")
    if (described or {}).get("PrimaryContainer", {}).get("Mode") == "MultiModel":
        raise DeploymentError(f"{named} is a multi-model one, which batch transform does not take.")
    return named


if __name__ == "__main__":
    end(main)
