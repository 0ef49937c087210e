"""One service: the gateway in this process, TorchServe as its child, and how both start and end."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from segserve.config import Settings, settings_from_environment
from segserve.errors import InvalidRequestError, SegserveError, ServiceError
from segserve.torchserve.archive import ArchiveInfo, find_archives
from segserve.torchserve.archive_shelf import ArchiveShelf
from segserve.torchserve.configuration import Ports, ServerOptions, read_properties
from segserve.torchserve.launcher import TorchServe
from segserve.torchserve.load_failures import load_failures
from segserve.torchserve.management import Management
from segserve.torchserve.plan import Overrides, ServingPlan, plan_serving
from segserve.torchserve.ports import free_ports
from segserve.torchserve.running import RunningService

if TYPE_CHECKING:
    import uvicorn

_POLL_S = 0.5


@dataclass
class Stopping:
    """What ends a service: a signal, or the death of TorchServe."""

    server: uvicorn.Server | None = None
    by_signal: bool = False
    by_death: bool = False
    closing: bool = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Before the gateway runs, leave at once; then it finishes its requests first; while closing, nothing."""
        self.by_signal = True
        if self.closing:
            return
        if self.server is None:
            raise KeyboardInterrupt
        self.server.should_exit = True

    def on_death(self) -> None:
        """TorchServe ended by itself: the gateway has nothing left to do."""
        self.by_death = True
        if self.server is not None:
            self.server.should_exit = True


class Service:
    """``segserve serve``. args: its parsed options."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._stopping = Stopping()
        self._key = ""

    def run(self) -> int:
        """Serve until a signal comes; returns 0 then.

        Raises:
            SegserveError: nothing to serve, a port in use, or TorchServe died; says why.
        """
        args = self._args
        if args.no_tokens and args.multi_model:
            raise InvalidRequestError(
                "--no-tokens and --multi-model do not go together: whoever reaches TorchServe's management port could "
                "have it load any archive of this machine. Leave one of them out."
            )
        names = tuple(name.strip() for name in (args.models or "").split(",") if name.strip())
        overrides = Overrides(args.workers, args.batch_size, args.batch_delay)
        archives = [] if args.multi_model and not names else find_archives(args.model_store, names)
        plan = plan_serving(archives, args.profile, overrides)
        # Made anew here, and found by commands of this user on this machine only.
        self._key = secrets.token_urlsafe(24)
        settings = self._settings(archives)
        with self._signals(), listening_socket(args.host, args.port) as listener:
            torchserve = self._torchserve(plan)
            try:
                shelf = ArchiveShelf(
                    torchserve.model_store,
                    (args.model_store, args.multi_model_dir),
                    torchserve.log_file,
                    plan.profile,
                    overrides=overrides,
                )
                for archive in archives:
                    shelf.link(archive.name, archive.file)
                torchserve.start()
                self._serve(listener, settings, torchserve, plan, shelf)
            except KeyboardInterrupt:
                # A signal before the gateway ran: there is nothing to finish.
                pass
            finally:
                self._stopping.closing = True
                reason = None if torchserve.is_running() else torchserve.died_because()
                torchserve.stop()
        if self._stopping.by_death and not self._stopping.by_signal:
            raise ServiceError(f"TorchServe died ({reason}). Its log: {torchserve.log_file}")
        return 0

    def _settings(self, archives: Sequence[ArchiveInfo]) -> Settings:
        args = self._args
        settings = replace(
            settings_from_environment(),
            archives={archive.name: archive.about for archive in archives},
            multi_model=args.multi_model,
            sagemaker_runtime=args.sagemaker_runtime,
            local_key=self._key,
        )
        return settings if args.detection_dir is None else replace(settings, detection_dir=args.detection_dir)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._stopping.on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _torchserve(self, plan: ServingPlan) -> TorchServe:
        args = self._args
        wanted = (args.torchserve_inference_port, args.torchserve_management_port, args.torchserve_metrics_port, 0, 0)
        ports = Ports(*(port or free for port, free in zip(wanted, free_ports(len(wanted)), strict=True)))
        return TorchServe(
            None,
            plan.models,
            ports,
            log_folder=args.log_dir,
            # With the token, which this user alone can read, TorchServe loads any archive that it can read.
            options=ServerOptions(token_check=not args.no_tokens, gpus=plan.gpus, model_api=not args.no_tokens),
            given=_given_properties(args.config),
            threads=plan.threads,
        )

    def _serve(
        self,
        listener: socket.socket,
        settings: Settings,
        torchserve: TorchServe,
        plan: ServingPlan,
        shelf: ArchiveShelf,
    ) -> None:
        # Java is starting meanwhile: the gateway's imports take a second.
        from segserve.gateway.app import create_app
        from segserve.gateway.server import build_server

        host, port = listener.getsockname()[:2]
        settings = replace(
            settings,
            host=host,
            port=port,
            models=tuple(model.name for model in plan.models),
            torchserve=torchserve.address,
        )
        self._stopping.server = server = build_server(
            create_app(settings, shelf=None if self._args.no_tokens else shelf), settings
        )
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        running = RunningService(os.getpid(), port, url, torchserve.address, self._key)
        running.write()
        try:
            _announce(url, plan, torchserve)
            threading.Thread(target=self._watch, args=(torchserve,), name="torchserve-watch", daemon=True).start()
            threading.Thread(target=self._report, args=(torchserve,), name="readiness-report", daemon=True).start()
            server.run(sockets=[listener])
        finally:
            running.forget()

    def _watch(self, torchserve: TorchServe) -> None:
        torchserve.wait()
        if not self._stopping.closing:
            self._stopping.on_death()

    def _report(self, torchserve: TorchServe) -> None:
        """Say on stderr when each model has become ready, and what keeps one from it."""
        started = time.monotonic()
        management = Management(torchserve.address, timeout_s=5)
        waiting = [model.name for model in torchserve.models]
        told: set[str] = set()
        while waiting and not (self._stopping.closing or self._stopping.by_death or self._stopping.by_signal):
            time.sleep(_POLL_S)
            for name in list(waiting):
                with contextlib.suppress(SegserveError):
                    if management.describe(name).ready:
                        waiting.remove(name)
                        _say(f"{name} is ready after {time.monotonic() - started:.0f} s")
            for line in load_failures(torchserve.log_file, waiting):
                if line not in told:
                    told.add(line)
                    _say(line)


@contextlib.contextmanager
def listening_socket(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that accepts connections from this moment on.

    Raises:
        InvalidRequestError: the port is in use, or the host is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InvalidRequestError(
                    f"Port {port} is in use. Stop what listens there, or choose another with --port."
                ) from error
            raise InvalidRequestError(f"Cannot listen on {host}, port {port}: {error.strerror or error}.") from error
        listener.listen(2048)
        yield listener


def _given_properties(path: Path | None) -> dict[str, str]:
    if path is not None:
        return read_properties(path)
    default = Path("config.properties")
    return read_properties(default) if default.is_file() else {}


def _announce(url: str, plan: ServingPlan, torchserve: TorchServe) -> None:
    models = "; ".join(
        f"{model.name} {model.version} ({model.workers} workers, batches of {model.batch_size})"
        for model in plan.models
    )
    _say(f"segserve at {url}  (the web page; documentation: {url}/docs)")
    _say(f"models: {models or 'none yet'}, on {plan.profile}")
    tokens = torchserve.address.key_file or "off"
    _say(f"TorchServe at {torchserve.address.inference_url}, tokens: {tokens}, log: {torchserve.log_file}")
    if plan.models:
        _say("loading the models…")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
