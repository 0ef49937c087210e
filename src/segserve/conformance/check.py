"""What a check is, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segserve.conformance.subject import Subject

_GUIDE = "https://docs.aws.amazon.com/sagemaker/latest/dg"
_REFERENCE = "https://docs.aws.amazon.com/sagemaker/latest/APIReference"


class Source(StrEnum):
    """Where the contract says so."""

    HOSTING = f"{_GUIDE}/your-algorithms-inference-code.html"
    OPTIONS = f"{_GUIDE}/deploy-model-options.html"
    BATCH = f"{_GUIDE}/your-algorithms-batch-code.html"
    TRANSFORM = f"{_REFERENCE}/API_CreateTransformJob.html"
    MULTI_MODEL = f"{_GUIDE}/mms-container-apis.html"
    MULTI_MODEL_IMAGE = f"{_GUIDE}/build-multi-model-build-container.html"
    MULTI_CONTAINER = f"{_GUIDE}/multi-container-troubleshooting.html"
    INVOKE = f"{_REFERENCE}/API_runtime_InvokeEndpoint.html"
    STREAM = f"{_REFERENCE}/API_runtime_InvokeEndpointWithResponseStream.html"
    SESSIONS = f"{_GUIDE}/stateful-sessions.html"
    METRICS = f"{_GUIDE}/monitoring-cloudwatch.html"
    HTTP = "https://www.rfc-editor.org/rfc/rfc9110"
    HTTP_1_1 = "https://www.rfc-editor.org/rfc/rfc9112"
    SEGSERVE = "docs/api.md"


class Verdict(StrEnum):
    """How a check ended."""

    PASS = "pass"
    FAIL = "fail"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Outcome:
    """The end of a check. seen: what was seen, one line; for what does not apply, why."""

    verdict: Verdict
    seen: str

    def __post_init__(self) -> None:
        # What a server sends is shown in a terminal, which obeys control characters.
        shown = "".join(character if character.isprintable() else "�" for character in self.seen)
        object.__setattr__(self, "seen", shown)


@dataclass(frozen=True)
class Check:
    """One promise of the contract.

    Attributes:
        id: FAMILY-NUMBER, never given again to another promise.
        promise: what a container promises, a few words.
        expected: what the check expects to see.
        source: where the contract says so.
        run: tries it.
    """

    id: str
    promise: str
    expected: str
    source: Source
    run: Callable[[Subject], Outcome]

    @property
    def family(self) -> str:
        """The part of the id before its number."""
        return self.id.partition("-")[0]


@dataclass(frozen=True)
class Finding:
    """A check with its end."""

    check: Check
    outcome: Outcome

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return {
            "id": self.check.id,
            "promise": self.check.promise,
            "expected": self.check.expected,
            "verdict": self.outcome.verdict.value,
            "seen": self.outcome.seen,
            "source": self.check.source.value,
        }


def passed(seen: str) -> Outcome:
    """The promise is kept."""
    return Outcome(Verdict.PASS, seen)


def failed(seen: str) -> Outcome:
    """The promise is broken."""
    return Outcome(Verdict.FAIL, seen)


def not_applicable(why: str) -> Outcome:
    """The promise was not made, or cannot be tried from here."""
    return Outcome(Verdict.NOT_APPLICABLE, why)


def judged(holds: bool, seen: str) -> Outcome:
    """Passed if it holds, else failed."""
    return passed(seen) if holds else failed(seen)
