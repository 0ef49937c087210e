"""The container's environment: settings, and names of secrets; never a secret's value.

SageMaker shows a model's environment to everyone who may describe the model, so a value that is secret does not
belong there. The gateway reads it from Secrets Manager, with the execution role.
"""

from __future__ import annotations

import re

from failures import DeploymentError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,1023}")
_SECRET_NAME = re.compile(
    r"(^|_)(API_?KEYS?|KEYS?|TOKENS?|SECRETS?|CREDENTIALS?|PASS)$|PASSWORDS?|PASSWD|PASSPHRASE", re.IGNORECASE
)
_SECRET_VALUE = re.compile(
    r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{16,}|(gh[pousr]|github_pat|hf)_[A-Za-z0-9_]{20,}|-----BEGIN"
    r"|://[^/@\s]*:[^/@\s]*@"
)
_SECRET_REFERENCE = re.compile(
    r"[A-Za-z0-9/_+=.@-]{1,512}|arn:[a-z-]+:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]{1,519}"
)
_CALLER_KEYS = ("SEGSERVE_API_KEYS", "SEGSERVE_ADMIN_KEY")
OPENAI_SECRET = "SEGSERVE_OPENAI_SECRET"


def environment(given: list[str], openai_secret: str | None = None, workers: int | None = None) -> dict[str, str]:
    """The environment that --env and the other options describe.

    Args:
        given: ``NAME=VALUE`` each.
        openai_secret: name or ARN of the secret that holds the OpenAI key.
        workers: of each model; None: as the profile of the model says.

    Raises:
        DeploymentError: a pair of another form, or one that holds a secret; its value is not repeated.
    """
    made = {"SEGSERVE_LOG_FORMAT": "json", **pairs(given)}
    if openai_secret is not None:
        if not _SECRET_REFERENCE.fullmatch(openai_secret) or _SECRET_VALUE.search(openai_secret):
            raise DeploymentError(
                "--openai-secret: expected the name or ARN of a secret in Secrets Manager, not the key itself, which "
                "is not repeated here."
            )
        made[OPENAI_SECRET] = openai_secret
    if workers is not None:
        made["SAGEMAKER_MODEL_SERVER_WORKERS"] = str(workers)
    return made


def pairs(given: list[str]) -> dict[str, str]:
    """What ``NAME=VALUE`` each says.

    Raises:
        DeploymentError: as of environment.
    """
    made: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not _NAME.fullmatch(name):
            # What came may be a secret without its name: it is not repeated.
            raise DeploymentError("--env: expected NAME=VALUE, the name of letters, digits and underscores.")
        _refuse_secret(name, value)
        made[name] = value
    return made


def _refuse_secret(name: str, value: str) -> None:
    if name in _CALLER_KEYS:
        raise DeploymentError(
            f"--env {name}: on SageMaker callers are known by their AWS identity (IAM permission "
            "sagemaker:InvokeEndpoint), and no header with a key gets through to the container: with keys set it would "
            "refuse every request."
        )
    if name == "OPENAI_API_KEY":
        raise DeploymentError(f"--env {name}: put the key into Secrets Manager and give its name as --openai-secret.")
    if name == OPENAI_SECRET:
        raise DeploymentError(f"--env {name}: give it as --openai-secret, which lets the role read it too.")
    if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
        raise DeploymentError(
            f"--env {name}: looks like a secret. The environment is shown to everyone who may describe the model; "
            "keep the value in Secrets Manager and pass its name."
        )
