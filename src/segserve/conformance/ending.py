"""SIGTERM: what is in flight is answered, the container ends before SIGKILL comes. Runs last."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from segserve.conformance.check import Check, Outcome, Source, failed, judged, not_applicable, passed
from segserve.conformance.subject import NO_PAYLOAD, Subject
from segserve.conformance.wire import Answer, UnansweredError, receive, send

_NO_HOLDER = "it cannot be ended from here; use --image or --pid"
_ENDED = (0, 143)
_ARRIVAL_S = 0.02


def _drains(subject: Subject) -> Outcome:
    if subject.holder is None:
        return not_applicable(_NO_HOLDER)
    if subject.payload is None:
        subject.terminate()
        return not_applicable(NO_PAYLOAD)
    headers = {**subject.payload.all_headers(), "Content-Length": str(len(subject.payload.body))}
    request = [subject.wire.head("POST", "/invocations", headers), subject.payload.body]
    usual_s = subject.invoke().seconds
    with contextlib.ExitStack() as stack:
        connections = [_opened(stack, subject) for _ in range(subject.limits.clients)]
        for connection in connections:
            send(connection, request)
        # Half of what one takes: by then all have arrived, and hardly any is answered.
        time.sleep(max(_ARRIVAL_S, usual_s / 2))
        answered = len(select.select(connections, [], [], 0)[0])
        subject.terminate()
        started = time.perf_counter()
        with ThreadPoolExecutor(len(connections)) as pool:
            ends = list(pool.map(lambda connection: _end_of(connection, started), connections))
    bad = [end for end in ends if not isinstance(end, Answer) or end.status != 200]
    if bad:
        first = bad[0].said() if isinstance(bad[0], Answer) else str(bad[0])
        return failed(f"{len(bad)} of {len(ends)} requests were lost; the first: {first}")
    in_flight = len(ends) - answered
    if in_flight == 0:
        return not_applicable(f"it answers too fast: all of {len(ends)} requests were answered before SIGTERM")
    return passed(f"{in_flight} in flight at SIGTERM, each answered with 200")


def _ends_in_time(subject: Subject) -> Outcome:
    if subject.holder is None or subject.terminated_at is None:
        return not_applicable(_NO_HOLDER)
    left = subject.limits.stop_s - (time.monotonic() - subject.terminated_at)
    if not subject.holder.wait(max(0.0, left)):
        return failed(f"still running {subject.limits.stop_s:g} s after SIGTERM")
    return passed(f"ended {time.monotonic() - subject.terminated_at:.1f} s after SIGTERM")


def _ends_well(subject: Subject) -> Outcome:
    if subject.holder is None:
        return not_applicable(_NO_HOLDER)
    if not subject.holder.wait(0):
        return failed("still running")
    code = subject.holder.exit_code()
    if code is None:
        return not_applicable("the exit code of a process that is not a child cannot be seen")
    return judged(code == 0 if subject.is_segserve else code in _ENDED, f"exit code {code}")


def _opened(stack: contextlib.ExitStack, subject: Subject) -> socket.socket:
    return stack.enter_context(contextlib.closing(subject.wire.connect()))


def _end_of(connection: socket.socket, started: float) -> Answer | UnansweredError:
    try:
        return receive(connection, "POST", started)
    except UnansweredError as error:
        return error


CHECKS = (
    Check("STOP-1", "SIGTERM: what is in flight is answered", "200 for each", Source.HOSTING, _drains),
    Check("STOP-2", "It ends before SIGKILL", "within 30 s of SIGTERM", Source.HOSTING, _ends_in_time),
    Check(
        "STOP-3", "It ends by itself, without an error", "exit code 0 (or 143: by SIGTERM)", Source.HOSTING, _ends_well
    ),
)
"""In the order in which they run."""
