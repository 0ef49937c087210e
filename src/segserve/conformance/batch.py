"""Batch transform: GET /execution-parameters, and that its answer is true."""

from __future__ import annotations

from typing import Any

from segserve.conformance.check import Check, Outcome, Source, failed, judged, not_applicable, passed
from segserve.conformance.load import ask_at_once
from segserve.conformance.subject import NO_PAYLOAD, Subject
from segserve.conformance.wire import Answer

_KEYS = ("MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB")
_STRATEGIES = ("SINGLE_RECORD", "MULTI_RECORD")
_NOT_OFFERED = "no /execution-parameters (optional)"
_BYTES_OF_A_MB = 2**20
_MOST_AT_ONCE = 64


def _ask(subject: Subject) -> tuple[Answer, dict[str, Any] | None]:
    answer = subject.wire.ask("GET", "/execution-parameters")
    try:
        value = answer.json()
    except ValueError:
        return answer, None
    return answer, value if isinstance(value, dict) else None


def _valid(value: dict[str, Any] | None) -> bool:
    if value is None or not set(_KEYS) <= set(value):
        return False
    numbers = value["MaxConcurrentTransforms"], value["MaxPayloadInMB"]
    whole = all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)
    return whole and value["BatchStrategy"] in _STRATEGIES


def _offered(subject: Subject) -> Outcome:
    answer, _ = _ask(subject)
    if answer.status == 404 and not subject.is_segserve:
        return not_applicable(_NOT_OFFERED)
    return judged(answer.status == 200 and answer.media_type == "application/json", answer.said())


def _well_formed(subject: Subject) -> Outcome:
    answer, value = _ask(subject)
    if answer.status != 200:
        return not_applicable(_NOT_OFFERED)
    return judged(_valid(value), answer.said())


def _fits(subject: Subject) -> Outcome:
    answer, value = _ask(subject)
    if answer.status != 200 or value is None or not _valid(value):
        return not_applicable("no well-formed /execution-parameters")
    product = value["MaxConcurrentTransforms"] * value["MaxPayloadInMB"]
    seen = f"{value['MaxConcurrentTransforms']} × {value['MaxPayloadInMB']} MB = {product} MB"
    return judged(product <= subject.limits.transform_mb, seen)


def _payload_passes(subject: Subject) -> Outcome:
    answer, value = _ask(subject)
    if answer.status != 200 or value is None or not _valid(value):
        return not_applicable("no well-formed /execution-parameters")
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    megabytes = value["MaxPayloadInMB"]
    if megabytes == 0:
        return not_applicable("0: payloads of any size, in chunks")
    size = min(megabytes * _BYTES_OF_A_MB, subject.limits.transform_mb * _BYTES_OF_A_MB)
    sent = subject.invoke(subject.payload.padded(size))
    good = sent.status == 200 or (not subject.payload.is_json and sent.status != 413 and sent.status < 500)
    return judged(good, f"{megabytes} MB: {sent.said()}")


def _all_at_once(subject: Subject) -> Outcome:
    answer, value = _ask(subject)
    if answer.status != 200 or value is None or not _valid(value):
        return not_applicable("no well-formed /execution-parameters")
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    count = min(max(1, value["MaxConcurrentTransforms"]), _MOST_AT_ONCE)
    bad = [one for one in ask_at_once(subject.wire, subject.payload, count) if getattr(one, "status", 0) != 200]
    if bad:
        first = bad[0].said() if isinstance(bad[0], Answer) else str(bad[0])
        return failed(f"{len(bad)} of {count} failed; the first: {first}")
    return passed(f"{count} × 200")


CHECKS = (
    Check("BATCH-1", "GET /execution-parameters (optional)", "200 with JSON, or 404", Source.BATCH, _offered),
    Check(
        "BATCH-2",
        "Its three values are of their kinds",
        "two whole numbers; SINGLE_RECORD or MULTI_RECORD",
        Source.BATCH,
        _well_formed,
    ),
    Check(
        "BATCH-3",
        "A transform job takes them",
        "MaxConcurrentTransforms × MaxPayloadInMB at most 100",
        Source.TRANSFORM,
        _fits,
    ),
    Check("BATCH-4", "A payload of MaxPayloadInMB passes", "200", Source.BATCH, _payload_passes),
    Check(
        "BATCH-5", "MaxConcurrentTransforms callers at once are answered", "each with 200", Source.BATCH, _all_at_once
    ),
)
"""In the order in which they run."""
