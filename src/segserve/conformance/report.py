"""Findings as a table for people, as Markdown, and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from segserve.conformance.check import Finding, Source, Verdict

_MARKS = {Verdict.PASS: "pass", Verdict.FAIL: "**fail**", Verdict.NOT_APPLICABLE: "–"}


def as_json(findings: Sequence[Finding], subject: str) -> str:
    """An object with the counts and every finding."""
    document = {"subject": subject, "counts": counts(findings), "checks": [finding.to_dict() for finding in findings]}
    return json.dumps(document, indent=2, ensure_ascii=False)


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many of each verdict."""
    found = Counter(finding.outcome.verdict for finding in findings)
    return {verdict.value: found[verdict] for verdict in Verdict}


def summary(findings: Sequence[Finding]) -> str:
    """One line."""
    return ", ".join(f"{number} {name}" for name, number in counts(findings).items())


def as_markdown(findings: Sequence[Finding]) -> str:
    """A table with a numbered list of its sources below."""
    sources = list(dict.fromkeys(finding.check.source for finding in findings))
    lines = ["| check | the promise | what is expected | result | what was seen | source |"]
    lines.append("|---|---|---|---|---|---|")
    for finding in findings:
        check, outcome = finding.check, finding.outcome
        cells = (check.id, check.promise, check.expected, _MARKS[outcome.verdict], outcome.seen)
        number = sources.index(check.source) + 1
        lines.append("| " + " | ".join([*map(_cell, cells), str(number)]) + " |")
    lines += ["", f"{summary(findings)}.", "", "Sources:", ""]
    lines += [f"{number}. {_link(source)}" for number, source in enumerate(sources, 1)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _link(source: Source) -> str:
    return f"<{source.value}>" if "://" in source.value else f"`{source.value}`"
