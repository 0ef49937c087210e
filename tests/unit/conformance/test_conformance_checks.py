"""The kit finds each defect of a container by the check that is there for it, and nothing in one that has none."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hosting_server import ARTIFACTS, LARGEST, HostingServer

from segserve.conformance.check import Finding, Verdict
from segserve.conformance.kit import CHECKS, chosen, failures, run_checks
from segserve.conformance.payload import Payload
from segserve.conformance.process import LocalProcess
from segserve.conformance.report import as_json, as_markdown, counts
from segserve.conformance.subject import Limits, Subject
from segserve.conformance.wire import Wire
from segserve.errors import InvalidRequestError, NotFoundError

PAYLOAD = Payload(json.dumps({"x": "a text that is somewhat longer than nothing"}).encode(), accept="application/json")
LIMITS = Limits(
    # Generous where time is not what a test is about: the machine may be busy.
    ping_s=20.0,
    connect_s=20.0,
    stop_s=30.0,
    small_body=300_000,
    large_body=LARGEST,
    clients=4,
    load_s=0.3,
    pings=3,
)
HASTE = {
    "slow ping": replace(LIMITS, ping_s=0.4, pings=1),
    "ping waits for work": replace(LIMITS, ping_s=0.4),
    "slow answers": replace(LIMITS, invocation_s=0.5),
}
"""Where time is what a test is about."""

HOSTED = [check for check in CHECKS if check.family not in ("IMG", "STOP")]

DEFECTS: dict[str, set[str]] = {
    "never ready": {"PING-1", "PING-2", "PING-3"},
    "slow ping": {"PING-2", "PING-3"},
    "ping waits for work": {"PING-3"},
    "invocations fail": {"INV-1", "INV-3", "INV-5"},
    "slow answers": {"INV-2", "INV-3"},
    "drops callers": {"INV-3"},
    "no Content-Type": {"INV-4", "INV-5"},
    "a false Content-Type": {"INV-4"},
    "ignores Accept": {"INV-5"},
    "no 404": {"HTTP-1"},
    "GET /invocations": {"HTTP-2"},
    "closes every connection": {"HTTP-3"},
    "no chunks": {"HTTP-4"},
    "reads once": {"HTTP-5"},
    "header names as written": {"HTTP-6"},
    "expects nothing": {"HTTP-7"},
    "one byte too many": {"HTTP-8"},
    "unknown headers": {"HDR-1"},
    "short headers": {"HDR-2"},
    "another Inference-Id": {"HDR-5"},
    "a session of another form": {"HDR-6"},
    "an expired session": {"HDR-6"},
    "forgets sessions": {"HDR-7"},
    "execution parameters fail": {"BATCH-1"},
    "execution parameters as a page": {"BATCH-1", "BATCH-2"},
    "numbers as text": {"BATCH-2"},
    "an unknown strategy": {"BATCH-2"},
    "transforms of 120 MB": {"BATCH-3"},
    "takes less than it says": {"BATCH-4", "SIZE-1"},
    "fewer at once than it says": {"BATCH-5"},
    "hangs up on large bodies": {"BATCH-4", "SIZE-1", "SIZE-2"},
    "too large is its fault": {"SIZE-3"},
    "an empty body is its fault": {"BAD-1"},
    "a cut body is its fault": {"BAD-2"},
    "noise is its fault": {"BAD-3"},
    "a shape is its fault": {"BAD-4"},
    "depth is its fault": {"BAD-5"},
    "an unknown type is its fault": {"BAD-6"},
    "tells its traceback": {"BAD-7"},
    "is ill after a hang-up": {"BAD-8", "BAD-9", "BAD-10"},
    "waits for what is not HTTP": {"BAD-9"},
    "no list of models": {f"MME-{number}" for number in range(1, 16)} - {"MME-2"},
    "needs a model": {"MME-2"},
    "GET of an unknown model": {"MME-3", "MME-7", "MME-14"},
    "POST of an unknown model": {"MME-4", "MME-14"},
    "DELETE of an unknown model": {"MME-5", "MME-14"},
    "a malformed load is its fault": {"MME-6"},
    "loads anything": {"MME-7"},
    "loads fail": {"MME-7", "MME-8", "MME-15"},
    "loads twice": {"MME-9"},
    "another modelUrl": {"MME-10"},
    "a list of names": {"MME-10", "MME-11"},
    "a list without end": {"MME-11"},
    "pages that overlap": {"MME-11"},
    "invoking a model fails": {"MME-12", "MME-15"},
    "unloading fails": {"MME-13", "MME-14", "MME-15"},
    "unloads nothing": {"MME-14", "MME-15"},
    "loads once only": {"MME-15"},
}
"""The checks that find a defect, all of their families."""

SLOW_WORK = {"ping waits for work": 0.1, "drops callers": 0.1, "fewer at once than it says": 0.2}
"""Where callers must meet: seconds that an invocation takes."""


@contextmanager
def hosted(defect: str = "", work_s: float = 0.0) -> Iterator[HostingServer]:
    server = HostingServer(defect, work_s)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def subject_at(
    url: str, payload: Payload | None = PAYLOAD, limits: Limits = LIMITS, timeout_s: float = 30.0
) -> Subject:
    """A container of somebody else's that offers everything."""
    return Subject(Wire(url, timeout_s), limits, payload, artifact=ARTIFACTS[0], multi_model=True)


def ids(findings: list[Finding]) -> set[str]:
    return {finding.check.id for finding in findings}


def seen(findings: list[Finding]) -> str:
    return "\n".join(f"{finding.check.id}: {finding.outcome.seen}" for finding in findings)


def test_a_container_that_keeps_the_contract_passes() -> None:
    with hosted() as server:
        findings = run_checks(subject_at(server.url), HOSTED)
    assert failures(findings) == [], seen(failures(findings))
    not_tried = {one.check.id for one in findings if one.outcome.verdict is Verdict.NOT_APPLICABLE}
    # What these promise is segserve's own.
    assert not_tried == {"HDR-3", "HDR-4", "HDR-8"}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found(defect: str) -> None:
    families = sorted({name.partition("-")[0] for name in DEFECTS[defect]})
    payload = PAYLOAD if defect != "ignores Accept" else Payload(PAYLOAD.body, accept="text/plain")
    with hosted(defect, SLOW_WORK.get(defect, 0.0)) as server:
        timeout_s = 3.0 if defect == "waits for what is not HTTP" else 30.0
        subject = subject_at(server.url, payload, HASTE.get(defect, LIMITS), timeout_s)
        found = failures(run_checks(subject, chosen(families)))
    assert ids(found) == DEFECTS[defect], seen(found)


def test_illness_after_bad_input_is_found() -> None:
    with hosted("is ill after noise") as server:
        found = failures(run_checks(subject_at(server.url), chosen(["BAD-10"])))
    assert ids(found) == {"BAD-10"}


def test_every_check_has_a_defect_that_it_finds() -> None:
    found = set().union(*DEFECTS.values(), *ENDS.values())
    # Nothing listens: see below. Those of images and of segserve's own promises have tests of their own.
    elsewhere = {"CONN-1", "CONN-2", "HDR-3", "HDR-4", "HDR-8"}
    assert {check.id for check in CHECKS if check.family != "IMG"} - found == elsewhere


def test_where_nothing_listens_the_checks_fail_in_words() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        subject = subject_at(f"http://127.0.0.1:{unused.getsockname()[1]}")
        findings = run_checks(subject, chosen(["PING", "CONN", "INV-1", "MME-1"]))
    assert ids(failures(findings)) == {"PING-1", "PING-2", "PING-3", "CONN-1", "CONN-2", "INV-1", "MME-1"}
    assert all("no connection" in finding.outcome.seen for finding in findings)


def test_a_full_backlog_is_found_by_the_time_to_connect() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        hasty = replace(LIMITS, ping_s=0.4, pings=1)
        findings = run_checks(subject_at(f"http://127.0.0.1:{address[1]}", limits=hasty), chosen(["CONN-1"]))
        for one in waiting:
            one.close()
    assert ids(failures(findings)) == {"CONN-1"}


def test_what_cannot_be_tried_is_not_applicable() -> None:
    with hosted() as server:
        bare = Subject(Wire(server.url), LIMITS)
        findings = {finding.check.id: finding.outcome for finding in run_checks(bare, CHECKS)}
    for name in ("PING-3", "INV-1", "HTTP-4", "BAD-1", "BATCH-4"):
        assert findings[name].verdict is Verdict.NOT_APPLICABLE
        assert "--invoke" in findings[name].seen
    assert "--artifact" in findings["MME-8"].seen
    assert "--pid" in findings["STOP-1"].seen
    assert findings["PING-1"].verdict is Verdict.PASS
    assert findings["IMG-3"].verdict is Verdict.NOT_APPLICABLE


class Child:
    """A container that is a child of the test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, timeout_s: float) -> bool:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def exit_code(self) -> int | None:
        return self._process.poll()


@contextmanager
def running(defect: str, work_s: float) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    program = Path(__file__).with_name("hosting_server.py")
    command = [sys.executable, str(program), "0", defect, str(work_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


ENDS = {
    "": set(),
    "drops what is in flight": {"STOP-1"},
    "ignores SIGTERM": {"STOP-2", "STOP-3"},
    "ends with an error": {"STOP-3"},
}


@pytest.mark.parametrize("defect", ENDS)
def test_how_a_container_ends_is_judged(defect: str) -> None:
    with running(defect, 1.0) as (url, process):
        subject = Subject(Wire(url), replace(LIMITS, stop_s=0.5 if "ignores" in defect else 30.0), PAYLOAD)
        subject.holder = Child(process)
        findings = run_checks(subject, chosen(["STOP"]))
    assert ids(failures(findings)) == ENDS[defect], seen(findings)
    assert all(finding.outcome.verdict is not Verdict.NOT_APPLICABLE for finding in findings), seen(findings)


def test_a_process_is_ended_by_its_number() -> None:
    with running("", 0.0) as (url, process):
        subject = Subject(Wire(url), LIMITS, holder=LocalProcess(process.pid))
        findings = run_checks(subject, chosen(["STOP"]))
        assert process.wait(30) == 0
    assert [finding.outcome.verdict for finding in findings][1] is Verdict.PASS, seen(findings)
    with pytest.raises(NotFoundError, match="no process"):
        LocalProcess(process.pid)


def test_only_takes_families_and_ids() -> None:
    assert [check.id for check in chosen(["ping-2", "CONN"])] == ["PING-2", "CONN-1", "CONN-2"]
    assert chosen([]) == list(CHECKS)
    with pytest.raises(InvalidRequestError, match=r"NOPE\. Families: IMG, PING"):
        chosen(["NOPE"])


def test_ids_are_unique_and_numbered_in_their_families() -> None:
    by_family: dict[str, list[int]] = {}
    for check in CHECKS:
        by_family.setdefault(check.family, []).append(int(check.id.partition("-")[2]))
    for family, numbers in by_family.items():
        assert numbers == list(range(1, len(numbers) + 1)), family


def test_reports_say_every_finding() -> None:
    with hosted("no 404") as server:
        findings = run_checks(subject_at(server.url), chosen(["HTTP"]))
    document = json.loads(as_json(findings, "a server"))
    assert document["counts"] == {"pass": 7, "fail": 1, "not applicable": 0} == counts(findings)
    assert document["checks"][0]["verdict"] == "fail"
    lines = as_markdown(findings).splitlines()
    assert sum(line.startswith("| HTTP-") for line in lines) == 8
    assert "| HTTP-1 | Unknown routes | 404 | **fail** | 200 {} |" in lines[2]
    # Every row has as many cells as the head: what was seen may hold a bar.
    assert {line.replace("\\|", "").count("|") for line in lines if line.startswith("|")} == {7}


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"http://host:port"):
        Wire("127.0.0.1:8080")


def test_the_documented_table_is_the_kits() -> None:
    text = (Path(__file__).parents[3] / "docs" / "sagemaker.md").read_text("utf-8")
    rows = [
        [cell.strip() for cell in line.split(" | ")]
        for line in text.splitlines()
        if re.match(r"\| [A-Z]+-\d+ \|", line)
    ]
    told = [(row[0].removeprefix("| "), *row[1:3]) for row in rows]
    assert told == [(check.id, check.promise, check.expected) for check in CHECKS]
    assert {row[3] for row in rows} <= {"pass", "–"}
