"""What Dockerfile, compose.yaml and .dockerignore name exists and fits together; `make image-test` runs the image."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from segserve.cli import COMMANDS
from segserve.config import ENVIRONMENT, RequestLimits
from segserve.torchserve.launcher import _STRAGGLERS_S, _TERMINATE_S

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
IGNORED = [line for line in (ROOT / ".dockerignore").read_text("utf-8").split("\n") if line and line[0] != "#"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
OURS = re.compile(r"(?:SEGSERVE|SAGEMAKER|OPENAI)_[A-Z_]+")
SERVICES = ("segserve", "segserve-gpu")


def instructions() -> list[tuple[str, str]]:
    """(keyword, the rest) of the Dockerfile, continued lines joined."""
    lines = [line for line in DOCKERFILE.split("\n") if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(keyword, rest) for keyword, _, rest in (line.partition(" ") for line in joined.split("\n"))]


def arguments_of(keyword: str) -> list[str]:
    return [rest for name, rest in instructions() if name == keyword]


def build_arguments() -> dict[str, str]:
    """Default by name of every ARG; of those that are declared again, the first."""
    found: dict[str, str] = {}
    for rest in arguments_of("ARG"):
        name, _, default = rest.partition("=")
        found.setdefault(name, default.strip('"'))
    return found


def is_sent(path: str) -> bool:
    """Whether a file is sent to the build: the last pattern that matches it, or a folder above it, decides."""
    sent = True
    for line in IGNORED:
        escaped = re.escape(line.removeprefix("!"))
        pattern = escaped.replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{pattern}(?:/.*)?", path):
            sent = line.startswith("!")
    return sent


def tracked() -> list[str]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listing.stdout.split("\n")[:-1]


def test_everything_that_is_copied_is_sent_to_the_build():
    for rest in arguments_of("COPY"):
        if rest.startswith("--from="):
            continue
        for source in rest.split()[:-1]:
            assert (ROOT / source).exists(), source
            files = [name for name in tracked() if name == source or name.startswith(f"{source}/")]
            assert files, source
            assert [name for name in files if not is_sent(name)] == []


@pytest.mark.parametrize(
    "path",
    [
        *(
            ".git/config",
            ".venv/bin/python",
            ".env",
            "build/x",
            "logs/torchserve.log",
            "model_store/mine.mar",
            "id_rsa",
        ),
        *("tests/test_docs.py", "weights/mine/model.pth", "src/segserve/__pycache__/config.cpython-311.pyc"),
    ],
)
def test_nothing_else_of_the_working_tree_is_sent(path: str):
    assert not is_sent(path)


def test_it_starts_the_command_line_and_names_real_settings():
    assert arguments_of("ENTRYPOINT") == ['["segserve"]']
    (command,) = arguments_of("CMD")
    assert json.loads(command)[0] in COMMANDS
    named = set(OURS.findall(DOCKERFILE))
    assert named and named <= set(ENVIRONMENT)
    assert {"SEGSERVE_HOST=0.0.0.0", "SEGSERVE_MODEL_STORE=/opt/ml/model:/opt/segserve/model_store"} <= set(
        DOCKERFILE.split()
    )


def test_torchserve_has_the_program_that_ends_its_workers():
    # It runs `kill`; slim images have none, and unregistering a model would answer 500.
    of_all_stages = arguments_of("RUN")[0]
    assert " procps " in of_all_stages and "FROM ${BASE} AS python" in DOCKERFILE.split(of_all_stages[:10])[0]
    assert "FROM python AS image" in DOCKERFILE


def test_its_arguments_are_used_and_its_version_is_the_packages():
    for name in build_arguments():
        assert f"${{{name}" in DOCKERFILE, name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert build_arguments()["VERSION"] == project["version"]
    for extra in re.findall(r'extras\["(\w+)"\]', DOCKERFILE):
        assert extra in project["optional-dependencies"]


def test_it_does_not_run_as_root_and_has_the_labels_that_sagemaker_looks_for():
    assert arguments_of("USER") == ["${RUN_AS}"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", build_arguments()["RUN_AS"])
    for capability in ("accept-bind-to-port", "multi-models"):
        assert f'com.amazonaws.sagemaker.capabilities.{capability}="true"' in DOCKERFILE


class Ping(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.send_response(self.status if self.path == "/ping" else 404)
        self.end_headers()

    def log_message(self, *arguments):
        """Quiet."""


@pytest.fixture
def pinged() -> Iterator[int]:
    """The port of a service that answers /ping with Ping.status."""
    server = HTTPServer(("127.0.0.1", 0), Ping)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("variable", ["SEGSERVE_PORT", "SAGEMAKER_BIND_TO_PORT"])
def test_its_health_check_asks_ping_at_the_port_that_is_served(pinged: int, variable: str, monkeypatch):
    (check,) = arguments_of("HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    command[0] = sys.executable
    environment = {"PATH": os.environ["PATH"], "SEGSERVE_PORT": "9", variable: str(pinged)}
    for status in (200, 503):
        monkeypatch.setattr(Ping, "status", status)
        done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
        assert (done.returncode == 0) == (status == 200), done.stderr


def test_compose_names_real_settings_and_build_arguments():
    for name in SERVICES:
        service = COMPOSE["services"][name]
        assert set(service["environment"]) <= set(ENVIRONMENT)
        build = service["build"]
        assert set({} if build == "." else build["args"]) <= set(build_arguments())


def test_compose_has_a_profile_for_each_device_and_one_is_the_default():
    profiles = {name: COMPOSE["services"][name]["profiles"] for name in SERVICES}
    assert profiles == {"segserve": ["cpu"], "segserve-gpu": ["gpu"]}
    default = dict(re.findall(r"(?m)^(\w+)=(.*)$", (ROOT / ".env").read_text("utf-8")))
    assert default == {"COMPOSE_PROFILES": "cpu"}
    (device,) = COMPOSE["services"]["segserve-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_compose_keeps_the_ports_and_folders_of_the_detect_area_clients():
    for name in SERVICES:
        service = COMPOSE["services"][name]
        (port,) = service["ports"]
        assert port == "${EXPOSE_ADDRESS:-127.0.0.1}:${EXPOSE_PORT:-8080}:${APPLICATION_PORT:-8080}"
        assert service["environment"]["SEGSERVE_PORT"] == "${APPLICATION_PORT:-8080}"
        data = service["environment"]["SEGSERVE_DETECTION_DIR"]
        shared = [f"./input:{data}/input", f"./output:{data}/output"]
        assert service["volumes"][:2] == shared == COMPOSE["services"]["folders"]["volumes"]
        assert service["volumes"][2] == "./model_store:/opt/ml/model:ro"


def test_compose_grants_nothing_and_waits_for_the_end():
    for name in SERVICES:
        service = COMPOSE["services"][name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"] == f"${{RUN_AS:-{build_arguments()['RUN_AS']}}}"
        needed = RequestLimits().shutdown_s + _TERMINATE_S + _STRAGGLERS_S
        assert int(service["stop_grace_period"].removesuffix("s")) >= needed
