"""The conformance kit against the gateway in front of a fake TorchServe: what needs no model, in a second or two."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from fake_torchserve import FakeTorchServe
from sockets import gateway_before

from segserve.conformance.check import Finding, Verdict
from segserve.conformance.kit import CHECKS, failures, recognize, run_checks
from segserve.conformance.payload import Payload
from segserve.conformance.subject import Limits, Subject
from segserve.conformance.wire import Wire, receive, send

LIMITS = Limits(clients=4, load_s=0.5, pings=3)
HOSTED = [check for check in CHECKS if check.family not in ("IMG", "STOP")]


def conformance(torchserve: FakeTorchServe, families: Sequence[str] = (), **given: Any) -> list[Finding]:
    """The findings about a gateway with these settings."""
    with gateway_before(torchserve, **given) as running:
        subject = Subject(Wire(running.url), LIMITS, multi_model=given.get("multi_model", False))
        recognize(subject, None)
        assert subject.is_segserve
        return run_checks(subject, [check for check in HOSTED if not families or check.family in families])


def seen(findings: list[Finding]) -> dict[str, str]:
    return {finding.check.id: finding.outcome.seen for finding in findings}


@pytest.mark.parametrize(
    ("model", "families"), [("grounded_sam", ()), ("semantic", ("INV", "HDR")), ("sam2", ("INV", "HDR"))]
)
def test_the_gateway_keeps_the_contract(model: str, families: tuple[str, ...], torchserve: FakeTorchServe) -> None:
    # Eight workers: what /execution-parameters then says must still be what a transform job takes.
    torchserve.models = {model: ["READY"] * 8}
    findings = conformance(torchserve, families, models=(model,))
    assert seen(failures(findings)) == {}
    untried = {one.check.id for one in findings if one.outcome.verdict is Verdict.NOT_APPLICABLE}
    # Loading needs a TorchServe of its own; see the end-to-end test.
    loading = {"MME-2", *(f"MME-{number}" for number in range(5, 16))}
    assert untried == (({"HDR-3"} if model == "sam2" else set()) if families else loading)


def test_without_a_model_a_multi_model_gateway_is_healthy(torchserve: FakeTorchServe) -> None:
    torchserve.models = {}
    findings = conformance(torchserve, models=(), multi_model=True)
    assert seen(failures(findings)) == {}
    passed = {one.check.id for one in findings if one.outcome.verdict is Verdict.PASS}
    assert {"PING-1", "MME-1", "MME-2", "MME-3", "MME-4", "MME-5", "MME-6", "MME-7"} <= passed


def test_what_has_arrived_at_the_signal_is_answered(torchserve: FakeTorchServe) -> None:
    with gateway_before(torchserve) as running:
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
