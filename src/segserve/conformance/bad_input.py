"""Bad input: the caller's mistake is a 4xx, tells nothing of the inside, and hurts nobody else.

An answer of 5xx counts as the container's fault: it is in the alarms of an update and rolls it back.
"""

from __future__ import annotations

import contextlib
import random
import re

from segserve.conformance.check import Check, Outcome, Source, failed, judged, not_applicable, passed
from segserve.conformance.payload import JSON
from segserve.conformance.subject import NO_PAYLOAD, Subject
from segserve.conformance.wire import Answer, UnansweredError, exchange, send

_NOISE = random.Random(7).randbytes(2048)
_DEEP = b"[" * 100_000
_SHAPES = (b"[]", b"null", b'"text"', b"17", b'{"no_such_field": [1, 2]}')
_INSIDE = re.compile(
    r'Traceback \(most recent call last\)|File "[^"]+", line \d+'
    r"|/(?:usr|opt|home|root|app|srv)/[\w./-]+\.(?:py|java|js)|\bat [\w$.]+\([\w$]+\.java:\d+\)"
)


def _empty(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    return _refused(subject.invoke(b""), strict=subject.is_segserve)


def _cut(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    return _refused(subject.invoke(subject.payload.cut()), strict=subject.payload.is_json)


def _noise(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    return _refused(subject.invoke(_NOISE), strict=subject.payload.is_json or subject.is_segserve)


def _shapes(subject: Subject) -> Outcome:
    answers = [subject.wire.ask("POST", "/invocations", {"Content-Type": JSON}, body) for body in _SHAPES]
    statuses = ", ".join(str(answer.status) for answer in answers)
    return judged(all(_is_refusal(answer, strict=subject.is_segserve) for answer in answers), statuses)


def _deep(subject: Subject) -> Outcome:
    return _refused(subject.wire.ask("POST", "/invocations", {"Content-Type": JSON}, _DEEP), strict=True)


def _unknown_type(subject: Subject) -> Outcome:
    answer = subject.wire.ask("POST", "/invocations", {"Content-Type": "application/x-no-such-type"}, _NOISE)
    return _refused(answer, strict=subject.is_segserve)


def _inside(subject: Subject) -> Outcome:
    bodies = [b"", _NOISE, _DEEP, *_SHAPES]
    types = [subject.payload.content_type if subject.payload else JSON, JSON, "application/x-no-such-type"]
    answers = [
        subject.wire.ask("POST", "/invocations", {"Content-Type": kind}, body) for body in bodies for kind in types
    ]
    if subject.payload is not None:
        answers.append(subject.invoke(subject.payload.cut()))
    for answer in answers:
        told = _INSIDE.search(answer.body.decode("utf-8", "replace"))
        if told:
            return failed(f"{answer.status} with {told.group()[:80]}")
    return passed(f"nothing of the inside in {len(answers)} answers")


def _hang_up(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    payload, wire = subject.payload, subject.wire
    headers = {**payload.all_headers(), "Content-Length": str(len(payload.body))}
    for _ in range(4):
        with contextlib.closing(wire.connect()) as connection:
            send(connection, [wire.head("POST", "/invocations", headers), payload.cut()])
    wrong = subject.lives_on()
    return failed(wrong) if wrong else passed("4 callers hung up in the middle; the next was answered with 200")


def _malformed(subject: Subject) -> Outcome:
    wire, said = subject.wire, []
    for headers in ({"Content-Length": "many"}, {"Content-Length": "-1"}, {"no colon\r\nbroken": "x"}):
        with contextlib.closing(wire.connect()) as connection:
            try:
                answer = exchange(connection, "POST", [wire.head("POST", "/invocations", headers)])
            except UnansweredError as error:
                # Hanging up is a fair answer to what is not HTTP; never ending the wait is not.
                if "in time" in str(error):
                    return failed(f"{headers}: {error}")
                said.append("closed")
                continue
        if not 400 <= answer.status < 500:
            return failed(f"{headers}: {answer.said()}")
        said.append(str(answer.status))
    wrong = subject.lives_on() if subject.payload else None
    return failed(wrong) if wrong else passed(", ".join(said))


def _lives_on(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    for body in (b"", _NOISE, subject.payload.cut()):
        with contextlib.suppress(UnansweredError):
            subject.invoke(body)
    wrong = subject.lives_on()
    return failed(wrong) if wrong else passed("/ping 200, the payload 200")


def _is_refusal(answer: Answer, strict: bool) -> bool:
    return answer.status < 500 and (not strict or answer.status >= 400)


def _refused(answer: Answer, strict: bool) -> Outcome:
    return judged(_is_refusal(answer, strict), answer.said())


CHECKS = (
    Check("BAD-1", "An empty body", "4xx; never 5xx", Source.METRICS, _empty),
    Check("BAD-2", "A body that was cut off", "4xx; never 5xx", Source.METRICS, _cut),
    Check("BAD-3", "Noise instead of the payload", "4xx; never 5xx", Source.METRICS, _noise),
    Check("BAD-4", "JSON of another shape", "4xx; never 5xx", Source.METRICS, _shapes),
    Check("BAD-5", "JSON nested 100,000 deep", "4xx", Source.METRICS, _deep),
    Check("BAD-6", "An unknown Content-Type", "4xx; never 5xx", Source.METRICS, _unknown_type),
    Check(
        "BAD-7",
        "A refusal tells nothing of the inside",
        "no traceback, no path of a source file",
        Source.METRICS,
        _inside,
    ),
    Check(
        "BAD-8",
        "A caller who hangs up in the middle of a body does no harm",
        "the next one is answered with 200",
        Source.HOSTING,
        _hang_up,
    ),
    Check("BAD-9", "What is not HTTP does no harm", "4xx or the end; then 200", Source.HTTP_1_1, _malformed),
    Check("BAD-10", "The service lives on after bad input", "/ping and the payload: 200", Source.HOSTING, _lives_on),
)
"""In the order in which they run."""
