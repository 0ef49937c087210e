"""Callers' API keys, from a secret in AWS Secrets Manager."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from segserve_api.errors import ApiError

_KEPT_S = 300.0
CONNECT_S, READ_S = 1.0, 2.0
"""How long Secrets Manager may take; the endpoint's time comes on top, and all of it fits into the function's."""
_UNREADABLE = "The keys cannot be checked for the moment. Try again."


class Keys:
    """The keys of a secret: plain text with commas between keys, or JSON ``{"api_keys": ["…"]}``.

    They are read again every five minutes, so that a new key works soon; when that fails, no request is let through.

    Args:
        secret: its name or ARN; empty: no key is asked for.
        read: gives the secret's text; replaced in tests.
    """

    def __init__(self, secret: str, read: Callable[[str], str] | None = None) -> None:
        self._secret = secret
        self._read = read or _secret_text
        self._keys: tuple[bytes, ...] = ()
        self._read_at: float | None = None

    def check(self, headers: Mapping[str, str]) -> None:
        """Let a request through that shows one of the keys; compared in constant time, each with every key.

        Raises:
            ApiError: 401 without a key or with a wrong one, 503 when the secret cannot be read.
        """
        if not self._secret:
            return
        shown = headers.get("x-api-key", "").strip()
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not shown and scheme.lower() == "bearer":
            shown = token.strip()
        if not shown:
            message = "This API needs a key: send it as Authorization: Bearer KEY or X-API-Key: KEY; none came."
            raise ApiError(401, "unauthorized", message)
        matches = [hmac.compare_digest(shown.encode("utf-8"), key) for key in self._current()]
        if not any(matches):
            raise ApiError(401, "unauthorized", "This API needs a key; the one that came is not valid.")

    def _current(self) -> tuple[bytes, ...]:
        now = time.monotonic()
        if self._read_at is None or now - self._read_at > _KEPT_S:
            try:
                self._keys = _parsed(self._read(self._secret))
            except (ClientError, BotoCoreError, ValueError) as error:
                # Not the error's text: it could hold a part of the secret.
                raise ApiError(503, "keys_unreadable", _UNREADABLE, reason=type(error).__name__) from error
            self._read_at = now
        return self._keys


def _secret_text(secret: str) -> str:
    client: Any = boto3.client(
        "secretsmanager",
        config=Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"total_max_attempts": 1}),
    )
    return str(client.get_secret_value(SecretId=secret)["SecretString"])


def _parsed(text: str) -> tuple[bytes, ...]:
    if text.lstrip().startswith("{"):
        listed = json.loads(text).get("api_keys")
        if not isinstance(listed, list):
            raise ValueError("the secret's JSON has no list api_keys")
        keys = [str(key).strip() for key in listed]
    else:
        keys = [key.strip() for key in text.split(",")]
    found = tuple(key.encode("utf-8") for key in keys if key)
    if not found:
        raise ValueError("the secret holds no key")
    return found
