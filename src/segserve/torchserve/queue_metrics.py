"""What TorchServe and the gateway tell about queues, as observations that autoscaling decides on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import requests

from segserve.client import Client
from segserve.errors import NotFoundError, NotReadyError, error_from_status
from segserve.machine_memory import memory_room, process_memory
from segserve.torchserve.autoscaling import Observation
from segserve.torchserve.management import Management
from segserve.torchserve.metric_samples import Samples
from segserve.torchserve.running import find_running

_TIMEOUT_S = 10.0
_MICROSECONDS = 1e6


class Fleet(Protocol):
    """The workers of one service, as autoscaling sees and changes them.

    Every method raises ServiceError (of segserve.errors) while the service cannot be asked.
    """

    def models(self) -> list[str]:
        """Names of what is served."""

    def observe(self, model: str) -> Observation:
        """What happened since this was last asked; the first time, only what is now.

        Raises:
            NotFoundError: no such model.
        """

    def scale(self, model: str, workers: int) -> None:
        """Have so many workers from now on; may return before they have loaded.

        Raises:
            NotFoundError: no such model.
        """


@dataclass(frozen=True)
class Counters:
    """TorchServe's counters of one model at one moment, since it started.

    Attributes:
        at: monotonic seconds.
        requests: that were answered.
        queue_s: all of their seconds in the queue.
        latency_s: all of their seconds in TorchServe, those in the queue included.
    """

    at: float
    requests: float = 0.0
    queue_s: float = 0.0
    latency_s: float = 0.0

    def since(self, before: Counters) -> Counters:
        """The differences, at being the seconds between; after a restart of TorchServe what it has counted since."""
        seconds = self.at - before.at
        if self.requests < before.requests:
            return Counters(seconds, self.requests, self.queue_s, self.latency_s)
        return Counters(
            seconds,
            self.requests - before.requests,
            max(0.0, self.queue_s - before.queue_s),
            max(0.0, self.latency_s - before.latency_s),
        )


def queue_time(period: Counters, queued: int) -> float:
    """Seconds that requests waited in a period on average, or those in the queue will, whichever is more.

    The counters tell of a request when it is answered: while a queue grows they lag. queued requests at the speed of
    the period (less than one answer counts as one) take Little's law's time.
    """
    waited = period.queue_s / period.requests if period.requests else 0.0
    return max(waited, queued * period.at / max(1.0, period.requests))


def in_work(period: Counters) -> float:
    """Requests that workers had in hand in a period, on average."""
    return max(0.0, period.latency_s - period.queue_s) / period.at if period.at > 0 else 0.0


def counters(samples: Samples, model: str, at: float) -> Counters:
    """TorchServe's of one model; what it has not counted yet is 0."""
    return Counters(
        at,
        samples.total("ts_inference_requests_total", model_name=model),
        samples.total("ts_queue_latency_microseconds", model_name=model) / _MICROSECONDS,
        samples.total("ts_inference_latency_microseconds", model_name=model) / _MICROSECONDS,
    )


class _Periods:
    """The last counters of each model."""

    def __init__(self) -> None:
        self._last: dict[str, Counters] = {}

    def next(self, model: str, now: Counters) -> Counters:
        before = self._last.get(model)
        self._last[model] = now
        return Counters(0.0) if before is None else now.since(before)


class OwnFleet:
    """That of this user's ``segserve serve`` on a port of this machine, through TorchServe's management API."""

    def __init__(self, port: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._port = port
        self._clock = clock
        self._periods = _Periods()

    def models(self) -> list[str]:
        return self._management().list()

    def observe(self, model: str) -> Observation:
        management = self._management()
        status = management.describe(model)
        text = _get(f"{management.address.metrics_url}/metrics", {})
        period = self._periods.next(model, counters(Samples(text), model, self._clock()))
        sizes = [size for worker in status.workers if (size := process_memory(worker.pid))]
        room = memory_room()
        return Observation(
            workers=len(status.workers),
            ready_workers=status.ready_workers,
            queued=status.queued,
            queue_time_s=queue_time(period, status.queued),
            in_work=in_work(period),
            batch_size=status.batch_size,
            worker_bytes=max(sizes, default=None),
            available_bytes=None if room is None else room.available,
        )

    def scale(self, model: str, workers: int) -> None:
        self._management().scale(model, workers, workers, wait=False)

    def _management(self) -> Management:
        # Looked up each time: a service that was started again has other ports.
        try:
            return Management(find_running(self._port).address, timeout_s=_TIMEOUT_S)
        except NotFoundError as error:
            raise NotReadyError(error.message) from error


class RemoteFleet:
    """That of any service, through its gateway: what it tells at /metrics, and scaling with the admin key."""

    def __init__(self, url: str, admin_key: str | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url.rstrip("/")
        self._key = admin_key
        self._clock = clock
        self._periods = _Periods()

    def models(self) -> list[str]:
        return self._samples().labels("segserve_model_workers", "model")

    def observe(self, model: str) -> Observation:
        samples = self._samples()
        workers = samples.values("segserve_model_workers", model=model)
        if not workers:
            raise NotFoundError(f"{self._url} tells of no model {model!r} at /metrics.")
        period = self._periods.next(model, counters(samples, model, self._clock()))
        queued = int(samples.total("segserve_model_queued", model=model))
        sizes = samples.values("segserve_worker_memory_bytes", model=model)
        room = samples.values("segserve_memory_available_bytes")
        return Observation(
            workers=int(workers[0]),
            ready_workers=int(samples.total("segserve_model_ready_workers", model=model)),
            queued=queued,
            queue_time_s=queue_time(period, queued),
            in_work=in_work(period),
            batch_size=max(1, int(samples.total("segserve_model_batch_size", model=model))),
            worker_bytes=int(max(sizes)) if sizes else None,
            available_bytes=int(room[0]) if room else None,
        )

    def scale(self, model: str, workers: int) -> None:
        with Client(self._url, api_key=self._key) as client:
            client.scale(model, workers, workers)

    def _samples(self) -> Samples:
        return Samples(_get(f"{self._url}/metrics", {} if self._key is None else {"X-API-Key": self._key}))


def _get(url: str, headers: Mapping[str, str]) -> str:
    try:
        with requests.Session() as session:
            # A proxy that the environment names cannot reach a service on this machine.
            session.trust_env = urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1")
            answer = session.get(url, headers=dict(headers), timeout=_TIMEOUT_S, allow_redirects=False)
    except requests.RequestException as error:
        raise NotReadyError(f"No metrics come from {url}.") from error
    if answer.status_code != 200:
        raise error_from_status(answer.status_code, f"{url} answers {answer.status_code}.")
    return answer.text
