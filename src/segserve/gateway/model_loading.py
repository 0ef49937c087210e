"""Models that come and go while the service runs: loaded into TorchServe, waited for, and unloaded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from segserve.errors import (
    AlreadyLoadedError,
    InvalidRequestError,
    NoRoomError,
    NotFoundError,
    SegserveError,
    TimedOutError,
)
from segserve.gateway.model_shelf import ModelShelf
from segserve.gateway.readiness import Readiness
from segserve.gateway.served_models import ServedModels
from segserve.gateway.workers import Workers

logger = logging.getLogger("segserve.models")

LOAD_TIMEOUT_S = 600.0
"""A model is ready within this time, or its loading is given up."""

_POLL_S = 0.25
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class ModelToLoad(BaseModel):
    """What to load: the archive at url (a .mar file, or a folder that holds one), and the name to serve it under."""

    # As SageMaker spells it; pydantic keeps the prefix for itself otherwise.
    model_config = ConfigDict(protected_namespaces=())

    model_name: str = Field(min_length=1, max_length=1024)
    url: str = Field(min_length=1, max_length=4096)


class ModelLoader:
    """Loads and unloads models. What is begun is finished or undone, also if its caller goes away.

    Args:
        workers: the client of TorchServe.
        readiness: told what may be asked.
        served_models: told what is behind a name.
        shelf: brings the archives; None: nothing can be loaded.
        running: how many jobs for a model are at work.
        drain_s: how long they may take to finish when the model is unloaded.
        on_load: called with the outcome (``loaded``, or an error's code) and the seconds of each loading.
        on_unload: called with the name of each model that is gone.
    """

    def __init__(
        self,
        workers: Workers,
        readiness: Readiness,
        served_models: ServedModels,
        shelf: ModelShelf | None,
        *,
        running: Callable[[str], int],
        drain_s: float = 25.0,
        on_load: Callable[[str, float], None] = lambda outcome, seconds: None,
        on_unload: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._workers = workers
        self._readiness = readiness
        self._served_models = served_models
        self._shelf = shelf
        self._running = running
        self._drain_s = drain_s
        self._on_load = on_load
        self._on_unload = on_unload
        self._urls: dict[str, str] = {}
        self._busy: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def loaded(self) -> dict[str, str]:
        """The models that are loaded, by name with where each came from; sorted. One that is just loading is not."""
        names = [name for name in self._readiness.names() if self._busy.get(name) != "loaded"]
        return {name: self._urls.get(name, f"{name}.mar") for name in names}

    async def load(self, name: str, url: str) -> None:
        """Load the archive at url under a name; returns when the model is ready.

        Raises:
            InvalidRequestError: the name will not do, there is no archive, it may not be loaded, or it is broken.
            AlreadyLoadedError: the name is taken.
            NoRoomError: there is not enough memory.
            ServiceError: TorchServe cannot be reached, or the model was not ready in time.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequestError(
                f"model_name: expected letters, digits, '_', '.', '-', at most 128, came {name[:80]!r}."
            )
        self._check_may_change()
        self._check_idle(name)
        if name in self._readiness.names():
            raise AlreadyLoadedError(f"A model {name!r} is loaded already. Unload it first, or choose another name.")
        assert self._shelf is not None
        await self._finished(name, "loaded", self._load(name, url, self._shelf))

    async def unload(self, name: str) -> None:
        """Unload a model: it takes no more requests, finishes those at work, and is gone.

        Raises:
            InvalidRequestError: this gateway loads and unloads nothing.
            NotFoundError: no such model is loaded.
            AlreadyLoadedError: it is being loaded or unloaded at this moment.
            ServiceError: TorchServe cannot be reached.
        """
        self._check_idle(name)
        if name not in self._readiness.names():
            raise NotFoundError(f"The model {name[:80]!r} is not loaded here.", code="model_not_found")
        self._check_may_change()
        await self._finished(name, "unloaded", self._unload(name))

    async def aclose(self) -> None:
        """Give up what is at work: the service ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _check_may_change(self) -> None:
        if self._shelf is None:
            raise InvalidRequestError(
                "This gateway loads and unloads no models: it did not start the TorchServe that it asks, or that one "
                "was started with --no-tokens."
            )

    def _check_idle(self, name: str) -> None:
        if name in self._busy:
            raise AlreadyLoadedError(
                f"The model {name!r} is being {self._busy[name]} at this moment. Try again when that is done."
            )

    async def _finished(self, name: str, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Run the work to its end as a task of its own, whatever becomes of the request that asked for it."""
        self._busy[name] = what
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._busy.pop(name, None)
            error = None if task.cancelled() else task.exception()
            if error is None:
                logger.info(f"{name} {what}")
            else:
                logger.warning(f"{name} could not be {what}: {error}")

        task.add_done_callback(done)
        await asyncio.shield(task)

    async def _load(self, name: str, url: str, shelf: ModelShelf) -> None:
        started = time.monotonic()
        try:
            placement = await asyncio.to_thread(shelf.place, name, url)
            self._readiness.admit(name)
            self._served_models.put(name, placement.about)
            try:
                await self._workers.register(name, placement)
                await self._until_ready(name, shelf)
            except AlreadyLoadedError:
                # Somebody registered it at TorchServe itself: theirs stays.
                await asyncio.to_thread(shelf.remove, name)
                raise
            except Exception:
                # Not when it is cancelled: then the service ends, and TorchServe with it.
                await self._undo(name, shelf)
                raise
        except SegserveError as error:
            self._on_load(error.error_code, time.monotonic() - started)
            raise
        shelf.settle(name)
        self._urls[name] = url
        self._readiness.expect(name)
        await self._readiness.poll()
        self._on_load("loaded", time.monotonic() - started)

    async def _undo(self, name: str, shelf: ModelShelf) -> None:
        self._readiness.withdraw(name)
        self._served_models.remove(name)
        with contextlib.suppress(SegserveError):
            await self._workers.unregister(name)
        await asyncio.to_thread(shelf.remove, name)
        await self._readiness.poll()

    async def _until_ready(self, name: str, shelf: ModelShelf) -> None:
        """Wait until a worker has loaded the model.

        TorchServe starts a worker that failed again and again; the first failure ends the waiting.
        """
        end = time.monotonic() + LOAD_TIMEOUT_S
        pids: set[int] = set()
        while time.monotonic() < end:
            await asyncio.sleep(_POLL_S)
            failure = await asyncio.to_thread(shelf.failure, name)
            if failure is not None:
                raise failure
            try:
                workers = (await self._workers.model(name)).get("workers") or ()
            except NotFoundError as error:
                raise InvalidRequestError(
                    f"The model {name} cannot be loaded: TorchServe gave it up.", code="load_failed"
                ) from error
            except SegserveError:
                continue
            if any(worker.get("status") == "READY" for worker in workers):
                return
            pids |= {int(worker.get("pid", -1)) for worker in workers} - {-1}
            if len(pids) > len(workers):
                raise NoRoomError(
                    f"A worker of {name} ended without a word while it loaded the model: most often the memory was not "
                    "enough. Unload another model first."
                )
        raise TimedOutError(f"The model {name} was not ready within {LOAD_TIMEOUT_S:g} s.")

    async def _unload(self, name: str) -> None:
        self._readiness.withdraw(name)
        end = time.monotonic() + self._drain_s
        while self._running(name) and time.monotonic() < end:
            await asyncio.sleep(_POLL_S / 5)
        try:
            await self._workers.unregister(name)
        except NotFoundError:
            # Gone already: what was asked for.
            pass
        except SegserveError:
            self._readiness.expect(name)
            raise
        if self._shelf is not None:
            await asyncio.to_thread(self._shelf.remove, name)
        self._served_models.remove(name)
        self._urls.pop(name, None)
        await self._readiness.poll()
        self._on_unload(name)
