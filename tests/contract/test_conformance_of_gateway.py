"""The conformance kit against the gateway in front of a fake TorchServe: what needs no model, in a second or two."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import requests
import uvicorn
from fake_torchserve import FakeTorchServe
from gateways import wait_for
from sockets import Running, listening

from segserve.config import Settings, TorchServeAddress
from segserve.conformance.check import Finding, Verdict
from segserve.conformance.kit import CHECKS, failures, recognize, run_checks
from segserve.conformance.payload import Payload
from segserve.conformance.subject import Limits, Subject
from segserve.conformance.wire import Wire, receive, send
from segserve.gateway.app import create_app
from segserve.gateway.server import build_server

LIMITS = Limits(clients=4, load_s=0.5, pings=3)
HOSTED = [check for check in CHECKS if check.family not in ("IMG", "STOP")]


@pytest.fixture
def backend(torchserve: FakeTorchServe) -> Iterator[str]:
    """The fake TorchServe on a real socket."""
    with listening() as (bound, port):
        config = uvicorn.Config(torchserve, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        running = Running(uvicorn.Server(config), bound, port)
        yield running.url
        running.stop()
        running.join()


@contextmanager
def gateway_at(backend: str, **given: Any) -> Iterator[Running]:
    """A gateway with these settings that is ready."""
    with ExitStack() as stack:
        bound, port = stack.enter_context(listening())
        settings = Settings(torchserve=TorchServeAddress(backend, backend, backend), port=port, **given)
        running = Running(build_server(create_app(settings), settings), bound, port)
        stack.callback(running.join)
        stack.callback(running.stop)
        wait_for(lambda: requests.get(f"{running.url}/ping", timeout=10).status_code == 200)
        yield running


def conformance(backend: str, families: Sequence[str] = (), **given: Any) -> list[Finding]:
    """The findings about a gateway with these settings."""
    with gateway_at(backend, **given) as running:
        subject = Subject(Wire(running.url), LIMITS, multi_model=given.get("multi_model", False))
        recognize(subject, None)
        assert subject.is_segserve
        return run_checks(subject, [check for check in HOSTED if not families or check.family in families])


def seen(findings: list[Finding]) -> dict[str, str]:
    return {finding.check.id: finding.outcome.seen for finding in findings}


@pytest.mark.parametrize(
    ("model", "families"), [("grounded_sam", ()), ("semantic", ("INV", "HDR")), ("sam2", ("INV", "HDR"))]
)
def test_the_gateway_keeps_the_contract(
    model: str, families: tuple[str, ...], backend: str, torchserve: FakeTorchServe
) -> None:
    # Eight workers: what /execution-parameters then says must still be what a transform job takes.
    torchserve.models = {model: ["READY"] * 8}
    findings = conformance(backend, families, models=(model,))
    assert seen(failures(findings)) == {}
    untried = {one.check.id for one in findings if one.outcome.verdict is Verdict.NOT_APPLICABLE}
    # Loading needs a TorchServe of its own; see the end-to-end test.
    loading = {"MME-2", *(f"MME-{number}" for number in range(5, 16))}
    assert untried == (({"HDR-3"} if model == "sam2" else set()) if families else loading)


def test_without_a_model_a_multi_model_gateway_is_healthy(backend: str, torchserve: FakeTorchServe) -> None:
    torchserve.models = {}
    findings = conformance(backend, multi_model=True)
    assert seen(failures(findings)) == {}
    passed = {one.check.id for one in findings if one.outcome.verdict is Verdict.PASS}
    assert {"PING-1", "MME-1", "MME-2", "MME-3", "MME-4", "MME-5", "MME-6", "MME-7"} <= passed


def test_what_has_arrived_at_the_signal_is_answered(backend: str, torchserve: FakeTorchServe) -> None:
    with gateway_at(backend, models=("grounded_sam",)) as running:
        subject = Subject(Wire(running.url), LIMITS)
        recognize(subject, None)
        request = [subject.wire.head("POST", "/invocations", sized(subject.sent)), subject.sent.body]
        held, released = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            released.wait(30)

        # The gateway is busy with something else while requests arrive, and then the signal.
        running.server.servers[0].get_loop().call_soon_threadsafe(hold)
        assert held.wait(30)
        connections = [subject.wire.connect() for _ in range(8)]
        for connection in connections:
            send(connection, request)
        running.stop()
        time.sleep(0.2)
        released.set()
        statuses = [receive(connection, "POST", 0.0).status for connection in connections]
        for connection in connections:
            connection.close()
    assert statuses == [200] * 8


def sized(payload: Payload) -> dict[str, str]:
    return {**payload.all_headers(), "Content-Length": str(len(payload.body))}
