"""Starting, watching and stopping one TorchServe, with everything of its own: ports, temporary folder, tokens, logs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from segserve.config import TorchServeAddress
from segserve.errors import InvalidRequestError
from segserve.torchserve.configuration import Ports, ServedModel, ServerOptions, server_properties, write_properties
from segserve.torchserve.java import logging_configuration, server_command, server_environment
from segserve.torchserve.management import Management
from segserve.torchserve.ports import is_free
from segserve.torchserve.tokens import TokenRenewal

LOG_FILE = "torchserve.log"

_PREFIX = "segserve-ts-"
_PR_SET_PDEATHSIG = 1
_TERMINATE_S = 15.0
_STRAGGLERS_S = 5.0


class TorchServe:
    """One TorchServe, run as a child process.

    It is not restarted when it dies: wait() returns, and died_because() tells why. The Java process leads a process
    group of its own, so that neither a Ctrl-C in the terminal nor a lost worker reaches further than it should, and
    gets a SIGTERM should this process vanish (where the operating system offers that: Linux).

    Args:
        model_store: folder of the archives; only models from there are ever loaded. None: a folder of its own, empty
            at first, see the attribute of this name.
        models: what to load at the start.
        ports: where it listens, on loopback.
        log_folder: gets ``torchserve.log``, server and workers together; default: within the temporary folder.
        options: tokens, devices.
        given: settings of an operator's config.properties, see configuration.server_properties.
        threads: threads of numeric libraries in each worker; None leaves them to their defaults.
    """

    def __init__(
        self,
        model_store: Path | None,
        models: Sequence[ServedModel],
        ports: Ports,
        *,
        log_folder: Path | None = None,
        options: ServerOptions | None = None,
        given: Mapping[str, str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.models = tuple(models)
        self.ports = ports
        self.options = options or ServerOptions()
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._renewal: TokenRenewal | None = None
        remove_abandoned_folders()
        # Short, because the workers' sockets lie in it and their paths may have 107 characters at most.
        self.work = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self.model_store = (self.work / "model_store" if model_store is None else model_store).resolve()
        self.model_store.mkdir(exist_ok=True)
        self._properties = server_properties(self.model_store, models, ports, self.options, given)
        (self.work / "owner").write_text(str(os.getpid()), "ascii")
        self.log_file = (log_folder or self.work).resolve() / LOG_FILE
        self.address = TorchServeAddress(
            inference_url=f"http://127.0.0.1:{ports.inference}",
            management_url=f"http://127.0.0.1:{ports.management}",
            metrics_url=f"http://127.0.0.1:{ports.metrics}",
            key_file=self.work / "key_file.json" if self.options.token_check else None,
        )

    @property
    def pid(self) -> int:
        """The Java process. Raises RuntimeError before start()."""
        return self._started().pid

    def start(self) -> None:
        """Start the server and return at once; the models load after. Call it from the main thread.

        Raises:
            InvalidRequestError: one of the ports is in use.
            NotFoundError: no Java, or no TorchServe.
        """
        self._check_ports()
        (self.work / "tmp").mkdir()
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        write_properties(self.work / "config.properties", self._properties)
        (self.work / "log4j2.xml").write_text(logging_configuration(self.log_file), "utf-8")
        command = server_command(self._properties, self.work)
        with (self.work / "console").open("wb") as console:
            self._process = subprocess.Popen(
                command,
                cwd=self.work,
                env=server_environment(self.work, self._threads),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no lock, no allocation by Python code
            )
        if self.options.token_check:
            self._renewal = TokenRenewal(Management(self.address), self.options.token_minutes * 60)
            self._renewal.start()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the server to end. Returns its exit code, or None when it still runs after timeout_s."""
        try:
            return self._started().wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def is_running(self) -> bool:
        """Whether the Java process lives."""
        return self._process is not None and self._process.poll() is None

    def died_because(self) -> str:
        """One line on why the server ended: its exit code or signal, and the last telling line of its log."""
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return "it has not ended"
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        how = f"exit code {code}"
        telling = _telling_line(_tail(self.work / "console")) or _telling_line(_tail(self.log_file))
        return f"{how}: {telling}" if telling else how

    def stop(self) -> None:
        """End the server and its workers, and remove the temporary folder. May be called twice, or before start()."""
        if self._renewal is not None:
            self._renewal.stop()
        if self._process is not None:
            self._process.terminate()
            if self.wait(_TERMINATE_S) is None:
                self._process.kill()
                self._process.wait()
            _kill_group(self._process.pid)
        shutil.rmtree(self.work, ignore_errors=True)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("TorchServe has not been started")
        return self._process

    def _check_ports(self) -> None:
        for purpose, port in vars(self.ports).items():
            if not is_free(port):
                name = purpose.replace("_", " ")
                raise InvalidRequestError(
                    f"Port {port}, for TorchServe's {name}, is in use. Stop what listens there, or name other ports."
                )


def remove_abandoned_folders() -> None:
    """Remove temporary folders of servers whose owner was killed before it could tidy up."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            owner = int((folder / "owner").read_text("ascii"))
            if folder.stat().st_uid == os.getuid() and not _exists(owner):
                shutil.rmtree(folder, ignore_errors=True)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _die_with_parent() -> None:
    """In the child, before Java: have the kernel send SIGTERM when the parent's main thread ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _kill_group(group: int) -> None:
    """Kill what is left of a process group whose leader has ended: workers outlive a killed server by seconds.

    In a container this process may be the one that adopts orphans, and then has to reap them as well.
    """
    deadline = time.monotonic() + _STRAGGLERS_S
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:
            os.killpg(group, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-group, os.WNOHANG) != (0, 0):
                    pass
            time.sleep(0.02)


def _tail(path: Path, size: int = 20_000) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


_TELLING = re.compile(r"error|exception|failed|invalid|cannot|out of memory|in use", re.IGNORECASE)
# What every start without a GPU, or with segserve's archives, says.
_USUAL = re.compile(r"-smi not available|Invalid model config in mar")


def _telling_line(text: str, length: int = 300) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    telling = [line for line in lines if _TELLING.search(line) and not _USUAL.search(line)]
    line = telling[-1] if telling else ""
    return line if len(line) <= length else line[: length - 1] + "…"
