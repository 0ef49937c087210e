"""GET /ping, and how connections are accepted."""

from __future__ import annotations

from collections.abc import Sequence

from segserve.conformance.check import Check, Outcome, Source, failed, judged, not_applicable
from segserve.conformance.load import Ping, timed_ping
from segserve.conformance.subject import NO_PAYLOAD, Subject


def _answers(subject: Subject) -> Outcome:
    answer = subject.ping()
    return judged(answer.status == 200, answer.said())


def _idle_pings(subject: Subject) -> list[Ping]:
    return [timed_ping(subject.wire, subject.limits.ping_s) for _ in range(subject.limits.pings)]


def _in_time(subject: Subject) -> Outcome:
    return _judge_answers(_idle_pings(subject), subject.limits.ping_s)


def _in_time_under_load(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    return _judge_answers(subject.load.pings, subject.limits.ping_s)


def _accepts(subject: Subject) -> Outcome:
    return _judge_connections(_idle_pings(subject), subject.limits.connect_s)


def _accepts_under_load(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    return _judge_connections(subject.load.pings, subject.limits.connect_s)


def _judge_answers(pings: Sequence[Ping], limit_s: float) -> Outcome:
    bad = [ping for ping in pings if not ping.healthy]
    if bad:
        return failed(f"{len(bad)} of {len(pings)} without a 200 in time; the first: {bad[0].said}")
    slowest = max((ping.answer_s or 0.0 for ping in pings), default=0.0)
    return judged(slowest <= limit_s, f"{len(pings)} × 200, the slowest after {slowest * 1000:.0f} ms")


def _judge_connections(pings: Sequence[Ping], limit_s: float) -> Outcome:
    refused = [ping for ping in pings if ping.connect_s is None]
    if refused:
        return failed(f"{len(refused)} of {len(pings)} were not accepted; the first: {refused[0].said}")
    slowest = max((ping.connect_s or 0.0 for ping in pings), default=0.0)
    return judged(slowest <= limit_s, f"{len(pings)} accepted, the slowest after {slowest * 1000:.1f} ms")


CHECKS = (
    Check(
        "PING-1",
        "GET /ping answers 200 once ready",
        "200 to a request with no header but Host",
        Source.HOSTING,
        _answers,
    ),
    Check("PING-2", "/ping answers within 2 s", "every one of several: 200 within 2 s", Source.HOSTING, _in_time),
    Check(
        "PING-3",
        "/ping answers within 2 s under load",
        "the same while 8 callers invoke all the time",
        Source.HOSTING,
        _in_time_under_load,
    ),
    Check("CONN-1", "Connections are accepted within 250 ms", "each within 250 ms", Source.HOSTING, _accepts),
    Check(
        "CONN-2",
        "Connections are accepted within 250 ms under load",
        "the same while 8 callers invoke all the time",
        Source.HOSTING,
        _accepts_under_load,
    ),
)
"""In the order in which they run."""
