"""POST /invocations: that it answers, in time, to many at once, and in the form that was asked for."""

from __future__ import annotations

from dataclasses import replace

from segserve.conformance.check import Check, Outcome, Source, failed, judged, not_applicable, passed
from segserve.conformance.payload import own_request
from segserve.conformance.subject import NO_PAYLOAD, Subject
from segserve.conformance.wire import Answer

_PNG = b"\x89PNG\r\n\x1a\n"
_BUSY = (429, 503)


def _answers(subject: Subject) -> Outcome:
    if subject.payload is None:
        first = subject.first
        if first is None:
            return not_applicable(NO_PAYLOAD)
        return failed(first.said() if isinstance(first, Answer) else str(first))
    answer = subject.invoke()
    return judged(answer.status == 200, answer.said())


def _in_time(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    answer = subject.invoke()
    return judged(answer.seconds <= subject.limits.invocation_s, f"{answer.status} after {answer.seconds:.2f} s")


def _at_once(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    report = subject.load
    seen = f"{report.counted()}; the slowest after {report.slowest_s:.2f} s"
    served = report.answered[200] > 0 and set(report.answered) <= {200, *_BUSY}
    return judged(served and not report.unanswered and report.slowest_s <= subject.limits.invocation_s, seen)


def _says_what_it_is(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    answer = subject.invoke()
    if answer.media_type == "application/json":
        try:
            answer.json()
        except ValueError:
            return failed(f"Content-Type says application/json, the body is not: {answer.said()}")
    return judged("/" in answer.media_type, f"Content-Type: {answer.headers.get('content-type', 'none')}")


def _accept(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    answers: list[tuple[str, Answer]] = []
    if subject.payload.accept:
        answers.append((subject.payload.accept, subject.invoke()))
    if subject.ours:
        drawn = replace(own_request(subject.ours[0]), accept="image/png")
        answers.append(("image/png", subject.wire.ask("POST", "/invocations", drawn.all_headers(), drawn.body)))
    if not answers:
        return not_applicable("the payload comes without --accept")
    for wanted, answer in answers:
        kind = wanted.partition(";")[0].strip().lower()
        if answer.status != 200 or answer.media_type != kind or (kind == "image/png" and answer.body[:8] != _PNG):
            return failed(f"Accept {wanted}: {answer.status} with {answer.media_type or 'no Content-Type'}")
    return passed(", ".join(f"{wanted} → {answer.media_type}" for wanted, answer in answers))


CHECKS = (
    Check("INV-1", "POST /invocations answers the payload", "200", Source.HOSTING, _answers),
    Check("INV-2", "An answer comes within 60 s", "within 60 s", Source.HOSTING, _in_time),
    Check(
        "INV-3",
        "Many callers at once are all answered",
        "200 for some, 429 or 503 at worst for others; none is dropped",
        Source.HOSTING,
        _at_once,
    ),
    Check("INV-4", "The answer says what it is", "a Content-Type that fits the body", Source.INVOKE, _says_what_it_is),
    Check("INV-5", "Accept is honored", "the media type that was asked for", Source.INVOKE, _accept),
)
"""In the order in which they run."""
