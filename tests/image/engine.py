"""Docker or podman, driven by their command lines, and the containers that a test starts."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

READY_S = 300
STOP_S = 45
"""Seconds that a container gets between SIGTERM and SIGKILL: segserve needs 25 to finish requests, and some to stop."""

TMPFS = ("--tmpfs", "/tmp:rw,noexec,nosuid,nodev,size=2g,mode=1777")
"""The one writable place, with Docker's default flags."""

_PODMAN_WITHOUT_LIMITS = """[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
"""
"""Where the usual runtime may not raise limits, as within some virtual machines and containers."""

_counter = itertools.count(1)


class EngineError(Exception):
    """A command of the engine failed; with the end of what it printed."""


class Engine:
    """The command line of ``docker`` or ``podman``."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def find(cls) -> Engine:
        """The one that CONTAINER_ENGINE names, else the first of docker and podman that answers.

        Raises:
            EngineError: there is none.
        """
        named = os.environ.get("CONTAINER_ENGINE")
        for name in [named] if named else ["docker", "podman"]:
            if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
                return cls(name)
        raise EngineError(f"{named or 'Neither docker nor podman'} answers here. Debian: apt-get install podman runc")

    @property
    def is_podman(self) -> bool:
        return "podman" in self.name

    def __call__(self, *arguments: str, timeout_s: float = 120, check: bool = True) -> str:
        """What a command prints. Raises EngineError where it fails and check is set."""
        done = subprocess.run(
            [self.name, *arguments], capture_output=True, text=True, timeout=timeout_s, errors="replace", check=False
        )
        if check and done.returncode != 0:
            raise EngineError(f"{self.name} {' '.join(arguments[:6])} …: {(done.stderr or done.stdout)[-2000:]}")
        return done.stdout

    def has(self, image: str) -> bool:
        done = subprocess.run([self.name, "image", "inspect", image], capture_output=True, check=False)
        return done.returncode == 0

    def inspect(self, image: str) -> dict[str, Any]:
        """The configuration of an image, in Docker's form."""
        (found,) = json.loads(self("image", "inspect", image))
        return dict(found)

    def build(self, options: Sequence[str], context: Path, log: Path) -> None:
        """Build an image; what that prints goes to log.

        Raises:
            EngineError: it failed.
        """
        isolation = ("--isolation", "chroot", "--format", "docker") if self.is_podman else ()
        with log.open("ab") as stream:
            command = [self.name, "build", *isolation, *options, str(context)]
            done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise EngineError(f"The build failed; its log is {log}:\n{log.read_text('utf-8', 'replace')[-3000:]}")

    @property
    def hardened(self) -> tuple[str, ...]:
        """Options with which nothing but /tmp is writable, and nothing may be gained."""
        # podman would make /run, /var/tmp and /dev/shm writable beside it.
        strict = ("--read-only-tmpfs=false",) if self.is_podman else ()
        return ("--read-only", *strict, *TMPFS, "--cap-drop", "ALL", "--security-opt", "no-new-privileges")

    def settle(self, image: str, folder: Path) -> None:
        """Run a container, and where podman's defaults cannot do that here, set others in the environment, for every
        podman that this process starts. folder: gets their file.

        Raises:
            EngineError: none runs.
        """
        try:
            self.run(image, entrypoint="true")
        except EngineError:
            if not self.is_podman:
                raise
            configuration = folder / "containers.conf"
            configuration.write_text(_PODMAN_WITHOUT_LIMITS, "utf-8")
            os.environ["CONTAINERS_CONF"] = str(configuration)
            self.run(image, entrypoint="true")

    def run(self, image: str, *arguments: str, options: Sequence[str] = (), entrypoint: str | None = None) -> str:
        """Run a container to its end; what it prints."""
        entry = ("--entrypoint", entrypoint) if entrypoint else ()
        return self("run", "--rm", *options, *entry, image, *arguments, timeout_s=600)

    def start(self, image: str, *arguments: str, options: Sequence[str] = (), port: int = 8080) -> Container:
        """Run a container in the background, its port published on a free one of this machine's loopback."""
        name = f"segserve-image-test-{os.getpid()}-{next(_counter)}"
        publish = ("--publish", f"127.0.0.1::{port}")
        self("run", "--detach", "--name", name, *publish, *options, image, *arguments)
        return Container(self, name, port)


class Container:
    """A container that runs in the background. port: of the service within."""

    def __init__(self, engine: Engine, name: str, port: int) -> None:
        self.name = name
        self.started = time.monotonic()
        self._engine = engine
        self._port = port

    @property
    def url(self) -> str:
        """The service's address on this machine."""
        return "http://" + self._engine("port", self.name, f"{self._port}/tcp").split()[0]

    def ping(self) -> int | None:
        """Status of /ping; None where nobody answers."""
        try:
            return requests.get(f"{self.url}/ping", timeout=5).status_code
        except (requests.RequestException, EngineError, IndexError):
            return None

    def wait_ready(self) -> float:
        """Wait until /ping says 200; returns the seconds since the start.

        Raises:
            EngineError: it ended, or is not ready in time; with the end of its log.
        """
        while time.monotonic() < self.started + READY_S:
            if self.ping() == 200:
                return time.monotonic() - self.started
            if self.exit_code() is not None:
                raise EngineError(f"The container ended with code {self.exit_code()}:\n{self.logs()[-3000:]}")
            time.sleep(0.5)
        raise EngineError(f"Not ready after {READY_S} s:\n{self.logs()[-3000:]}")

    def logs(self) -> str:
        """What it printed."""
        done = subprocess.run(
            [self._engine.name, "logs", self.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        return done.stdout.decode("utf-8", "replace")

    def execute(self, *command: str) -> str:
        """What a command within prints."""
        return self._engine("exec", self.name, *command)

    def exit_code(self) -> int | None:
        """Its exit code, or None while it runs."""
        state = self._engine("inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", self.name).split()
        return None if state[0] == "true" else int(state[1])

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code once it has ended; None when it still runs after timeout_s."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            # In the moment in which a container ends podman finds it, but no longer its process, and fails.
            with contextlib.suppress(EngineError):
                code = self.exit_code()
                if code is not None:
                    return code
            time.sleep(0.2)
        return None

    def kill(self, signal: str) -> None:
        """Send a signal to its first process."""
        self._engine("kill", "--signal", signal, self.name)

    def is_healthy(self) -> bool:
        """Whether the image's own health check says so; asked now where podman has nobody to ask it regularly."""
        if self._engine.is_podman:
            command = [self._engine.name, "healthcheck", "run", self.name]
            return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
        state = self._engine("inspect", "--format", "{{.State.Health.Status}}", self.name)
        return state.strip() == "healthy"

    def remove(self) -> None:
        """End it, whatever it does, and forget it."""
        self._engine("rm", "--force", "--volumes", self.name, check=False)
