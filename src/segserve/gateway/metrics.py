"""The gateway's own Prometheus metrics, in a registry of their own."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from segserve.gateway.machine_gauges import MachineGauges
from segserve.gateway.readiness import ModelStatus
from segserve.gateway.worker_headers import WorkerHeaders

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LOAD_SECONDS = (1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
_IMAGES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Counters and histograms of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter(
            "segserve_requests",
            "Requests by route, method and status (499: the caller went away).",
            ["route", "method", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "segserve_request_seconds",
            "Time from the first byte to the answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "segserve_request_images", "Images in a request.", ["model"], buckets=_IMAGES, registry=registry
        )
        self._fetch_failures = Counter(
            "segserve_fetch_failures", "Images that could not be had, by error code.", ["code"], registry=registry
        )
        self._retries = Counter(
            "segserve_worker_retries", "Requests sent again because a worker was lost.", ["model"], registry=registry
        )
        self._cache = Counter(
            "segserve_embedding_cache",
            "Images whose embedding the worker had kept (hit) or had to compute (miss).",
            ["model", "outcome"],
            registry=registry,
        )
        self._cache_bytes = Gauge(
            "segserve_embedding_cache_bytes",
            "Embeddings kept by the worker that answered last.",
            ["model"],
            registry=registry,
        )
        self._worker_seconds = Histogram(
            "segserve_worker_seconds",
            "Time a worker computed, by what its embedding cache had (none: no cache).",
            ["model", "cache"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._rewriting = Counter(
            "segserve_prompt_rewriting", "Prompts by what became of them.", ["outcome"], registry=registry
        )
        self._loads = Counter(
            "segserve_model_loads",
            "Models asked to be loaded while serving, by outcome (loaded, or the error's code).",
            ["outcome"],
            registry=registry,
        )
        self._load_seconds = Histogram(
            "segserve_model_load_seconds",
            "Time until a loaded model was ready.",
            buckets=_LOAD_SECONDS,
            registry=registry,
        )
        self._ready = Gauge("segserve_ready", "1 when every configured model is ready.", registry=registry)
        self._machine = MachineGauges(registry)
        # segserve_process_…: the gateway's own CPU time, memory and open files.
        ProcessCollector(namespace="segserve", registry=registry)

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """An answered request."""
        # Callers choose the method: unknown ones must not each make a time series.
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_images(self, model: str, images: int) -> None:
        """The images of a request that was accepted."""
        self._batches.labels(model).observe(images)

    def count_fetch_failure(self, code: str) -> None:
        """An image that could not be had."""
        self._fetch_failures.labels(code).inc()

    def count_retry(self, model: str) -> None:
        """A request that is sent again."""
        self._retries.labels(model).inc()

    def count_answer(self, model: str, headers: WorkerHeaders) -> None:
        """An answer of a worker."""
        if headers.cache is not None:
            self._cache.labels(model, headers.cache).inc()
        if headers.cache_bytes is not None:
            self._cache_bytes.labels(model).set(headers.cache_bytes)
        if headers.seconds is not None:
            self._worker_seconds.labels(model, headers.cache or "none").observe(headers.seconds)

    def count_load(self, outcome: str, seconds: float) -> None:
        """A model that was loaded, or could not be."""
        self._loads.labels(outcome).inc()
        if outcome == "loaded":
            self._load_seconds.observe(seconds)

    def forget_model(self, name: str) -> None:
        """Drop the time series of a model that is gone: where models come and go, they would pile up."""
        for family in (self._batches, self._retries, self._cache, self._cache_bytes, self._worker_seconds):
            family.remove_by_labels({"model": name})

    def count_rewriting(self, outcome: str) -> None:
        """A prompt that might have been rewritten."""
        self._rewriting.labels(outcome).inc()

    def text(self, ready: bool, models: Mapping[str, ModelStatus] | None = None) -> str:
        """Everything in Prometheus' text format. ready, models: as the last poll saw them."""
        self._machine.set(models or {})
        self._ready.set(1 if ready else 0)
        return generate_latest(self._registry).decode("utf-8")
