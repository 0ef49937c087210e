"""stack.py against moto, which knows about half of the template's resources, gives endpoints names of its own, and runs
nothing: that scaling, alarms and the web API come into being is not shown.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aws_scripts import SCRIPTS

from policies import policy
from service_models import operation_model

SCRIPT, TEMPLATE = SCRIPTS / "stack.py", SCRIPTS / "template.yaml"
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")

ON_CPU = ("--name", "shop", "--set", "InstanceType=ml.m5.xlarge", "--set", "InferenceAmiVersion=")
Run = Callable[..., Any]
Aws = Callable[[str], Any]


def parameters(aws: Aws) -> dict[str, str]:
    (stack,) = aws("cloudformation").describe_stacks(StackName="shop")["Stacks"]
    return {entry["ParameterKey"]: entry["ParameterValue"] for entry in stack["Parameters"]}


def test_created_left_alone_and_deleted(aws: Aws, run: Run) -> None:
    done = run("stack", *ON_CPU, "--no-api", "--set", "ServedModels=sam2")
    assert (done.status, "AlarmTopic: arn:aws:sns" in done.out) == (0, True), done.err
    first = parameters(aws)
    assert (first["EndpointName"], first["ServedModels"], first["MaxInstances"]) == ("shop", "sam2", "4")
    (model,) = aws("sagemaker").list_models()["Models"]
    container = aws("sagemaker").describe_model(ModelName=model["ModelName"])["PrimaryContainer"]
    assert container["Environment"]["SEGSERVE_MODELS"] == "sam2"
    assert container["Image"].endswith("/segserve:latest")
    assert (first["LambdaBucket"], aws("s3").list_buckets()["Buckets"]) == ("", [])

    assert "Nothing had changed" in run("stack", "--name", "shop", "--no-api").out
    assert parameters(aws) == first

    refused = run("stack", "--name", "shop", "--delete")
    assert (refused.status, "--yes" in refused.err) == (1, True)
    assert "AWS::SageMaker::Endpoint" in refused.out
    assert run("stack", "--name", "shop", "--delete", "--yes").status == 0
    assert aws("sagemaker").list_endpoints()["Endpoints"] == []
    assert "there is no stack" in run("stack", "--name", "shop", "--delete").out


def test_with_the_web_api_its_package_is_there_before(aws: Aws, run: Run) -> None:
    done = run("stack", *ON_CPU)
    assert done.status == 0, done.err
    given = parameters(aws)
    packed = aws("s3").get_object(Bucket=given["LambdaBucket"], Key=given["LambdaKey"])["Body"].read()
    assert packed[:2] == b"PK"


def test_an_update_changes_what_is_set_and_keeps_the_rest(aws: Aws, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto cannot update a template with conditions: what it is asked for is looked at instead."""
    import calls

    assert run("stack", *ON_CPU, "--no-api", "--set", "ServedModels=sam2").status == 0
    real, asked = calls.Calls._ask, []

    def seen(self: Any, service: str, operation: str, params: dict[str, Any]) -> Any:
        if operation != "update_stack":
            return real(self, service, operation, params)
        asked.append(params)
        return {}

    monkeypatch.setattr(calls.Calls, "_ask", seen)
    done = run("stack", "--name", "shop", "--no-api", "--set", "MaxInstances=8")
    assert done.status == 0, done.err
    given = {entry["ParameterKey"]: entry.get("ParameterValue", "as it was") for entry in asked[0]["Parameters"]}
    assert (given["MaxInstances"], given["LambdaBucket"]) == ("8", "")
    assert given["ServedModels"] == given["InstanceType"] == "as it was"
    assert set(given) == set(parameters(aws))


def test_a_failure_names_the_resource_and_its_reason(aws: Aws, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto creates everything; the state and the events are those of a real account's failed creation."""
    import calls

    real = calls.Calls._ask

    def failed(self: Any, service: str, operation: str, params: dict[str, Any]) -> Any:
        if operation == "describe_stacks" and state["created"]:
            tags = [{"Key": "segserve:deployment", "Value": "shop"}]
            return {"Stacks": [{"StackStatus": "ROLLBACK_COMPLETE", "Parameters": [], "Tags": tags}]}
        state["created"] = state["created"] or operation == "create_stack"
        return {} if operation == "create_stack" else real(self, service, operation, params)

    event = {
        "LogicalResourceId": "Endpoint",
        "ResourceStatus": "CREATE_FAILED",
        "ResourceStatusReason": "The account-level service limit 'ml.m5.xlarge' is 0",
    }
    state = {"created": False}
    monkeypatch.setattr(calls.Calls, "_ask", failed)
    monkeypatch.setattr(calls.Calls, "pages", lambda *_, **__: [event])
    done = run("stack", *ON_CPU, "--no-api")
    assert done.status == 1
    assert "Endpoint: The account-level service limit" in done.err and "ROLLBACK_COMPLETE" in done.err
    again = run("stack", *ON_CPU, "--no-api")
    assert (again.status, "--delete" in again.err) == (1, True)


MAKES = {
    "AWS::ApiGatewayV2::Api": "apigateway:POST",
    "AWS::ApiGatewayV2::Integration": "apigateway:POST",
    "AWS::ApiGatewayV2::Route": "apigateway:POST",
    "AWS::ApiGatewayV2::Stage": "apigateway:POST",
    "AWS::ApplicationAutoScaling::ScalableTarget": "application-autoscaling:RegisterScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy": "application-autoscaling:PutScalingPolicy",
    "AWS::CloudWatch::Alarm": "cloudwatch:PutMetricAlarm",
    "AWS::IAM::Role": "iam:CreateRole",
    "AWS::Lambda::Function": "lambda:CreateFunction",
    "AWS::Lambda::Permission": "lambda:AddPermission",
    "AWS::Logs::LogGroup": "logs:CreateLogGroup",
    "AWS::S3::Bucket": "s3:CreateBucket",
    "AWS::SNS::Subscription": "sns:Subscribe",
    "AWS::SNS::Topic": "sns:CreateTopic",
    "AWS::SageMaker::Endpoint": "sagemaker:CreateEndpoint",
    "AWS::SageMaker::EndpointConfig": "sagemaker:CreateEndpointConfig",
    "AWS::SageMaker::Model": "sagemaker:CreateModel",
}
"""What whoever brings the stack up must be allowed, by the template's types of resources."""


def test_the_policies_allow_what_the_stack_needs_and_no_wildcard() -> None:
    """Whether AWS asks for more than this, only an account shows."""
    values = {"ACCOUNT": "1", "BUCKET": "b", "NAME": "n", "PARTITION": "aws", "REGION": "r"}
    statements = [entry for name in ("deployer", "deployer_stack") for entry in policy(name, values)["Statement"]]
    actions = [entry["Action"] for entry in statements]
    allowed = {action for listed in actions for action in ([listed] if isinstance(listed, str) else listed)}
    types = set(re.findall(r"^    Type: (AWS::\w+::\w+)$", TEMPLATE.read_text("utf-8"), re.MULTILINE))
    assert types == set(MAKES)
    assert set(MAKES.values()) - allowed == set()
    called = set(re.findall(r'"cloudformation",\s+"(\w+)"', SCRIPT.read_text("utf-8"))) | {
        "create_stack",
        "update_stack",
    }
    assert len(called) == 6, called
    assert {f"cloudformation:{operation_model('cloudformation', name).name}" for name in called} <= allowed
    assert not [action for action in allowed if "*" in action]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("Instances=2", "InstanceType"),
        ("MaxInstances", "PARAMETER=VALUE"),
        ("LambdaKey=x", "expected one of"),
        ("MaxInstances=none", "a number from 1 to 100"),
        ("MaxInstances=101", "a number from 1 to 100"),
        ("LogRetentionDays=31", "one of 1, 3"),
        ("InstanceType=g5.xlarge", "InstanceType: expected"),
        ("AllowedOrigins=https://shop.example,https://Other.example", "lower case"),
        ("OpenAiSecretArn=sk-secret-value", "not the key itself"),
        ("sk-secret-value", "PARAMETER=VALUE"),
        ("MinInstances=0", "needs Mode Async"),
        ("Mode=MultiModel", "needs ModelDataUrl"),
    ],
)
def test_a_wrong_parameter_is_named_before_anything_is_sent(no_aws: None, run: Run, given: str, said: str) -> None:
    done = run("stack", "--dry-run", "--set", given)
    assert (done.status, said in done.err) == (1, True), done.err
    assert "secret-value" not in done.out + done.err and "CreateStack" not in done.out


def test_a_stack_of_somebody_else_is_left_alone(aws: Aws, run: Run) -> None:
    resource = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    aws("cloudformation").create_stack(StackName="shop", TemplateBody=json.dumps(resource))
    for options in (ON_CPU, ("--name", "shop", "--delete", "--yes")):
        done = run("stack", *options)
        assert (done.status, "the stack shop is there already" in done.err) == (1, True), done.err
    (stack,) = aws("cloudformation").describe_stacks(StackName="shop")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE" and len(aws("sns").list_topics()["Topics"]) == 1


def test_a_run_that_was_interrupted_waits_before_it_updates(
    aws: Aws, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto's stacks are complete at once: the state while it is created is put in."""
    import calls

    assert run("stack", *ON_CPU, "--no-api").status == 0
    real, asked = calls.Calls._ask, []

    def busy(self: Any, service: str, operation: str, params: dict[str, Any]) -> Any:
        asked.append(operation)
        answer = real(self, service, operation, params)
        if asked.count("describe_stacks") <= 2:
            answer["Stacks"][0]["StackStatus"] = "CREATE_IN_PROGRESS"
        return answer

    monkeypatch.setattr(calls.Calls, "_ask", busy)
    done = run("stack", "--name", "shop", "--no-api")
    assert (done.status, "create in progress" in done.err) == (0, True), done.err
    assert asked[:3] == ["describe_stacks"] * 3 and "update_stack" in asked


def test_a_dry_run_needs_no_account(no_aws: None, run: Run) -> None:
    done = run("stack", "--dry-run", "--set", "AlarmEmail=ops@shop.example")
    assert (done.status, "cloudformation CreateStack" in done.out) == (0, True)
    assert "ops@shop.example" in done.out and "AWSTemplateFormatVersion" not in done.out
    asynchronous = run("stack", "--dry-run", "--set", "Mode=Async")
    assert "PutObject" not in asynchronous.out
    assert "DeleteStack" in run("stack", "--dry-run", "--delete").out


def test_the_package_is_the_same_each_time_and_complete(run: Run, tmp_path: Path) -> None:
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    for file in (first, second):
        assert run("stack", "--package", str(file)).status == 0
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = set(archive.namelist())
        listed = json.loads(archive.read("segserve_api/page/files.json"))["files"]
        assert {"segserve_api/handler.py", "segserve_api/__init__.py"} <= names
        assert {f"segserve_api/page/{file['name']}" for file in listed.values()} <= names
        assert {"/", "/static/js/main.js", "/static/page.css", "/demo-scenes/sofa.jpg"} <= set(listed)
        assert all(entry.external_attr >> 16 & 0o444 == 0o444 for entry in archive.infolist())
