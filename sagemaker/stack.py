"""Bring template.yaml up with CloudFormation: the endpoint, its scaling and alarms, the web API and the web page.

    python sagemaker/stack.py --dry-run
    python sagemaker/stack.py --set InstanceType=ml.g5.xlarge --set AlarmEmail=ops@shop.example
    python sagemaker/stack.py --delete

Packs the Lambda function, uploads it, creates the stack or updates it, and prints its outputs. Parameters that are not
set keep what they were.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import artifacts
import lambda_package
import template_parameters
from command_line import add_dry_run, count, deployment_of, end, parser
from deployment import Deployment
from failures import DeploymentError
from template_parameters import TEMPLATE
from waiting import wait

_SET_HERE = ("EndpointName", "LambdaBucket", "LambdaKey")
_UNCHANGED = "No updates are to be performed"


def main() -> int:
    """The command line."""
    args = arguments().parse_args()
    if args.package is not None:
        print(f"{args.package}: sha256 {lambda_package.build(args.package)}")
        return 0
    deployment = deployment_of(args)
    if args.delete:
        return delete(deployment, args.yes, args.timeout)
    deploy(deployment, _parameters(args.set), with_api=not args.no_api, timeout_s=args.timeout)
    return 0


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = parser(
        "stack.py",
        "Create, update or delete the CloudFormation stack of sagemaker/template.yaml. The image is pushed before, by "
        "build_and_push.sh.",
        "python sagemaker/stack.py --name segserve --set MaxInstances=8 --set AllowedOrigins=https://shop.example",
    )
    add_dry_run(made)
    made.add_argument("--set", action="append", default=[], metavar="PARAMETER=VALUE", help="of the template")
    made.add_argument("--no-api", action="store_true", help="the endpoint alone, without web API and page")
    made.add_argument("--bucket", help="for the function's package; none: the deployment's own, created if need be")
    made.add_argument("--package", type=Path, metavar="FILE", help="only write the function's package there")
    made.add_argument("--delete", action="store_true", help="delete the stack; its buckets stay")
    made.add_argument("--yes", action="store_true", help="do not ask before deleting")
    made.add_argument("--timeout", type=count(60, 36000), default=5400, help="seconds to wait at most")
    return made


def deploy(deployment: Deployment, given: dict[str, str], with_api: bool, timeout_s: float) -> None:
    """Create the stack, or update it; a run that changes nothing says so.

    Raises:
        DeploymentError: a parameter is unknown, or AWS could not do it; names the resources that failed.
    """
    calls = deployment.calls
    known = template_parameters.names()
    for name in given:
        if name not in known or name in _SET_HERE:
            others = ", ".join(sorted(known - set(_SET_HERE)))
            raise DeploymentError(f"--set {name}: expected one of {others}.")
    there = _own_stack(deployment)
    if there is not None and there["StackStatus"].endswith("_IN_PROGRESS") and not calls.dry_run:
        # A run that was interrupted: what it began goes on.
        _wait(deployment, timeout_s)
        there = _own_stack(deployment)
    previous = {entry["ParameterKey"]: entry["ParameterValue"] for entry in (there or {}).get("Parameters", ())}
    has_api = with_api and {**previous, **given}.get("Mode") != "Async"
    named = {"EndpointName": deployment.name, **given, **({} if has_api else {"LambdaBucket": ""})}
    template_parameters.check(named, previous)
    values = {**named, **(_function(deployment) if has_api else {})}
    kept = [{"ParameterKey": name, "UsePreviousValue": True} for name in sorted((known & set(previous)) - set(values))]
    request = {
        "StackName": deployment.name,
        "TemplateBody": TEMPLATE.read_text("utf-8"),
        "Parameters": [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()] + kept,
        "Capabilities": ["CAPABILITY_IAM"],
        "Tags": deployment.tags(),
    }
    if there is not None and there["StackStatus"] == "ROLLBACK_COMPLETE":
        raise DeploymentError(f"stack {deployment.name}: its creation failed. Delete it first: --delete.")
    try:
        calls.change("cloudformation", "create_stack" if there is None else "update_stack", **_shown(calls, request))
    except DeploymentError as error:
        if _UNCHANGED not in str(error):
            raise
        print(f"stack {deployment.name} is as it should be. Nothing had changed.")
    else:
        if calls.dry_run:
            print(f"# dry run: {calls.changes} change{'' if calls.changes == 1 else 's'} would be made")
            return
        _wait(deployment, timeout_s)
    for output in (_stack(deployment) or {}).get("Outputs", ()):
        print(f"{output['OutputKey']}: {output['OutputValue']}")


def delete(deployment: Deployment, agreed: bool, timeout_s: float) -> int:
    """Delete the stack after asking. Returns the exit code."""
    calls = deployment.calls
    there = _own_stack(deployment)
    if there is None and not calls.offline:
        print(f"there is no stack {deployment.name} in {calls.region}.")
        return 0
    name = deployment.name if there is None else there["StackId"]
    listed = calls.pages("cloudformation", "list_stack_resources", "StackResourceSummaries", StackName=name)
    for resource in listed:
        print(f"  {resource['ResourceType']} {resource.get('PhysicalResourceId', '')}")
    if not (agreed or calls.dry_run):
        if not sys.stdin.isatty():
            raise DeploymentError("nobody to ask: give --yes to delete all of it.")
        if input(f"Delete all of it? Type the stack's name ({deployment.name}): ").strip() != deployment.name:
            print("nothing was deleted.")
            return 1
    calls.change("cloudformation", "delete_stack", StackName=name)
    if calls.dry_run:
        print("# dry run: nothing was deleted")
        return 0
    _wait(deployment, timeout_s, name)
    print(f"stack {deployment.name} is deleted; buckets, and logs that SageMaker wrote afterwards, stay.")
    return 0


def _function(deployment: Deployment) -> dict[str, str]:
    """The parameters that say where the function's package is, once it is there."""
    artifacts.ensure_bucket(deployment)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "segserve-api.zip"
        key = deployment.key("api", f"{lambda_package.build(package)[:16]}.zip")
        if deployment.calls.read("s3", "head_object", Bucket=deployment.bucket, Key=key) is None:
            deployment.calls.upload(package, deployment.bucket, key)
    return {"LambdaBucket": deployment.bucket, "LambdaKey": key}


def _parameters(pairs: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            # Not repeated: it may be a secret.
            raise DeploymentError("--set: expected PARAMETER=VALUE.")
        given[name] = value
    return given


def _shown(calls: Any, request: dict[str, Any]) -> dict[str, Any]:
    """In a dry run the template by its name: hundreds of lines would bury the rest."""
    return {**request, "TemplateBody": f"({TEMPLATE.name})"} if calls.dry_run else request


def _stack(deployment: Deployment, name: str | None = None) -> dict[str, Any] | None:
    try:
        found = deployment.calls.read("cloudformation", "describe_stacks", StackName=name or deployment.name)
    except DeploymentError as error:
        # CloudFormation's way to say that there is none.
        if error.code == "ValidationError" and "does not exist" in str(error):
            return None
        raise
    return found["Stacks"][0] if found else None


def _own_stack(deployment: Deployment) -> dict[str, Any] | None:
    """The deployment's stack; None where there is none.

    Raises:
        DeploymentError: it is somebody else's, which an update would replace.
    """
    found = _stack(deployment)
    if found is not None:
        deployment.check_owned(found.get("Tags"), f"the stack {deployment.name}")
    return found


def _wait(deployment: Deployment, timeout_s: float, name: str | None = None) -> None:
    def look() -> dict[str, Any]:
        return _stack(deployment, name) or {"StackStatus": "DELETE_COMPLETE"}

    title = f"stack {deployment.name}"
    ended = wait(
        title,
        look,
        lambda state: str(state["StackStatus"]).lower().replace("_", " "),
        lambda state: not str(state["StackStatus"]).endswith("IN_PROGRESS"),
        timeout_s,
    )
    status = str(ended["StackStatus"])
    if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"):
        return
    events = deployment.calls.pages(
        "cloudformation", "describe_stack_events", "StackEvents", StackName=name or deployment.name
    )
    reasons = [
        f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'no reason given')}"
        for event in reversed(events)
        if event["ResourceStatus"].endswith("_FAILED") and "cancelled" not in event.get("ResourceStatusReason", "")
    ]
    raise DeploymentError(f"{title}: {status}. {' | '.join(reasons[-6:])}")


if __name__ == "__main__":
    end(main)
