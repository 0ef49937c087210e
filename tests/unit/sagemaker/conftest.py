"""The scripts of sagemaker/ against moto: an AWS in this process that keeps what it is told, and runs nothing.

What moto cannot show: whether AWS permits a call (it knows no policies), whether a container starts (an endpoint is in
service at once), new instance types (ml.g5 is refused), and UpdateEndpoint, which it does not have.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from aws_scripts import REGION, SCRIPTS, Run, packed, push
from moto import mock_aws

sys.path.insert(0, str(SCRIPTS))


@pytest.fixture(scope="session", autouse=True)
def descriptions_are_read_once() -> Iterator[None]:
    """Each script makes a session of its own, and each session reads the services' descriptions: megabytes."""
    loader = botocore.session.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda *_: loader)
        yield


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, no region, no configuration files."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def aws(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """An empty account; gives clients by the service's name."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    # A client takes longer to make than a test to run; moto works through any that was made after its import.
    monkeypatch.setattr(importlib.import_module("calls").Calls, "client", lambda calls, name, _: _client(name, calls))
    monkeypatch.setattr(importlib.import_module("waiting"), "PAUSE_S", 0.0)
    monkeypatch.setattr(importlib.import_module("endpoint"), "ROLE_PAUSE_S", 0.0)
    with mock_aws():
        yield _client


@cache
def _made(service: str, region: str) -> Any:
    return boto3.client(service, region_name=region)


def _client(service: str, calls: Any = None) -> Any:
    """A client, the same for all tests that ask."""
    return _made(service, REGION if calls is None else calls.region)


@pytest.fixture
def image(aws: Callable[[str], Any]) -> str:
    """An image shop:latest in the registry; returns its digest."""
    ecr = aws("ecr")
    tags = [{"Key": "segserve:deployment", "Value": "shop"}]
    ecr.create_repository(repositoryName="shop", tags=tags)
    return push(ecr, "first")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Run a script of sagemaker/ as its command line does."""

    def call(script: str, *options: str) -> Run:
        module = importlib.import_module(script)
        end = importlib.import_module("command_line").end
        monkeypatch.setattr(sys, "argv", [f"sagemaker/{script}.py", *options])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            end(module.main)
        written = capsys.readouterr()
        return Run(int(stopped.value.code or 0), written.out, written.err)

    return call


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A model.tar.gz."""
    return packed(tmp_path / "model.tar.gz", b"weights")
