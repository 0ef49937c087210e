"""One call of a running gateway, its errors translated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def call_gateway(
    method: str,
    url: str,
    path: str,
    *,
    key: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    timeout_s: float = 30.0,
) -> Any:
    """The decoded JSON answer.

    Raises:
        NotReadyError: nothing answers there.
        SegserveError: what the gateway answered.
    """
    import requests

    from segserve.errors import NotReadyError, error_from_status

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = requests.request(method, url.rstrip("/") + path, params=parameters, headers=headers, timeout=timeout_s)
        body = answer.json()
    except requests.exceptions.JSONDecodeError as error:
        raise NotReadyError(f"What answers at {url} is not segserve.") from error
    except requests.RequestException as error:
        raise NotReadyError(f"Nothing answers at {url}. Start the service with: segserve serve") from error
    if answer.ok:
        return body
    told = body.get("error", {}) if isinstance(body, dict) else {}
    raise error_from_status(answer.status_code, told.get("message", answer.reason), told.get("code"))
