"""A container that is started as SageMaker starts it: ``docker run IMAGE serve``, and ended with SIGTERM."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from segserve.errors import InvalidRequestError, NotFoundError, SegserveError, TimedOutError

PORT = 8080
"""Where a container listens, unless SAGEMAKER_BIND_TO_PORT says otherwise."""

MODEL_DIR = "/opt/ml/model"
"""Where SageMaker unpacks model.tar.gz."""

HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
"""Options for a container that may write nowhere but /tmp and has no privileges."""

_ENGINES = ("docker", "podman")
_QUICK_S = 60
_START_S = 300


@dataclass(frozen=True)
class Launch:
    """How a container is started.

    Attributes:
        image: its name.
        engine: docker, podman, or a command with options of its own (``podman --runtime runc``).
        options: of ``run``, before the image.
        mounts: folders of this machine by their place in the container, read-only.
        environment: variables.
        port: where it listens inside.
    """

    image: str
    engine: str
    options: tuple[str, ...] = ()
    mounts: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = PORT

    @property
    def on_host_network(self) -> bool:
        """Whether the options put it onto this machine's network."""
        text = " ".join(self.options)
        return "--network host" in text or "--network=host" in text or "--net=host" in text

    def command(self, host_port: int) -> list[str]:
        """The command line that starts it."""
        command = [*shlex.split(self.engine), "run", "--detach"]
        if not self.on_host_network:
            command += ["--publish", f"127.0.0.1:{host_port}:{self.port}"]
        for inside, folder in self.mounts.items():
            command += ["--volume", f"{folder.resolve()}:{inside}:ro"]
        for name, value in self.environment.items():
            command += ["--env", f"{name}={value}"]
        return [*command, *self.options, self.image, "serve"]


def find_engine() -> str:
    """docker or podman, whichever is there.

    Raises:
        NotFoundError: neither is.
    """
    for name in _ENGINES:
        if shutil.which(name):
            return name
    raise NotFoundError("Neither docker nor podman is on the PATH; name another with --engine.")


@dataclass
class Container:
    """A running container. launch: how it was started; id: the engine's; url: where it answers."""

    launch: Launch
    id: str
    url: str

    def terminate(self) -> None:
        """Send SIGTERM."""
        _run(self.launch.engine, ["kill", "--signal", "TERM", self.id])

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within the time."""
        if not self._state().get("Running", False):
            return True
        try:
            _run(self.launch.engine, ["wait", self.id], timeout_s=max(0.1, timeout_s))
        except TimedOutError:
            return not self._state().get("Running", False)
        return True

    def exit_code(self) -> int | None:
        """How it ended."""
        code = self._state().get("ExitCode")
        return int(code) if code is not None else None

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The image's configuration: Entrypoint, Labels, User."""
        found = json.loads(_run(self.launch.engine, ["image", "inspect", self.launch.image]))
        return dict(found[0].get("Config") or {})

    def log(self) -> str:
        """The last lines that it printed."""
        return _run(self.launch.engine, ["logs", "--tail", "20", self.id], merge=True)

    def sibling(self, port: int, environment: Mapping[str, str]) -> contextlib.AbstractContextManager[Container]:
        """Another container of the same image, listening elsewhere."""
        return started(replace(self.launch, port=port, environment={**self.launch.environment, **environment}))

    def _state(self) -> dict[str, Any]:
        found = json.loads(_run(self.launch.engine, ["container", "inspect", self.id]))
        return dict(found[0].get("State") or {})


@contextlib.contextmanager
def started(launch: Launch) -> Iterator[Container]:
    """A container that runs; removed at the end, whatever it does.

    Raises:
        InvalidRequestError: the engine does not start it; says why.
        TimedOutError: it takes too long for that.
    """
    port = launch.port if launch.on_host_network else _free_port()
    container = Container(launch, _run(launch.engine, launch.command(port), whole=True, timeout_s=_START_S), "")
    container.id = container.id.strip().splitlines()[-1]
    container.url = f"http://127.0.0.1:{port}"
    try:
        yield container
    finally:
        with contextlib.suppress(SegserveError):
            _run(launch.engine, ["rm", "--force", "--volumes", container.id])


def _run(
    engine: str, arguments: Sequence[str], *, whole: bool = False, merge: bool = False, timeout_s: float = _QUICK_S
) -> str:
    command = list(arguments) if whole else [*shlex.split(engine), *arguments]
    errors = subprocess.STDOUT if merge else subprocess.PIPE
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError as error:
        raise InvalidRequestError(f"--engine: there is no {command[0]!r} here.") from error
    except subprocess.TimeoutExpired as error:
        raise TimedOutError(f"{' '.join(command[:2])} did not end within {timeout_s:g} s.") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout or "").split())[-300:]
        raise InvalidRequestError(f"{' '.join(command[:2])} failed ({done.returncode}): {said}")
    return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
