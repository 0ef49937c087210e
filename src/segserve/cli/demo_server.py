"""What ``segserve demo`` runs beside itself: a service of its own, and a web server that holds its pictures."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType

from segserve.client import Client
from segserve.errors import NotReadyError, ServiceError
from segserve.torchserve.ports import free_ports

_STOP_S = 45.0
_POLL_S = 0.5
_SHOWN_LOG_LINES = 12


@contextlib.contextmanager
def running_service(
    model_store: Path, models: Sequence[str], logs: Path, timeout_s: float, options: Sequence[str] = ()
) -> Iterator[Client]:
    """``segserve serve`` of these models as a child process on free ports, ready; stopped and waited for at the end.

    It leads a session of its own: a Ctrl-C reaches this process only, which then stops it in order. Pictures may be
    fetched from this machine, which a service refuses otherwise. options: more of the command's.

    Raises:
        ServiceError: it ended, or was not ready within timeout_s seconds; with the end of its log.
    """
    logs.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "segserve.cli", "serve", "--port", str(port)]
    command += ["--model-store", str(model_store), "--log-dir", str(logs), "--models", ",".join(models)]
    for inner in ("inference", "management", "metrics"):
        command += [f"--torchserve-{inner}-port", "0"]
    command += options
    # Keys, limits and a catalog of the user's own belong to the user's service.
    own = ("SEGSERVE_", "SAGEMAKER_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment["SEGSERVE_FETCH_ALLOW"] = "127.0.0.1"
    log_file = logs / "serve.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            _wait_until_ready(client, process, log_file, timeout_s)
            yield client
    finally:
        _stop(process)


@contextlib.contextmanager
def served_folder(folder: Path) -> Iterator[str]:
    """The address of a web server on this machine that serves the files of a folder."""
    handler = functools.partial(_QuietFiles, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """A SIGTERM raises KeyboardInterrupt, so that everything is stopped in order then too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


def _wait_until_ready(client: Client, process: subprocess.Popen[bytes], log_file: Path, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not client.ready():
        if process.poll() is not None:
            raise ServiceError(f"The service ended with status {process.returncode}.{_tail(log_file)}")
        if time.monotonic() > end:
            raise NotReadyError(f"The service was not ready within {timeout_s:g} s.{_tail(log_file)}")
        time.sleep(_POLL_S)


def _tail(log_file: Path) -> str:
    lines = log_file.read_text("utf-8", "replace").splitlines()[-_SHOWN_LOG_LINES:]
    return "".join(f"\n  {line}" for line in [f"The end of {log_file}:", *lines])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM lets it finish and stop TorchServe; only if that takes too long, its whole session is killed."""
    process.terminate()
    try:
        _uninterrupted(lambda: process.wait(_STOP_S))
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _uninterrupted(action: Callable[[], object]) -> None:
    """Run the action although Ctrl-C is pressed once more meanwhile: a service must not be left behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        action()
    finally:
        signal.signal(signal.SIGINT, before)
