"""Every script without an account: dry runs, help, and what a laptop without AWS is told.

The calls of a dry run are checked against botocore's descriptions of the services, enumerations and patterns included;
whether AWS would permit them is not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aws_scripts import SCRIPTS, Run
from botocore import xform_name

from policies import policy
from service_models import check, operation_model

Script = Callable[..., Run]
TRANSFORM = ("transform", "--input", "s3://pictures/rooms/", "--output", "s3://pictures/masks/")
# deployer_stack is of stack.py, and tested with it.
POLICIES = sorted({path.stem for path in (SCRIPTS / "policies").glob("*.json")} - {"deployer_stack"})
COMMANDS = ("deploy", "autoscale", "transform", "invoke", "stack", "teardown", "image_repository")


def test_the_modules_shadow_nothing(no_aws: None) -> None:
    """Python puts a script's folder first: a calls.py, say, must not be another package's."""
    others = [folder for folder in sys.path if Path(folder).resolve() != SCRIPTS]
    assert not (SCRIPTS / "__init__.py").exists()
    for file in SCRIPTS.glob("*.py"):
        assert file.stem not in sys.stdlib_module_names
        assert importlib.machinery.PathFinder.find_spec(file.stem, others) is None, file.stem


@pytest.mark.parametrize("script", COMMANDS)
def test_help_has_an_example_and_every_option_is_explained(no_aws: None, run: Script, script: str) -> None:
    ended = run(script, "--help")
    assert ended.status == 0
    assert f"python sagemaker/{script}.py" in ended.out
    parser = ended.out.split("options:")[1]
    bare = re.findall(r"^  (--?[\w-]+)[^\n]*$(?=\n  -|\n\n)", parser, re.MULTILINE)
    assert [option for option in bare if not re.search(rf"^  {option}\b.*?  \S", parser, re.MULTILINE)] == []


@pytest.mark.parametrize(
    "command",
    [
        ("deploy",),
        ("deploy", "--async", "--openai-secret", "openai", "--images-bucket", "pictures"),
        ("deploy", "--bucket", "company", "--model-data", "s3://company/model.tar.gz", "--read-from", "s3://pictures/"),
        ("deploy", "--model-only"),
        ("autoscale",),
        ("autoscale", "--async", "--min", "0"),
        ("autoscale", "--off"),
        TRANSFORM,
        ("teardown",),
        ("image_repository",),
    ],
    ids=" ".join,
)
def test_a_dry_run_needs_no_account(no_aws: None, run: Script, command: tuple[str, ...]) -> None:
    ended = run(*command, "--dry-run")
    assert (ended.status, ended.err) == (0, "")
    assert "account 123456789012 and region us-east-1 stand in" in ended.out
    assert calls_in(ended.out)


def test_a_script_runs_from_anywhere_as_a_process(no_aws: None, tmp_path: Path) -> None:
    """With the folder of the scripts found by Python itself, and a plain environment."""
    command = [sys.executable, str(SCRIPTS / "deploy.py"), "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "CreateEndpoint " in done.stdout


@pytest.mark.parametrize(
    "command", [("deploy",), ("autoscale",), TRANSFORM, ("teardown", "--yes"), ("invoke", "--kind", "ping")]
)
def test_without_credentials_one_line_says_so(no_aws: None, run: Script, command: tuple[str, ...]) -> None:
    ended = run(*command)
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert ended.err.startswith("error: no AWS credentials")


def test_without_a_region_or_with_a_wrong_profile_one_line_says_so(
    no_aws: None, run: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run("deploy", "--profile", "nobody")
    assert (ended.status, "nobody" in ended.err, ended.err.count("\n")) == (1, True, 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    ended = run("deploy", "--dry-run")
    assert (ended.status, ended.err) == (1, "error: no AWS region: give --region eu-central-1, or set AWS_REGION.\n")


def test_an_aws_that_cannot_be_reached_is_told(no_aws: None, run: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    ended = run("deploy", "--region", "eu-central-1", "--no-wait")
    assert (ended.status, "cannot be reached" in ended.err, ended.err.count("\n")) == (1, True, 1)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"EndpointName": "shop", "EndpointConfigName": "c"}, None),
        ({"EndpointName": "shop"}, "EndpointConfigName"),
        ({"EndpointName": "shop", "EndpointConfigName": "c", "Tag": []}, "Tag"),
        ({"EndpointName": "shop_1", "EndpointConfigName": "c"}, "not of the form"),
        ({"EndpointName": "a" * 64, "EndpointConfigName": "c"}, "64 characters"),
        ({"EndpointName": "shop", "EndpointConfigName": "c", "Tags": [{"Key": "k", "Value": 1}]}, "Value"),
        ({"EndpointName": "shop", "EndpointConfigName": "c", "Tags": [{"Key": "k" * 129, "Value": ""}]}, "Tags[0].Key"),
    ],
)
def test_parameters_are_checked_against_the_services_description(params: dict[str, Any], told: str | None) -> None:
    if told is None:
        check("sagemaker", "create_endpoint", params)
        return
    with pytest.raises(Exception, match=re.escape(told)):
        check("sagemaker", "create_endpoint", params)


@pytest.mark.parametrize(("instance", "has_driver"), [("ml.g5.xlarge", True), ("ml.m5.xlarge", False)])
def test_gpu_instances_get_a_driver_that_is_new_enough(
    no_aws: None, run: Script, instance: str, has_driver: bool
) -> None:
    ended = run("deploy", "--dry-run", "--instance-type", instance)
    assert ('"InferenceAmiVersion": "al2023-ami-sagemaker-inference-gpu-4-1"' in ended.out) == has_driver


def test_an_instance_type_that_does_not_exist_is_found_in_a_dry_run(no_aws: None, run: Script) -> None:
    ended = run("deploy", "--dry-run", "--instance-type", "ml.g5.xlage")
    assert (ended.status, "ml.g5.xlage" in ended.err) == (1, True)


IAM_ACTIONS = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:DeleteObjects": "s3:DeleteObject",
    "sagemaker-runtime:InvokeEndpointAsync": "sagemaker:InvokeEndpointAsync",
    "sagemaker-runtime:InvokeEndpoint": "sagemaker:InvokeEndpoint",
}
"""Calls whose permission has another name."""


def test_the_deployers_policy_allows_every_call_of_the_scripts_and_no_other_service() -> None:
    values = {"ACCOUNT": "1", "BUCKET": "b", "NAME": "n", "PARTITION": "aws", "REGION": "r"}
    document = policy("deployer", values)
    allowed = {action for one in document["Statement"] for action in listed(one["Action"])}
    # stack.py goes through CloudFormation, with permissions of its own.
    source = "".join(file.read_text("utf-8") for file in SCRIPTS.glob("*.py") if file.stem != "stack")
    called = re.findall(
        r'(?:read|change|pages|_deletion)\(\s*(?:deployment,\s*)?"([a-z0-9-]+)",\s*"([a-z0-9_]+)"', source
    )
    called += [("sagemaker", name) for name in re.findall(r'"((?:list|delete)_(?:models?|endpoint_configs?))"', source)]
    assert len(set(called)) > 45
    needed = {f"{service}:{operation_model(service, operation).name}" for service, operation in called}
    needed = {IAM_ACTIONS.get(name, name) for name in needed} | {"sagemaker:InvokeEndpoint", "iam:PassRole"}
    assert needed - allowed == set()
    assert {action.partition(":")[0] for action in allowed - needed} <= {
        "sagemaker",
        "ecr",
        "s3",
        "sns",
        "cloudwatch",
        "iam",
    }
    assert not any("*" in action for action in allowed)
    # deploy.py --image may name the repository of another deployment.
    (images,) = [one["Resource"] for one in document["Statement"] if "ecr:DescribeImages" in listed(one["Action"])]
    assert images.endswith(":repository/*")


@pytest.mark.parametrize("file", POLICIES)
def test_a_policy_allows_no_wildcard_action_and_all_resources_only_where_aws_has_none_smaller(file: str) -> None:
    names = ("ACCOUNT", "BUCKET", "NAME", "PARTITION", "REGION", "REPOSITORY", "SECRET")
    values = dict.fromkeys((*names, "READ_BUCKET", "READ_PREFIX", "WRITE_BUCKET", "WRITE_PREFIX"), "x")
    document = policy(file, values)
    seen = [statement["Sid"] for statement in document["Statement"]]
    assert len(seen) == len(set(seen))
    unscoped = {
        action
        for statement in document["Statement"]
        if statement.get("Resource") == "*"
        for action in listed(statement["Action"])
    }
    assert unscoped <= {
        *("ecr:GetAuthorizationToken", "cloudwatch:PutMetricData", "cloudwatch:DescribeAlarms"),
        *("sts:GetCallerIdentity", "sagemaker:ListModels", "sagemaker:ListEndpointConfigs"),
        *("application-autoscaling:DescribeScalableTargets", "application-autoscaling:DescribeScalingPolicies"),
    }
    assert not any("*" in action for one in document["Statement"] for action in listed(one["Action"]))


@pytest.mark.parametrize("value", ["*", "a*", 'x"', "a b", "a?"])
def test_a_value_cannot_widen_a_policy(value: str) -> None:
    with pytest.raises(Exception, match="BUCKET cannot be"):
        policy(
            "execution_role_async", {"ACCOUNT": "1", "BUCKET": value, "NAME": "n", "PARTITION": "aws", "REGION": "r"}
        )


def listed(actions: str | list[str]) -> list[str]:
    return [actions] if isinstance(actions, str) else actions


def calls_in(text: str) -> list[str]:
    """The calls that a dry run printed; each with JSON parameters that their service takes."""
    found = re.split(r"^ ?\d+\. (?=read|change)", text, flags=re.MULTILINE)[1:]
    names = []
    for call in found:
        _, service, operation, rest = call.split(maxsplit=3)
        params, _ = json.JSONDecoder().raw_decode(rest)
        assert set(params) <= set(operation_model(service, xform_name(operation)).input_shape.members)
        names.append(f"{service} {operation}")
    return names
