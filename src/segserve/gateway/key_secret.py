"""An API key out of AWS Secrets Manager, read with the credentials of the machine's own role. Blocking; for threads."""

from __future__ import annotations

import importlib.util
import json
import re

from segserve.config import KEY_VARIABLE
from segserve.errors import InvalidRequestError

_REGION = re.compile(r"arn:[a-z-]+:secretsmanager:([a-z0-9-]+):")
_KEY = re.compile(r"[\x21-\x7e]{1,1024}")


class SecretError(Exception):
    """The secret could not be read, or holds no key. Its text says why, and nothing of the secret's content."""


def check_support() -> None:
    """Whether secrets can be read here at all.

    Raises:
        InvalidRequestError: the package for it is not installed.
    """
    if importlib.util.find_spec("boto3") is None:
        raise InvalidRequestError("SEGSERVE_OPENAI_SECRET: this server is installed without boto3 (segserve[s3]).")


def read_key(name: str, timeout_s: float) -> str:
    """The key that a secret holds: its whole text, or of a JSON object the field OPENAI_API_KEY, or the only field.

    Args:
        name: the secret's name, or its ARN, which also says the region.
        timeout_s: for connecting and for reading, each.

    Raises:
        SecretError: no such secret, no access, no connection, or no key in it.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    region = _REGION.match(name)
    config = Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": 1})
    try:
        # A session of its own: the default one is not safe in several threads.
        client = boto3.session.Session().client(
            "secretsmanager", region_name=region.group(1) if region else None, config=config
        )
        answer = client.get_secret_value(SecretId=name)
    except ClientError as error:
        reason = error.response.get("Error", {}).get("Code", "an error")
        raise SecretError(f"Secrets Manager answered {reason}") from error
    except (BotoCoreError, OSError, ValueError) as error:
        raise SecretError(f"Secrets Manager could not be asked ({type(error).__name__})") from error
    return key_of(answer.get("SecretString") or "")


def key_of(text: str) -> str:
    """The key in a secret's text; see read_key.

    Raises:
        SecretError: there is none.
    """
    key = text.strip()
    if key.startswith("{"):
        try:
            fields = json.loads(key)
        except (ValueError, RecursionError):
            # Without its cause: that one's text would hold the secret.
            raise SecretError("the secret begins like a JSON object and is none") from None
        found = fields.get(KEY_VARIABLE) or (next(iter(fields.values())) if len(fields) == 1 else None)
        key = found.strip() if isinstance(found, str) else ""
    if not _KEY.fullmatch(key):
        raise SecretError(f"the secret holds no key: expected it as plain text, or in the field {KEY_VARIABLE}")
    return key
