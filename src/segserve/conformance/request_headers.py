"""The headers that SageMaker passes on: what it adds is ignored, what it promises is kept."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

from segserve.conformance.check import Check, Outcome, Source, failed, judged, not_applicable
from segserve.conformance.payload import JSON, own_raw_request, own_targeted_request
from segserve.conformance.subject import NO_PAYLOAD, Subject
from segserve.conformance.wire import Answer

_PREFIX = "X-Amzn-SageMaker-"
_ATTRIBUTES = f"{_PREFIX}Custom-Attributes"
_SESSION = f"{_PREFIX}Session-Id"
_NEW_SESSION = f"{_PREFIX}New-Session-Id".lower()
_CLOSED_SESSION = f"{_PREFIX}Closed-Session-Id".lower()
_NEW_SESSION_FORM = re.compile(r"([a-zA-Z0-9](?:-*[a-zA-Z0-9])*);\sExpires=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")
_INFERENCE_ID = "conformance 17: an id, with blanks (64 characters at most)"
_ADDED = {
    "X-Amzn-Trace-Id": "Root=1-5759e988-bd862e3fe1be46a994272793",
    "X-Amzn-Requestid": "4d1e5f8c-0f3f-4b1a-9d0b-5b8e1a2f3c4d",
    f"{_PREFIX}No-Such-Header": "a value",
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Proto": "https",
    "User-Agent": "AHC/2.0",
}
_STATELESS = "it gives no session (optional)"


def _added(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    answer = _with_headers(subject, _ADDED)
    return judged(answer.status == 200, answer.said())


def _long_attributes(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    if _ATTRIBUTES in subject.payload.headers:
        return not_applicable("the payload has custom attributes of its own")
    visible = "".join(map(chr, range(0x21, 0x7F)))
    value = (visible * 11)[:1024]
    answer = _with_headers(subject, {_ATTRIBUTES: value})
    echoed = answer.headers.get(_ATTRIBUTES.lower())
    seen = answer.said() if echoed is None else f"{answer.status}, and they came back"
    return judged(answer.status == 200, seen)


def _attributes_reach(subject: Subject) -> Outcome:
    if not subject.ours:
        return not_applicable("what they mean is each container's own affair")
    raw = own_raw_request(subject.ours[0])
    if raw is None:
        return not_applicable("no model is served that a picture alone can be sent to")
    named = subject.wire.ask("POST", "/invocations", raw.all_headers(), raw.body)
    unknown = {**raw.all_headers(), _ATTRIBUTES: "model=no-such-model"}
    refused = subject.wire.ask("POST", "/invocations", unknown, raw.body)
    model = subject.ours[0].name
    seen = f"model={model}: {named.status}; model=no-such-model: {refused.status}"
    return judged(named.status == 200 and model.encode() in named.body and refused.status == 404, seen)


def _target_model(subject: Subject) -> Outcome:
    if not subject.ours:
        return not_applicable("outside multi-model hosting it means nothing")
    payload, name = own_targeted_request(subject.ours[0]), subject.ours[0].name
    statuses = []
    for target in (f"{name}.tar.gz", name, "no-such-model.tar.gz"):
        headers = {**payload.all_headers(), f"{_PREFIX}Target-Model": target}
        statuses.append(subject.wire.ask("POST", "/invocations", headers, payload.body).status)
    seen = "as NAME.tar.gz: {}, as NAME: {}, unknown: {}".format(*statuses)
    return judged(statuses == [200, 200, 404], seen)


def _inference_id(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    name = f"{_PREFIX}Inference-Id"
    answer = _with_headers(subject, {name: _INFERENCE_ID})
    echoed = answer.headers.get(name.lower())
    good = answer.status == 200 and echoed in ((_INFERENCE_ID,) if subject.is_segserve else (None, _INFERENCE_ID))
    return judged(good, f"{answer.status}, {'not in the answer' if echoed is None else f'in the answer: {echoed}'}")


def _new_session(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    answer = _with_headers(subject, {_SESSION: "NEW_SESSION"})
    given = answer.headers.get(_NEW_SESSION)
    if answer.status != 200:
        return failed(answer.said())
    if given is None:
        return failed("200 without a new session") if subject.is_segserve else not_applicable(_STATELESS)
    match = _NEW_SESSION_FORM.fullmatch(given)
    if match is None or len(given) > 256:
        return failed(f"not of the form ID; Expires=YYYY-MM-DDThh:mm:ssZ: {given[:100]}")
    expires = datetime.strptime(match[2], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return judged(expires > datetime.now(UTC), given)


def _session_goes_on(subject: Subject) -> Outcome:
    if subject.payload is None:
        return not_applicable(NO_PAYLOAD)
    session = _open_session(subject)
    if session is None:
        return not_applicable(_STATELESS)
    answer = _with_headers(subject, {_SESSION: session})
    return judged(answer.status == 200, answer.said())


def _session_closes(subject: Subject) -> Outcome:
    if not subject.is_segserve or subject.payload is None:
        return not_applicable("how a session is closed is each container's own affair")
    session = _open_session(subject)
    if session is None:
        return not_applicable(_STATELESS)
    closing = {"Content-Type": JSON, _SESSION: session}
    answer = subject.wire.ask("POST", "/invocations", closing, b'{"action": "close_session"}')
    closed = answer.headers.get(_CLOSED_SESSION)
    after = _with_headers(subject, {_SESSION: session})
    seen = f"{answer.status}, closed: {closed}; then the id: {after.status}"
    return judged(answer.status == 200 and closed == session and 400 <= after.status < 500, seen)


def _open_session(subject: Subject) -> str | None:
    answer = _with_headers(subject, {_SESSION: "NEW_SESSION"})
    match = _NEW_SESSION_FORM.fullmatch(answer.headers.get(_NEW_SESSION, ""))
    return match[1] if match else None


def _with_headers(subject: Subject, headers: dict[str, str]) -> Answer:
    payload = replace(subject.sent, headers={**subject.sent.headers, **headers})
    return subject.wire.ask("POST", "/invocations", payload.all_headers(), payload.body)


CHECKS = (
    Check("HDR-1", "Headers that SageMaker adds are ignored", "200", Source.HOSTING, _added),
    Check(
        "HDR-2",
        "Custom attributes of 1,024 visible ASCII characters do no harm",
        "200",
        Source.INVOKE,
        _long_attributes,
    ),
    Check(
        "HDR-3",
        "Custom attributes reach the model (segserve)",
        "model=NAME is asked; an unknown one is 404",
        Source.SEGSERVE,
        _attributes_reach,
    ),
    Check(
        "HDR-4",
        "Target-Model names the model (segserve)",
        "NAME.tar.gz and NAME are asked; an unknown one is 404",
        Source.SEGSERVE,
        _target_model,
    ),
    Check(
        "HDR-5", "Inference-Id is taken", "200; in the answer as it came, or not at all", Source.INVOKE, _inference_id
    ),
    Check(
        "HDR-6",
        "Session-Id NEW_SESSION opens a session (optional)",
        "New-Session-Id: ID; Expires=YYYY-MM-DDThh:mm:ssZ, in the future",
        Source.SESSIONS,
        _new_session,
    ),
    Check("HDR-7", "A session goes on", "200 with the id that it gave", Source.SESSIONS, _session_goes_on),
    Check(
        "HDR-8",
        "A session is closed (segserve)",
        "Closed-Session-Id: the id; which is refused afterwards",
        Source.SESSIONS,
        _session_closes,
    ),
)
"""In the order in which they run."""
