"""Bring segserve up on SageMaker, or update it: role, repository, model files, model, configuration, endpoint.

    python sagemaker/deploy.py --dry-run
    python sagemaker/deploy.py --model-data model.tar.gz --instance-type ml.g5.xlarge --instance-count 2

Running it again changes nothing unless something changed. An update is blue/green: the new instances start beside
the old ones, take over as --traffic says, and give way again when an alarm goes off.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import alarms
import artifacts
import endpoint
import endpoint_settings
import environment
import execution_role
import image_repository
import topics
from command_line import add_dry_run, count, deployment_of, end, parser
from deployment import Deployment
from endpoint_settings import GPU_AMI, SERVERLESS_REFUSED, Hosting, Traffic, has_nvidia_gpu
from failures import DeploymentError
from places import split

_INSTANCE, _CPU_INSTANCE = "ml.g5.xlarge", "ml.m5.2xlarge"


def main() -> int:
    """The command line."""
    args = arguments().parse_args()
    if args.serverless:
        raise DeploymentError(SERVERLESS_REFUSED)
    deployment = deployment_of(args)
    deploy(deployment, args)
    return 0


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = parser(
        "deploy.py",
        "Create or update a SageMaker endpoint with segserve. The image is pushed before, by build_and_push.sh.",
        "python sagemaker/deploy.py --name segserve --model-data model.tar.gz --instance-type ml.g5.xlarge "
        "--instance-count 2 --traffic canary",
    )
    add_dry_run(made)
    what = made.add_argument_group("what runs")
    what.add_argument("--image", help="REPOSITORY[:TAG|@DIGEST] in this account's ECR; none: NAME:latest")
    what.add_argument("--model-data", help="model.tar.gz, or its s3:// address; none: what is in the image")
    what.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for the container; no secrets")
    what.add_argument("--openai-secret", metavar="NAME|ARN", help="secret in Secrets Manager with the OpenAI key")
    what.add_argument("--images-bucket", action="append", default=[], help="bucket that s3:// images may come from")
    what.add_argument("--workers", type=count(1, 64), help="of each model on one instance; none: as its profile says")
    _add_hosting(made)
    _add_update(made)
    return made


def _add_hosting(made: argparse.ArgumentParser) -> None:
    where = made.add_argument_group("where it runs")
    where.add_argument("--instance-type", help=f"of SageMaker; none: {_INSTANCE}, with --multi-model {_CPU_INSTANCE}")
    where.add_argument("--instance-count", type=count(1, 100), default=1, help="at the start")
    mode = where.add_mutually_exclusive_group()
    mode.add_argument("--async", dest="asynchronous", action="store_true", help="queue requests, answer to S3 and SNS")
    mode.add_argument("--multi-model", action="store_true", help="--model-data is a folder of NAME.tar.gz archives")
    mode.add_argument("--serverless", action="store_true", help="is refused, with the reason")
    mode.add_argument("--model-only", action="store_true", help="no endpoint: for batch transform alone")
    where.add_argument("--concurrency", type=count(1, 1000), default=4, help="of --async, on one instance")
    where.add_argument("--startup-timeout", type=count(60, 3600), default=600, help="seconds to be ready")
    where.add_argument("--volume-gb", type=count(1, 512), help="disk, for instances without their own")
    where.add_argument("--inference-ami", help=f"with the GPU's driver; none: {GPU_AMI} on GPU instances")
    where.add_argument("--bucket", help="for models and outputs; none: one of the deployment's own")
    where.add_argument("--read-from", action="append", default=[], metavar="S3", help="place that batch jobs read")
    where.add_argument("--write-to", action="append", default=[], metavar="S3", help="place that batch jobs write to")


def _add_update(made: argparse.ArgumentParser) -> None:
    update = made.add_argument_group("how it is updated")
    update.add_argument(
        "--traffic", choices=["all-at-once", "canary", "linear"], default="all-at-once", help="its steps"
    )
    update.add_argument("--step-percent", type=count(10, 50), default=50, help="of the instances in a step")
    update.add_argument("--step-wait", type=count(0, 3600), default=300, help="seconds between steps")
    update.add_argument("--bake", type=count(0, 3600), default=300, help="seconds before the old instances end")
    update.add_argument("--max-errors", type=count(1, 10**6), default=5, help="5xx a minute that undo an update")
    update.add_argument("--max-latency", type=count(1, 3600), default=55, help="seconds (p99) that undo an update")
    update.add_argument("--rollback-alarm", action="append", default=[], metavar="ALARM", help="another that undoes it")
    update.add_argument("--recreate", action="store_true", help="delete an endpoint that has failed, create it anew")
    update.add_argument("--no-wait", action="store_true", help="end as soon as AWS has begun")
    update.add_argument("--timeout", type=count(60, 36000), default=5400, help="seconds to wait at most")


def deploy(deployment: Deployment, args: argparse.Namespace) -> None:
    """Bring everything to the state that the options describe, and say what came of it."""
    hosting = _hosting(args)
    traffic = Traffic(args.traffic, args.step_percent, args.step_wait, args.bake)
    if hosting.multi_model and args.model_data is None:
        raise DeploymentError(
            "--multi-model needs --model-data: a folder of NAME.tar.gz archives, or its s3:// address."
        )
    variables = _variables(args)
    model_name = _ensure_model(deployment, args, hosting, variables)
    if args.model_only:
        _say(deployment, f"model {model_name} is there; run it with transform.py.")
        return
    if hosting.asynchronous:
        topics.ensure(deployment)
    config = endpoint_settings.endpoint_config(deployment, model_name, hosting)
    endpoint.ensure_config(deployment, config)
    watched = alarms.rollback_alarms(deployment, args.max_errors, float(args.max_latency))
    for alarm in watched:
        alarms.ensure(deployment, alarm)
    names = (*(alarm["AlarmName"] for alarm in watched), *args.rollback_alarm)
    traffic = replace(traffic, alarms=names)
    begun = endpoint.ensure(deployment, config["EndpointConfigName"], traffic, hosting.instance_count, args.recreate)
    if begun and not args.no_wait and not deployment.calls.dry_run:
        endpoint.wait_until_in_service(deployment, config["EndpointConfigName"], args.timeout)
    done = "is being brought up" if begun and args.no_wait else "is in service"
    _say(deployment, f"endpoint {deployment.name} {done} in {deployment.calls.region}: {config['EndpointConfigName']}.")


def _hosting(args: argparse.Namespace) -> Hosting:
    instance = args.instance_type or (_CPU_INSTANCE if args.multi_model else _INSTANCE)
    return Hosting(
        instance_type=instance,
        instance_count=args.instance_count,
        asynchronous=args.asynchronous,
        multi_model=args.multi_model,
        concurrency=args.concurrency,
        startup_timeout_s=args.startup_timeout,
        volume_gb=args.volume_gb,
        inference_ami=args.inference_ami or (GPU_AMI if has_nvidia_gpu(instance) else None),
    )


def _variables(args: argparse.Namespace) -> dict[str, str]:
    made = environment.environment(args.env, args.openai_secret, args.workers)
    if args.images_bucket:
        for bucket in args.images_bucket:
            split(f"s3://{bucket}")
        made["SEGSERVE_S3_BUCKETS"] = ",".join(args.images_bucket)
    if args.multi_model:
        made["SAGEMAKER_MULTI_MODEL"] = "true"
    return made


def _ensure_model(deployment: Deployment, args: argparse.Namespace, hosting: Hosting, variables: dict[str, str]) -> str:
    """Image, files, role and model. Returns the model's name."""
    image = args.image or f"{deployment.name}:latest"
    repository, _ = image_repository.split_image(deployment, image)
    address = image_repository.pinned(deployment, image)
    artifacts.ensure_bucket(deployment)
    data = None
    if args.model_data is not None:
        data = artifacts.model_data(deployment, args.model_data, hosting.multi_model).address
    secrets = () if args.openai_secret is None else (execution_role.secret_arn(deployment, args.openai_secret),)
    needs = execution_role.Needs(
        repository=repository,
        async_outputs=hosting.asynchronous,
        secrets=secrets,
        reads=(*_model_place(args.model_data), *(f"s3://{name}/" for name in args.images_bucket), *args.read_from),
        writes=tuple(args.write_to),
    )
    execution_role.ensure(deployment, needs)
    params = endpoint_settings.model(deployment, address, variables, hosting, data)
    endpoint.ensure_model(deployment, params)
    return str(params["ModelName"])


def _model_place(model_data: str | None) -> tuple[str, ...]:
    """Where the role must read model files beyond the deployment's own folder."""
    return (model_data,) if model_data is not None and model_data.startswith("s3://") else ()


def _say(deployment: Deployment, text: str) -> None:
    changes = deployment.calls.changes
    if deployment.calls.dry_run:
        print(f"# dry run: {changes} change{'' if changes == 1 else 's'} would be made")
    else:
        print(text + ("" if changes else " Nothing had changed."))


if __name__ == "__main__":
    end(main)
