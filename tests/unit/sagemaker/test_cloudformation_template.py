"""sagemaker/template.yaml: cfn-lint finds nothing, and it agrees with what it puts together.

Neither shows that CloudFormation can create the resources.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from segserve_api import cors, endpoint, keys, settings

from segserve.config import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = ROOT / "sagemaker" / "template.yaml"


@pytest.fixture(scope="module")
def template() -> Any:
    """The template, with its short forms as CloudFormation's long ones: !Ref x is {"Ref": x}."""

    class Loader(yaml.SafeLoader):
        pass

    def long_form(loader: Any, suffix: str, node: Any) -> Any:
        name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
        if isinstance(node, yaml.ScalarNode):
            return {name: loader.construct_scalar(node)}
        if isinstance(node, yaml.SequenceNode):
            return {name: loader.construct_sequence(node, deep=True)}
        return {name: loader.construct_mapping(node, deep=True)}

    Loader.add_multi_constructor("!", long_form)
    return yaml.load(TEMPLATE.read_text("utf-8"), Loader)


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("cfn-lint"), "--regions", "eu-central-1", "--", file]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_cfn_lint_finds_nothing() -> None:
    done = lint(TEMPLATE)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_function_gets_the_variables_that_it_reads(template: Any) -> None:
    function = template["Resources"]["Function"]["Properties"]
    given = set(function["Environment"]["Variables"])
    source = Path(settings.__file__).read_text("utf-8")
    read = set(re.findall(r'environ(?:\.get\(|, )"([A-Z_]+)"', source))
    assert given <= read and {"ENDPOINT_NAME", "ALLOWED_ORIGINS"} <= given
    module, _, name = function["Handler"].rpartition(".")
    assert callable(getattr(import_module(module), name))


def test_the_functions_time_fits_into_api_gateways(template: Any) -> None:
    resources = template["Resources"]
    function = resources["Function"]["Properties"]
    asked = float(function["Environment"]["Variables"]["TIMEOUT_S"])
    around = keys.CONNECT_S + keys.READ_S + endpoint.CONNECT_S
    within = resources["ApiIntegration"]["Properties"]["TimeoutInMillis"] / 1000
    assert asked == settings.ApiSettings.timeout_s
    assert asked + around < function["Timeout"] < within <= 30


def test_the_containers_variables_are_segserves(template: Any) -> None:
    variables = template["Resources"]["Model"]["Properties"]["PrimaryContainer"]["Environment"]
    assert set(variables) <= set(ENVIRONMENT)


def test_api_gateway_and_the_function_allow_pages_the_same(template: Any) -> None:
    policy = template["Resources"]["Api"]["Properties"]["CorsConfiguration"]["Fn::If"][1]
    answer = cors.allowing(("https://shop.example",), {"origin": "https://shop.example"})
    before = cors.preflight(("https://shop.example",), {"origin": "https://shop.example"})
    for listed, header in (
        ("ExposeHeaders", answer["Access-Control-Expose-Headers"]),
        ("AllowHeaders", before["Access-Control-Allow-Headers"]),
        ("AllowMethods", before["Access-Control-Allow-Methods"]),
    ):
        assert {name.lower() for name in policy[listed]} == {name.strip().lower() for name in header.split(",")}, listed


def test_roles_allow_single_actions_on_named_resources(template: Any) -> None:
    everywhere = {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}  # which know no resource
    statements = []
    for role in ("ExecutionRole", "FunctionRole"):
        for policy in template["Resources"][role]["Properties"]["Policies"]:
            for entry in policy["PolicyDocument"]["Statement"]:
                statements.append(entry["Fn::If"][1] if "Fn::If" in entry else entry)
    assert len(statements) >= 12
    for statement in statements:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        assert not [action for action in actions if "*" in action]
        if statement["Resource"] == "*":
            assert set(actions) <= everywhere


def test_only_sagemaker_for_this_account_takes_the_execution_role_on(template: Any) -> None:
    """The confused deputy, as the scripts' own role."""
    (statement,) = template["Resources"]["ExecutionRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    scripts = json.loads((ROOT / "sagemaker/policies/execution_role_trust.json").read_text("utf-8"))["Statement"][0]
    assert statement["Principal"] == scripts["Principal"]
    for operator, conditions in scripts["Condition"].items():
        assert set(statement["Condition"][operator]) == set(conditions)


def test_invoke_finds_the_queue_of_the_stack(template: Any) -> None:
    """invoke.py --async --bucket puts requests where the stack's role may read them."""
    from calls import Calls
    from deployment import Deployment

    made = Deployment("shop", Calls(dry_run=True, region="eu-central-1"), "queue")
    written = json.dumps(template).replace("${AsyncBucket}", made.bucket).replace("${EndpointName}", made.name)
    assert f"s3:::{made.bucket}/{made.key('async', 'input')}/*" in written
    for kind in ("output", "failure"):
        assert f'"{made.place("async", kind)}"' in written
        assert f"s3:::{made.bucket}/{made.key('async', kind)}/*" in written


def test_what_a_parameter_may_be(template: Any) -> None:
    for name, good, bad in (
        ("EndpointName", ["segserve", "shop-2"], ["Shop", "a_b", "-a", "a--b"]),
        ("ImageReference", [":latest", ":1.2", "@sha256:" + "a" * 64], ["latest", "@sha256:1", ":a b"]),
        (
            "ModelDataUrl",
            ["", "s3://models/a/model.tar.gz", "s3://models/a/"],
            ["https://x/y", "s3://Models/a", "s3://b"],
        ),
        ("ApiKeySecretArn", ["", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:keys-AbCdEf"], ["keys"]),
        ("AlarmEmail", ["", "ops@shop.example"], ["ops", "ops@shop"]),
        (
            "AllowedOrigins",
            ["", "*", "https://shop.example", "http://[::1]:8080"],
            ["https://Shop.example", "https://a/"],
        ),
        ("StageName", ["$default", "prod"], ["a/b", ""]),
        ("InstanceType", ["ml.g5.xlarge", "ml.g6e.12xlarge"], ["g5.xlarge"]),
    ):
        pattern = template["Parameters"][name]["AllowedPattern"]
        assert [text for text in good if not re.fullmatch(pattern, text)] == [], name
        assert [text for text in bad if re.fullmatch(pattern, text)] == [], name


def test_a_small_enough_template() -> None:
    """CloudFormation takes 51,200 bytes without a detour through S3; JSON shows what is left of it."""
    assert len(TEMPLATE.read_bytes()) <= 51_200
    assert json.dumps(TEMPLATE.read_text("utf-8"))
