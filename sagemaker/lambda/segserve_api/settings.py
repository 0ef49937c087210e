"""What the function is told, by environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_ENDPOINT_NAME = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}")
_ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:-]+")

LAMBDA_PAYLOAD_BYTES = 6 * 2**20
"""What Lambda takes and gives in one synchronous call, as JSON."""


class SettingsError(ValueError):
    """A variable is missing or of the wrong form; the message names it."""


@dataclass(frozen=True)
class ApiSettings:
    """The function's settings.

    Attributes:
        endpoint_name: of the SageMaker endpoint that requests are passed on to.
        origins: whose pages may read the answers (CORS), or only ``*``.
        timeout_s: how long the endpoint may take. API Gateway waits 29 s (REST) or 30 s (HTTP) and the function has
            to answer before.
        max_body_bytes: of a request. Lambda takes 6 MiB of JSON, in which binary bodies are base64: a third longer.
        api_key_secret: name or ARN of the Secrets Manager secret with the callers' keys; empty: no key is asked for.
        target_model: archive of a multi-model endpoint that is asked when the caller names none; empty: none.
        base_path: of a custom domain's mapping, without slashes.
    """

    endpoint_name: str
    origins: tuple[str, ...] = ()
    timeout_s: float = 23.0
    max_body_bytes: int = 4_500_000
    api_key_secret: str = ""
    target_model: str = ""
    base_path: str = ""

    def __post_init__(self) -> None:
        if not _ENDPOINT_NAME.fullmatch(self.endpoint_name):
            raise SettingsError(f"ENDPOINT_NAME: expected the name of an endpoint, came {self.endpoint_name[:80]!r}.")
        if self.origins != ("*",):
            for origin in self.origins:
                if not _ORIGIN.fullmatch(origin):
                    raise SettingsError(
                        "ALLOWED_ORIGINS: expected origins such as https://shop.example (lower case, nothing behind "
                        f"the port), separated by commas, or * alone; came {origin[:80]!r}."
                    )
        if not 0 < self.timeout_s <= 60:
            raise SettingsError(f"TIMEOUT_S: expected a number above 0 and up to 60, came {self.timeout_s:g}.")
        if not 0 < self.max_body_bytes <= LAMBDA_PAYLOAD_BYTES:
            raise SettingsError(f"MAX_BODY_BYTES: expected 1 to {LAMBDA_PAYLOAD_BYTES}, came {self.max_body_bytes}.")


def settings_from_environment(environ: Mapping[str, str]) -> ApiSettings:
    """The settings that the environment describes.

    Raises:
        SettingsError: names the variable.
    """
    origins = environ.get("ALLOWED_ORIGINS", "").split(",")
    return ApiSettings(
        endpoint_name=environ.get("ENDPOINT_NAME", "").strip(),
        origins=tuple(origin.strip() for origin in origins if origin.strip()),
        timeout_s=_number(environ, "TIMEOUT_S", ApiSettings.timeout_s),
        max_body_bytes=int(_number(environ, "MAX_BODY_BYTES", ApiSettings.max_body_bytes)),
        api_key_secret=environ.get("API_KEY_SECRET", "").strip(),
        target_model=environ.get("TARGET_MODEL", "").strip(),
        base_path=environ.get("BASE_PATH", "").strip().strip("/"),
    )


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    try:
        return float(text) if text else default
    except ValueError as error:
        raise SettingsError(f"{name}: expected a number, came {text[:40]!r}.") from error
