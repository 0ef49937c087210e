"""build_and_push.sh with moto as the registry's API and a stand-in for the engine that notes how it is called.

Neither shows the push itself: moto stores no image layers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from aws_scripts import SCRIPTS
from moto.server import ThreadedMotoServer

SCRIPT = SCRIPTS / "build_and_push.sh"
REPOSITORY = "123456789012.dkr.ecr.us-east-1.amazonaws.com/shop"


@pytest.fixture
def registry(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    yield
    server.stop()


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    """A folder with a docker and a podman that write down their arguments and standard input, and do nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "podman"):
        engine = folder / name
        engine.write_text(
            f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/called"\n[ "$1" != login ] || cat > "{tmp_path}/password"\n'
        )
        engine.chmod(0o755)
    return folder


def call(*options: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}" if path else "/usr/bin:/bin"}
    environ["PYTHON"] = sys.executable
    command = ["bash", str(SCRIPT), *options]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)


def test_arrays_that_may_be_empty_are_expanded_as_macos_can() -> None:
    """To its bash 3.2 an empty array is an unbound variable under set -u, and this machine has no such bash."""
    code = "\n".join(line for line in SCRIPT.read_text("utf-8").splitlines() if not line.lstrip().startswith("#"))
    (declared,) = re.findall(r"^(\w+)=\(\) (\w+)=\(\)$", code, re.MULTILINE)
    for name in declared:
        guarded = f'${{{name}[@]+"${{{name}[@]}}"}}'
        assert code.count(f'"${{{name}[@]}}"') == code.count(guarded) > 0


@pytest.mark.parametrize(
    ("engine", "build", "push"),
    [
        (
            "docker",
            "docker buildx build --platform linux/amd64 --provenance=false --sbom=false "
            "--output type=docker,oci-mediatypes=false --build-arg WITH_DETECTRON2=1 --build-arg BASE=debian:12",
            f"docker push {REPOSITORY}:0.2",
        ),
        (
            "podman",
            "podman build --platform linux/amd64 --format docker "
            "--build-arg WITH_DETECTRON2=1 --build-arg BASE=debian:12",
            f"podman push --format v2s2 {REPOSITORY}:0.2",
        ),
    ],
)
def test_one_image_in_dockers_format_is_built_and_pushed(
    registry: None, engines: Path, tmp_path: Path, engine: str, build: str, push: str
) -> None:
    options = ("--name", "shop", "--tag", "0.2", "--base", "debian:12", "--build-arg", "WITH_DETECTRON2=1")
    done = call(*options, "--engine", engine, path=engines)
    assert done.returncode == 0, done.stderr
    called = (tmp_path / "called").read_text().splitlines()
    assert called[0].startswith(f"{build} --tag {REPOSITORY}:0.2 ")
    assert called[1] == f"{engine} login --username AWS --password-stdin {REPOSITORY.partition('/')[0]}"
    assert called[2:] == [push]
    (made,) = boto3.client("ecr", "us-east-1").describe_repositories()["repositories"]
    assert made["repositoryUri"] == REPOSITORY


def test_the_password_goes_through_a_pipe_alone(registry: None, engines: Path, tmp_path: Path) -> None:
    done = call("--name", "shop", "--engine", "podman", path=engines)
    secret = (tmp_path / "password").read_text().strip()
    assert secret
    assert secret not in done.stdout + done.stderr + (tmp_path / "called").read_text()


def test_a_dry_run_needs_neither_aws_nor_an_engine(no_aws: None) -> None:
    done = call("--dry-run", "--engine", "docker")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ecr CreateRepository" in done.stdout
    assert "+ docker push 123456789012.dkr.ecr.us-east-1.amazonaws.com/segserve:latest" in done.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--nmae", "shop"), "unknown option --nmae"),
        (("--name",), "--name needs a value"),
        (("--name", "Shop"), "--name"),
        (("--tag", "a b"), "--tag"),
        (("--engine", "make"), "--engine"),
        (("--platform", "windows/amd64"), "--platform"),
    ],
)
def test_wrong_usage_is_told(options: tuple[str, ...], told: str) -> None:
    done = call(*options)
    assert (done.returncode, told in done.stderr) == (2, True)


def test_help_has_an_example() -> None:
    done = call("--help")
    assert (done.returncode, "example: sagemaker/build_and_push.sh" in done.stdout) == (0, True)
