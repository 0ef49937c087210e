"""The checks of an image, and the command, with an engine whose containers are processes."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hosting_server import HostingServer

from segserve.cli import main
from segserve.conformance.container import HARDENED, Launch

PROGRAM = Path(__file__).with_name("engine_stand_in.py")
ENGINE = f"{shlex.quote(sys.executable)} -I -S {shlex.quote(str(PROGRAM))}"


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    file = tmp_path / "payload.json"
    file.write_text(json.dumps({"x": "a text that is somewhat longer than nothing"}), "utf-8")
    return file


@pytest.fixture
def conform(
    tmp_path: Path, payload: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, dict[str, Any]]]]:
    """Runs the command on an image; returns its exit code and the findings by id."""
    monkeypatch.setenv("ENGINE_STATE", str(tmp_path))
    model_dir = tmp_path / "model"
    model_dir.mkdir()

    def run(image: str, *options: str, only: str = "IMG,STOP") -> tuple[int, dict[str, dict[str, Any]]]:
        words = ["conform", "--image", image, "--engine", ENGINE, "--invoke", str(payload), "--json", "--only", only]
        code = main([*words, "--model-dir", str(model_dir), *options])
        return code, {found["id"]: found for found in json.loads(capsys.readouterr().out)["checks"]}

    return run


def failing(findings: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, found in findings.items() if found["verdict"] == "fail"}


def started_as(tmp_path: Path, number: int = 0) -> list[str]:
    return list(json.loads((tmp_path / f"{number}.container").read_text("utf-8")))


def test_a_right_image_passes_and_is_started_as_sagemaker_starts_it(conform: Any, tmp_path: Path) -> None:
    code, findings = conform("right", "--hardened", "--env", "A=b=c")
    assert code == 0, findings
    assert {found["verdict"] for found in findings.values()} == {"pass"}
    words = started_as(tmp_path)
    assert words[-2:] == ["right", "serve"]
    assert f"{tmp_path / 'model'}:/opt/ml/model:ro" in words
    assert "A=b=c" in words
    assert set(HARDENED) <= set(words)
    assert findings["STOP-3"]["seen"] == "exit code 0"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("shell", {"IMG-3"}),
        ("tini", {"IMG-3"}),
        ("no-entrypoint", {"IMG-3"}),
        ("other-labels", {"IMG-6"}),
        ("not-really-ready", {"IMG-2"}),
    ],
)
def test_what_is_wrong_with_an_image_is_found(image: str, expected: set[str], conform: Any) -> None:
    code, findings = conform(image, only="IMG-1,IMG-2,IMG-3,IMG-4,IMG-6,IMG-7")
    assert code == 1
    assert failing(findings) == expected, findings


def test_an_image_that_does_not_begin_or_does_not_listen_is_found(conform: Any) -> None:
    hasty = ("--startup-timeout", "1")
    _, findings = conform("never-ready", *hasty, only="IMG-1,IMG-4,IMG-7,PING")
    assert failing(findings) == {"IMG-1", "IMG-4", "IMG-7"}
    assert "It printed: http://127.0.0.1" in findings["IMG-1"]["seen"]
    _, findings = conform("needs-privileges", "--hardened", *hasty, only="IMG-8")
    assert failing(findings) == {"IMG-8"}
    _, findings = conform("deaf", *hasty, only="IMG-5")
    assert failing(findings) == {"IMG-5"}


def test_an_engine_that_fails_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\necho no such image >&2\nexit 125\n", "utf-8")
    engine.chmod(0o755)
    assert main(["conform", "--image", "right", "--engine", str(engine)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"segserve conform: {engine} run failed (125): no such image"


def test_a_multi_model_container_is_told_so_and_gets_its_artifact(conform: Any, tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    _, findings = conform("right", "--multi-model", "--artifact", str(tmp_path / "artifact"), only="IMG-1,MME-2")
    assert failing(findings) == set()
    assert findings["MME-2"]["verdict"] == "pass"
    words = started_as(tmp_path)
    assert "SAGEMAKER_MULTI_MODEL=true" in words
    assert f"{tmp_path / 'artifact'}:/opt/ml/models/conformance-model-1/model:ro" in words


def test_a_container_on_the_host_network_is_asked_at_its_own_port() -> None:
    launch = Launch("image", "podman --runtime runc", ("--network", "host"))
    assert launch.command(4711) == [
        "podman",
        "--runtime",
        "runc",
        "run",
        "--detach",
        "--network",
        "host",
        "image",
        "serve",
    ]
    assert "127.0.0.1:4711:8080" in Launch("image", "docker").command(4711)


@pytest.fixture
def hosted() -> Any:
    server = HostingServer()
    server.start()
    yield server
    server.stop()


def test_the_command_prints_a_table_and_markdown(
    hosted: HostingServer, payload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["conform", hosted.url, "--invoke", str(payload), "--only", "PING-1,HTTP-1,BAD-1,INV-1"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "PING-1" in printed
    assert "4 pass, 0 fail, 0 not applicable." in printed
    assert main([*words, "--markdown"]) == 0
    assert "| HTTP-1 | Unknown routes | 404 | pass | 404 {} |" in capsys.readouterr().out


def test_the_command_exits_with_1_when_a_check_fails(
    hosted: HostingServer, payload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosted.defect = "no 404"
    assert main(["conform", hosted.url, "--only", "HTTP-1"]) == 1
    assert "0 pass, 1 fail" in capsys.readouterr().out


def test_the_payload_is_sent_as_it_was_given(hosted: HostingServer, payload: Path) -> None:
    words = ["conform", hosted.url, "--invoke", str(payload), "--only", "INV-1,INV-5"]
    assert main([*words, "--accept", "text/plain", "--custom-attributes", "a=b"]) == 0


def test_a_payload_that_is_not_answered_is_one_failure(
    hosted: HostingServer, payload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["conform", hosted.url, "--invoke", str(payload), "--content-type", "text/csv", "--json"]
    assert main([*words, "--only", "INV,HTTP,BAD-10"]) == 1
    findings = {found["id"]: found for found in json.loads(capsys.readouterr().out)["checks"]}
    assert failing(findings) == {"INV-1"}
    assert findings["INV-1"]["seen"].startswith("400 ")
    assert findings["HTTP-4"]["verdict"] == "not applicable"


def test_the_checks_are_listed_without_a_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "--list", "--only", "STOP"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["STOP-1", "STOP-2", "STOP-3"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Expected a URL, or --image IMAGE; came neither."),
        (["http://127.0.0.1:1", "--image", "x"], "came both."),
        (["127.0.0.1:8080"], "URL: expected http://host:port"),
        (["http://127.0.0.1:1"], "Nothing listens at http://127.0.0.1:1: no connection"),
        (["http://127.0.0.1:1", "--only", "NOTHING"], "--only: no check NOTHING"),
        (["http://127.0.0.1:1", "--pid", "999999999"], "--pid: no process 999999999 runs here."),
        (["--image", "x", "--engine", "no-such-engine"], "there is no 'no-such-engine' here"),
        (["--image", "x", "--model-dir", "/no/such/folder"], "No folder /no/such/folder here"),
    ],
)
def test_wrong_usage_is_said_in_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("segserve conform: ")
    assert said in line
