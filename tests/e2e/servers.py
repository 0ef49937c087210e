"""Real services for tests: ``segserve serve`` as a child process on free ports, TorchServe's tokens on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from segserve.config import TorchServeAddress
from segserve.torchserve.management import read_keys
from segserve.torchserve.ports import free_ports
from segserve.torchserve.running import find_running

ROOT = Path(__file__).parents[2]
DEMO_WEIGHTS = ROOT / "weights" / "demo" / "grounded_sam"
SCENE_SEED = 600_000_001
"""Never trained on, like its neighbors."""

ADMIN_KEY = "admin-key-of-the-tests"
_READY_S = 240
_STOP_S = 60


@dataclass
class Served:
    """A running service. address: of its TorchServe; output: the file with what it printed."""

    url: str
    port: int
    address: TorchServeAddress
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def java(self) -> psutil.Process:
        """TorchServe's server process."""
        (java,) = [child for child in psutil.Process(self.process.pid).children() if "java" in child.name()]
        return java

    @property
    def workers(self) -> list[psutil.Process]:
        """TorchServe's worker processes."""
        return self.java.children()

    def family(self) -> list[psutil.Process]:
        """The service's process with all its descendants."""
        return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]

    def token(self, kind: str = "inference") -> dict[str, str]:
        """The header that TorchServe asks for."""
        return {"Authorization": f"Bearer {read_keys(self.address)[kind]['key']}"}

    def printed(self) -> str:
        """What the service has printed so far."""
        return self.output.read_text("utf-8", "replace")


@contextlib.contextmanager
def serving(
    folder: Path,
    store: Path,
    *,
    models: Sequence[str] = ("grounded_sam",),
    workers: int = 2,
    batch_size: int = 1,
    batch_delay_ms: int = 1,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    wait: bool = True,
) -> Iterator[Served]:
    """A service that is ready, with its logs in folder; ended with SIGTERM, if it still runs, and waited for.

    Images may be fetched from this machine, which a service refuses otherwise. Without wait it has only been started,
    and the address of its TorchServe is not known yet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "segserve.cli", "serve", "--port", str(port), "--model-store", str(store)]
    command += ["--models", ",".join(models), "--log-dir", str(folder), "--profile", "cpu"]
    command += ["--workers", str(workers), "--batch-size", str(batch_size), "--batch-delay", str(batch_delay_ms)]
    for name in ("inference", "management", "metrics"):
        command += [f"--torchserve-{name}-port", "0"]
    env = {**os.environ, "SEGSERVE_ADMIN_KEY": ADMIN_KEY, "SEGSERVE_FETCH_ALLOW": "127.0.0.1", **(environment or {})}
    output = folder / "serve.out"
    with output.open("wb") as stream:
        process = subprocess.Popen([*command, *options], cwd=ROOT, env=env, stdout=stream, stderr=subprocess.STDOUT)
    try:
        served = Served(f"http://127.0.0.1:{port}", port, TorchServeAddress(), process, output)
        if wait:
            _wait_until_ready(served)
            served.address = find_running(port).address
        yield served
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> int:
    """Send SIGTERM to a service, if it still runs, and wait. Returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        # Its TorchServe ends with it: the kernel tells it.
        process.kill()
        raise


def _wait_until_ready(served: Served) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if served.process.poll() is not None:
            raise AssertionError(f"segserve serve ended with {served.process.returncode}:\n{served.printed()}")
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{served.url}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.25)
    raise AssertionError(f"not ready after {_READY_S} s:\n{served.printed()}")


def multipart(image: bytes, text: str, **prompt: object) -> dict[str, tuple[str | None, bytes | str]]:
    """The form that a worker takes: for the ``files`` of requests.post."""
    return {"image": ("image", image), "prompt": (None, json.dumps({"text": text, **prompt}))}
