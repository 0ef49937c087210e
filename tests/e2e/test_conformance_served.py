"""The conformance kit against real services: one model as at an endpoint, and models that come and go."""

from __future__ import annotations

import shutil
from pathlib import Path

import requests
from servers import Served, serving

from segserve.conformance.check import Finding, Verdict
from segserve.conformance.kit import CHECKS, chosen, failures, recognize, run_checks
from segserve.conformance.process import LocalProcess
from segserve.conformance.subject import Limits, Subject
from segserve.conformance.wire import Wire

LIMITS = Limits(clients=4, load_s=1.5, pings=3)


def seen(findings: list[Finding]) -> dict[str, str]:
    return {finding.check.id: finding.outcome.seen for finding in findings}


def test_a_service_keeps_the_contract(served: Served):
    subject = Subject(Wire(served.url), LIMITS)
    recognize(subject, None)
    assert [model.name for model in subject.ours] == ["grounded_sam"]
    findings = run_checks(subject, [check for check in CHECKS if check.family not in ("IMG", "STOP")])
    assert seen(failures(findings)) == {}
    untried = {one.check.id for one in findings if one.outcome.verdict is Verdict.NOT_APPLICABLE}
    # Models are loaded by multi-model services, and by owners of the key.
    assert untried == {"MME-2", *(f"MME-{number}" for number in range(5, 16))}


def test_models_come_and_go_and_the_service_ends_as_the_contract_says(store: Path, tmp_path: Path):
    artifact = tmp_path / "models" / "one" / "model"
    artifact.mkdir(parents=True)
    shutil.copy(store / "grounded_sam.mar", artifact)
    options = ("--multi-model", "--multi-model-dir", str(tmp_path / "models"))
    with serving(tmp_path / "logs", store, models=(), workers=1, options=options) as service:
        subject = Subject(Wire(service.url), LIMITS, artifact=str(artifact), multi_model=True)
        subject.holder = LocalProcess(service.process.pid)
        recognize(subject, None)
        findings = run_checks(subject, chosen(["MME"]))
        assert {one.check.id for one in findings if one.outcome.verdict is not Verdict.PASS} == set(), seen(findings)

        wanted = {"model_name": "the-last", "url": str(artifact)}
        assert requests.post(f"{service.url}/models", json=wanted, timeout=300).status_code == 200
        recognize(subject, None)
        findings = run_checks(subject, chosen(["STOP"]))
        assert seen(failures(findings)) == {}
        assert [one.outcome.verdict for one in findings[:2]] == [Verdict.PASS, Verdict.PASS], seen(findings)
        assert service.process.wait(30) == 0
