"""The gateway in process, in front of a fake TorchServe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from fake_torchserve import FakeTorchServe
from gateways import OpenGateway, wait_for
from sockets import OpenService, Running, gateway_before
from starlette.testclient import TestClient

from segserve.config import Settings
from segserve.gateway.app import create_app


@pytest.fixture
def torchserve() -> FakeTorchServe:
    return FakeTorchServe()


@pytest.fixture
def open_service(torchserve: FakeTorchServe) -> Iterator[OpenService]:
    """Runs a gateway with settings in front of the fake TorchServe, both on real sockets."""
    with ExitStack() as stack:

        def open_one(**settings: Any) -> Running:
            return stack.enter_context(gateway_before(torchserve, **settings))

        yield open_one


@pytest.fixture
def open_gateway(torchserve: FakeTorchServe) -> Iterator[OpenGateway]:
    """Opens a gateway with settings; waits until it is ready, unless told otherwise."""
    with ExitStack() as stack:

        def open_one(settings: Settings | None = None, ready: bool = True, **doubles: Any) -> TestClient:
            chosen = settings or Settings(models=("grounded_sam",))
            doubles.setdefault("transport", httpx2.ASGITransport(app=torchserve))
            client = stack.enter_context(TestClient(create_app(chosen, **doubles)))
            if ready:
                wait_for(lambda: client.get("/ping").status_code == 200)
            return client

        yield open_one


@pytest.fixture
def gateway(open_gateway: OpenGateway) -> TestClient:
    return open_gateway()
