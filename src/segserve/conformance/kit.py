"""All checks in their order, and what runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segserve.conformance import (
    bad_input,
    batch,
    body_size,
    ending,
    health,
    http_rules,
    image,
    invocations,
    multi_model,
    request_headers,
)
from segserve.conformance.check import Check, Finding, Verdict, failed
from segserve.conformance.payload import Payload, is_segserve, own_models, own_request
from segserve.conformance.subject import Subject
from segserve.conformance.wire import Answer, UnansweredError
from segserve.errors import InvalidRequestError, SegserveError

CHECKS: tuple[Check, ...] = (
    *image.CHECKS,
    *health.CHECKS,
    *invocations.CHECKS,
    *http_rules.CHECKS,
    *request_headers.CHECKS,
    *batch.CHECKS,
    *body_size.CHECKS,
    *bad_input.CHECKS,
    *multi_model.CHECKS,
    *ending.CHECKS,
)
"""The order matters: what ends the container comes last."""


def chosen(names: Sequence[str]) -> list[Check]:
    """The checks of some families (PING) or ids (PING-1), in the kit's order; all of them without a name.

    Raises:
        InvalidRequestError: no check has that name.
    """
    wanted = {name.upper() for name in names}
    known = {check.family for check in CHECKS} | {check.id for check in CHECKS}
    if wanted - known:
        families = ", ".join(dict.fromkeys(check.family for check in CHECKS))
        raise InvalidRequestError(f"--only: no check {', '.join(sorted(wanted - known))}. Families: {families}.")
    return [check for check in CHECKS if not wanted or check.family in wanted or check.id in wanted]


def recognize(subject: Subject, given: Payload | None) -> None:
    """Find out what answers, and what to ask it: the given payload, else a request that fits a segserve's models.

    The payload is sent once. If it is not answered with 200, no check uses it: one failure is told, not twenty.
    """
    subject.is_segserve = is_segserve(subject.wire)
    subject.ours = own_models(subject.wire) if subject.is_segserve else []
    subject.payload = given or (own_request(subject.ours[0]) if subject.ours else None)
    if subject.payload is None:
        return
    try:
        subject.first = subject.invoke()
    except UnansweredError as error:
        subject.first = error
    if not isinstance(subject.first, Answer) or subject.first.status != 200:
        subject.payload = None


def run_checks(
    subject: Subject, checks: Sequence[Check], progress: Callable[[Check], None] | None = None
) -> list[Finding]:
    """Run checks, one after another. progress: called with each before it runs."""
    findings = []
    for check in checks:
        if progress is not None:
            progress(check)
        try:
            outcome = check.run(subject)
        except UnansweredError as error:
            outcome = failed(str(error))
        except SegserveError as error:
            # The container engine's: one check less, not the end of all.
            outcome = failed(error.message)
        findings.append(Finding(check, outcome))
    return findings


def failures(findings: Sequence[Finding]) -> list[Finding]:
    """Those that failed."""
    return [finding for finding in findings if finding.outcome.verdict is Verdict.FAIL]
