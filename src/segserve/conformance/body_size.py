"""Large payloads: they pass, or are refused with an answer that a caller can read."""

from __future__ import annotations

from segserve.conformance.check import Check, Outcome, Source, failed, judged, not_applicable, passed
from segserve.conformance.subject import NO_PAYLOAD, Subject
from segserve.conformance.wire import Answer

_MEBIBYTE = 2**20


def _send(subject: Subject, size: int) -> Answer:
    return subject.invoke(subject.sent.padded(size))


def _usual(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    answer = _send(subject, subject.limits.small_body)
    # Zeros behind a payload of another format than JSON may be refused, but not for their number.
    good = answer.status == 200 or (not subject.payload.is_json and 400 <= answer.status < 500 and answer.status != 413)
    return judged(good, f"{subject.limits.small_body:,} bytes: {answer.said()}")


def _largest(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    answer = _send(subject, subject.limits.large_body)
    good = answer.status == 200 if subject.is_segserve else answer.status == 200 or 400 <= answer.status < 500
    return judged(good, f"{subject.limits.large_body:,} bytes: {answer.said()}")


def _too_large(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    size = subject.limits.large_body + _MEBIBYTE
    answer = _send(subject, size)
    good = answer.status == 413 if subject.is_segserve else answer.status == 200 or 400 <= answer.status < 500
    seen = f"{size:,} bytes: {answer.said()}"
    if not good:
        return failed(seen)
    wrong = subject.lives_on()
    return failed(f"{seen}; {wrong}") if wrong else passed(seen)


CHECKS = (
    Check("SIZE-1", "A payload of 6,291,456 bytes passes", "200", Source.INVOKE, _usual),
    Check(
        "SIZE-2",
        "A payload of 25 MB passes, or is refused in words",
        "200, or a 4xx that arrives whole (413)",
        Source.OPTIONS,
        _largest,
    ),
    Check(
        "SIZE-3",
        "A larger payload does no harm",
        "413 (or 200) that arrives whole; then the payload is answered",
        Source.HTTP,
        _too_large,
    ),
)
"""In the order in which they run."""
