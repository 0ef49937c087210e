"""The role that SageMaker takes on to run the containers: created, or brought up to date."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from deployment import Deployment
from places import split
from policies import merged, policy

_POLICY_NAME = "segserve"


@dataclass(frozen=True)
class Needs:
    """What the containers may do beyond pulling their image, reading their models and writing logs and metrics.

    Attributes:
        repository: the image's, in this account's registry.
        async_outputs: read async inputs, write outputs, publish to the topics.
        secrets: ARNs in Secrets Manager.
        reads, writes: places in S3, ``s3://bucket/prefix``.
    """

    repository: str
    async_outputs: bool = False
    secrets: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


def ensure(deployment: Deployment, needs: Needs) -> str:
    """The role's ARN; the role is created, or changed, only where it is not as it should be."""
    calls, name = deployment.calls, deployment.role
    trust = policy("execution_role_trust", _values(deployment, needs))
    allowed = permissions(deployment, needs)
    found = calls.read("iam", "get_role", RoleName=name)
    if found is not None:
        deployment.check_owned(found["Role"].get("Tags"), f"the role {name}")
    if found is None:
        calls.change(
            "iam",
            "create_role",
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps(trust),
            Description=f"SageMaker runs segserve's deployment {deployment.name} with it",
            Tags=deployment.tags(),
        )
    elif _document(found["Role"]["AssumeRolePolicyDocument"]) != trust:
        calls.change("iam", "update_assume_role_policy", RoleName=name, PolicyDocument=json.dumps(trust))
    held = None if found is None else calls.read("iam", "get_role_policy", RoleName=name, PolicyName=_POLICY_NAME)
    if held is None or _document(held["PolicyDocument"]) != allowed:
        calls.change(
            "iam", "put_role_policy", RoleName=name, PolicyName=_POLICY_NAME, PolicyDocument=json.dumps(allowed)
        )
    return deployment.role_arn


def permissions(deployment: Deployment, needs: Needs) -> dict[str, Any]:
    """The role's one inline policy."""
    values = _values(deployment, needs)
    parts = [policy("execution_role", values)]
    if needs.async_outputs:
        parts.append(policy("execution_role_async", values))
    parts += [policy("execution_role_secret", {**values, "SECRET": secret}) for secret in needs.secrets]
    for place in needs.reads:
        bucket, prefix = split(place)
        parts.append(policy("execution_role_read", {**values, "READ_BUCKET": bucket, "READ_PREFIX": prefix}))
    for place in needs.writes:
        bucket, prefix = split(place)
        parts.append(policy("execution_role_write", {**values, "WRITE_BUCKET": bucket, "WRITE_PREFIX": prefix}))
    return merged(parts)


def secret_arn(deployment: Deployment, secret: str) -> str:
    """The ARN of a secret that is named by its name or ARN; its six random characters are left open for a name."""
    if secret.startswith("arn:"):
        return secret
    return deployment.calls.arn("secretsmanager", f"secret:{secret}-??????")


def _values(deployment: Deployment, needs: Needs) -> dict[str, str]:
    calls = deployment.calls
    return {
        "ACCOUNT": calls.account,
        "BUCKET": deployment.bucket,
        "NAME": deployment.name,
        "PARTITION": calls.partition,
        "REGION": calls.region,
        "REPOSITORY": needs.repository,
    }


def _document(text: Any) -> Any:
    """A policy document, which botocore decodes already."""
    return json.loads(text) if isinstance(text, str) else text
