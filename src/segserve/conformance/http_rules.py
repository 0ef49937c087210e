"""HTTP/1.1 between SageMaker's proxy and the container: routes, methods, framing, connections."""

from __future__ import annotations

import contextlib
import select
import socket
import time

from segserve.conformance.check import Check, Outcome, Source, failed, judged, not_applicable, passed
from segserve.conformance.subject import NO_PAYLOAD, Subject
from segserve.conformance.wire import exchange, receive, receive_and_wait, send

_CONTINUE_WAIT_S = 0.5
_STRAY_WAIT_S = 0.1
_PIECES = 4
_PAUSE_S = 0.05


def _unknown_route(subject: Subject) -> Outcome:
    answer = subject.wire.ask("GET", "/no-such-route")
    return judged(answer.status == 404, answer.said())


def _wrong_method(subject: Subject) -> Outcome:
    answer = subject.wire.ask("GET", "/invocations")
    return judged(400 <= answer.status < 500, answer.said())


def _keep_alive(subject: Subject) -> Outcome:
    wire = subject.wire
    with contextlib.closing(wire.connect()) as connection:
        for number in range(1, 4):
            answer = exchange(connection, "GET", [wire.head("GET", "/ping")])
            if answer.status != 200 or answer.version != 11:
                return failed(f"request {number} of one connection: HTTP/{answer.version / 10}, {answer.said()}")
            if number < 3 and answer.headers.get("connection", "").lower() == "close":
                return failed("the connection is closed after one answer")
    return passed("3 requests over one connection, each answered with 200")


def _chunked(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    answer = subject.wire.ask_chunked("/invocations", subject.payload.all_headers(), subject.payload.body)
    return judged(answer.status == 200, answer.said())


def _in_pieces(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    wire, body = subject.wire, subject.payload.body
    size = max(1, -(-len(body) // _PIECES))
    head = wire.head("POST", "/invocations", {**subject.payload.all_headers(), "Content-Length": str(len(body))})
    parts = [head, *(body[start : start + size] for start in range(0, len(body), size))]
    with contextlib.closing(wire.connect()) as connection:
        answer = exchange(connection, "POST", parts, pause_s=_PAUSE_S)
    return judged(answer.status == 200, answer.said())


def _any_case(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    statuses = []
    for changed in (str.lower, str.upper):
        headers = {changed(name): value for name, value in subject.payload.all_headers().items()}
        headers[changed("Content-Length")] = str(len(subject.payload.body))
        head = subject.wire.head("POST", "/invocations", headers)
        with contextlib.closing(subject.wire.connect()) as connection:
            statuses.append(exchange(connection, "POST", [head, subject.payload.body]).status)
    return judged(statuses == [200, 200], f"lower case: {statuses[0]}, upper case: {statuses[1]}")


def _expects_continue(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    body = subject.payload.body
    headers = {**subject.payload.all_headers(), "Content-Length": str(len(body)), "Expect": "100-continue"}
    with contextlib.closing(subject.wire.connect()) as connection:
        started = time.perf_counter()
        send(connection, [subject.wire.head("POST", "/invocations", headers)])
        # Whoever waits for a 100 waits a moment only, then sends the body all the same.
        invited = _readable(connection, _CONTINUE_WAIT_S)
        send(connection, [body])
        answer = receive(connection, "POST", started)
    return judged(answer.status == 200, f"{'100, then' if invited else 'no 100;'} {answer.said()}")


def _framed(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    payload = subject.payload
    head = subject.wire.head(
        "POST", "/invocations", {**payload.all_headers(), "Content-Length": str(len(payload.body))}
    )
    with contextlib.closing(subject.wire.connect()) as connection:
        started = time.perf_counter()
        send(connection, [head, payload.body])
        answer, stray = receive_and_wait(connection, "POST", started, _STRAY_WAIT_S)
    chunked = "chunked" in answer.headers.get("transfer-encoding", "").lower()
    length = answer.headers.get("content-length")
    if stray:
        return failed(f"bytes follow the answer of Content-Length {length}")
    framing = "in chunks" if chunked else f"Content-Length {length}" if length else "up to the end of the connection"
    return passed(f"{len(answer.body)} bytes, {framing}")


def _readable(connection: socket.socket, seconds: float) -> bool:
    return bool(select.select([connection], [], [], seconds)[0])


CHECKS = (
    Check("HTTP-1", "Unknown routes", "404", Source.HTTP, _unknown_route),
    Check("HTTP-2", "GET /invocations is refused", "4xx", Source.HTTP, _wrong_method),
    Check(
        "HTTP-3", "HTTP/1.1 connections are kept alive", "3 requests over one connection", Source.HTTP_1_1, _keep_alive
    ),
    Check("HTTP-4", "A body in chunks (Transfer-Encoding) is taken", "200", Source.HTTP_1_1, _chunked),
    Check("HTTP-5", "A body that comes in pieces is taken", "200", Source.HTTP_1_1, _in_pieces),
    Check("HTTP-6", "Header names count in any case", "200", Source.HTTP, _any_case),
    Check("HTTP-7", "Expect: 100-continue is understood", "100 or nothing, then 200", Source.HTTP, _expects_continue),
    Check("HTTP-8", "An answer is as long as it says", "the whole body, and nothing after it", Source.STREAM, _framed),
)
"""In the order in which they run."""
