"""What the tests of an open gateway share."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

OpenGateway = Callable[..., TestClient]
"""The fixture open_gateway: opens a gateway with settings, and with doubles for create_app."""


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Returns once the condition holds; fails when it does not in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"did not become true within {seconds:g} s")
        time.sleep(0.02)
