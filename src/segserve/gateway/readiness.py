"""Which models are ready: polled from TorchServe's management API in the background, read by everyone else.

No request ever waits for TorchServe to learn the state, so that /ping answers at once whatever the load.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from segserve.errors import NotFoundError, NotReadyError, SegserveError, TimedOutError
from segserve.gateway.workers import Workers

logger = logging.getLogger("segserve.readiness")

_TOLERATED_FAILURES = 2
"""So many polls in a row may time out (a busy machine) before the last known state is given up."""


@dataclass(frozen=True)
class ModelStatus:
    """One registered model as TorchServe describes it.

    workers: all; ready_workers: those that have loaded it; queued: requests that wait for one, None if not told; pids:
    the workers' processes, as far as told.
    """

    name: str
    version: str
    workers: int
    ready_workers: int
    batch_size: int
    device: str
    queued: int | None = None
    pids: tuple[int, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether a worker has loaded the model; the handlers warm up before TorchServe counts them as loaded."""
        return self.ready_workers > 0

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> ModelStatus:
        """From one entry of TorchServe's ``GET /models/{name}``."""
        workers = described.get("workers") or ()
        queue = described.get("jobQueueStatus") or {}
        return cls(
            name=str(described["modelName"]),
            version=str(described.get("modelVersion", "")),
            workers=len(workers),
            ready_workers=sum(worker.get("status") == "READY" for worker in workers),
            batch_size=int(described.get("batchSize", 1)),
            device="cuda" if any(worker.get("gpu") is True for worker in workers) else "cpu",
            queued=int(queue["pendingRequests"]) if "pendingRequests" in queue else None,
            pids=tuple(int(worker["pid"]) for worker in workers if int(worker.get("pid") or 0) > 0),
        )


@dataclass(frozen=True)
class Snapshot:
    """What the last poll saw. problem: why TorchServe could not be asked, or None; taken_at: monotonic seconds."""

    models: Mapping[str, ModelStatus] = field(default_factory=dict)
    problem: str | None = "TorchServe has not been asked yet"
    taken_at: float = 0.0


class Readiness:
    """The cached state, and the poll that keeps it.

    Args:
        workers: the client of TorchServe.
        expected: names of the models that must be ready; empty: all that TorchServe has, and at least one.
        interval_s: between polls while ready; four times as often until then.
        multi_model: models come and go: none is needed but those of expected, which may be none at all.
    """

    def __init__(
        self,
        workers: Workers,
        expected: Sequence[str] = (),
        interval_s: float = 2.0,
        *,
        multi_model: bool = False,
    ) -> None:
        self._workers = workers
        self._expected = tuple(expected)
        self._interval_s = interval_s
        self._multi_model = multi_model
        self._failures = 0
        self._was_ready: set[str] = set()
        self._loaded: dict[str, None] = {}
        self._withdrawn: set[str] = set()
        self._resting: set[str] = set()
        # One poll after another: an answer from before a change may not replace one from after it.
        self._polling = asyncio.Lock()
        self.snapshot = Snapshot()

    @property
    def ready(self) -> bool:
        """Whether every expected model has a ready worker."""
        return not self.missing()

    def missing(self, *, health: bool = False) -> list[str]:
        """What stands between now and ready, a line each; empty when ready.

        health: leave out models that come and go: a container that hosts many is not ill because one of them is.
        """
        if self.snapshot.problem is not None:
            return [self.snapshot.problem]
        models = self.snapshot.models
        expected = [name for name in self._expected if name not in self._withdrawn]
        if not (health and self._multi_model):
            expected += [name for name in self._loaded if name not in expected]
        if not expected and not self._multi_model:
            expected = [name for name in models if name not in self._withdrawn]
            if not expected:
                return ["TorchServe has no model"]
        missing = []
        for name in expected:
            status = models.get(name)
            if status is None:
                missing.append(f"{name}: not registered")
            elif not status.ready:
                missing.append(f"{name}: none of its {status.workers} workers has loaded it")
        return missing

    def names(self) -> list[str]:
        """The models that there are or should be, sorted."""
        return sorted({*self._expected, *self.snapshot.models} - self._withdrawn)

    def expect(self, name: str) -> None:
        """A model is loaded from now on: it counts for ready, and may be asked."""
        self._withdrawn.discard(name)
        self._loaded[name] = None

    def admit(self, name: str) -> None:
        """A model is being loaded: it is known, and does not count yet."""
        self._withdrawn.discard(name)

    def withdraw(self, name: str) -> None:
        """A model is being unloaded, or could not be loaded: it is not known any more, whatever TorchServe says."""
        self._withdrawn.add(name)
        self._loaded.pop(name, None)
        self._was_ready.discard(name)

    def version(self, model: str) -> str:
        """The version of a model as far as it is known, else an empty text."""
        status = self.snapshot.models.get(model)
        return status.version if status else ""

    @contextmanager
    def resting(self, name: str) -> Iterator[None]:
        """Meanwhile requests for a model are refused: its workers are about to end."""
        self._resting.add(name)
        try:
            yield
        finally:
            self._resting.discard(name)

    def has_workers(self, model: str) -> bool:
        """False only if the model is known to have none, not even a starting one."""
        status = self.snapshot.models.get(model)
        return status is None or status.workers > 0

    def check(self, model: str) -> None:
        """Refuse early what TorchServe would keep waiting: requests for a model that is still loading.

        A model that has been ready before passes: its worker is being restarted, and the queue keeps the request.

        Raises:
            NotFoundError: not among the registered or expected models.
            NotReadyError: expected, but not loaded yet; or scaled to no worker at all.
        """
        snapshot = self.snapshot
        gone = model in self._withdrawn
        was_ready = model in self._was_ready
        if not gone and (model in self._resting or (was_ready and not self._may_have_workers(model))):
            raise NotReadyError(f"The model {model} has no worker at present: it is scaled to 0. Try again later.")
        if not gone and (snapshot.problem is not None or was_ready):
            return
        status = snapshot.models.get(model)
        if gone or (status is None and model not in self._expected):
            known = ", ".join(self.names()) or "none"
            raise NotFoundError(f"model: {model!r} is not loaded here. Models: {known}.", code="model_not_found")
        if status is None or not status.ready:
            raise NotReadyError(f"The model {model} is still loading. Try again in some seconds.")

    def _may_have_workers(self, model: str) -> bool:
        return self.snapshot.problem is not None or self.has_workers(model)

    async def poll(self) -> None:
        """Ask TorchServe once, from now on, and keep what it says. Failures become part of the state."""
        async with self._polling:
            await self._poll()

    async def _poll(self) -> None:
        before = self.ready
        try:
            described = [ModelStatus.from_description(entry) for entry in await self._workers.models()]
        except TimedOutError as error:
            self._failures += 1
            if self._failures > _TOLERATED_FAILURES:
                self.snapshot = Snapshot(self.snapshot.models, error.message, time.monotonic())
        except SegserveError as error:
            self.snapshot = Snapshot(self.snapshot.models, error.message, time.monotonic())
        else:
            self._failures = 0
            states = {status.name: status for status in described}
            self._was_ready.update(name for name, status in states.items() if status.ready)
            self._was_ready -= self._withdrawn
            self._withdrawn &= {*states, *self._expected}
            self.snapshot = Snapshot(states, None, time.monotonic())
        if self.ready != before:
            logger.info("ready" if self.ready else "not ready: " + "; ".join(self.missing()))

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                await self.poll()
            except Exception:
                # A description of an unforeseen form must not end the polling for good.
                logger.exception("the state of the models could not be read")
                self.snapshot = Snapshot({}, "TorchServe's description of its models cannot be read", time.monotonic())
            await asyncio.sleep(self._interval_s if self.ready else self._interval_s / 4)
