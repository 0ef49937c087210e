"""Gauges of what is so at the moment of a scrape: each model's workers and queue, and the memory and disk left."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from segserve.gateway.readiness import ModelStatus
from segserve.machine_memory import memory_room, process_memory

_OF_A_MODEL = {
    "segserve_model_ready": "1 when a worker of the model has loaded it.",
    "segserve_model_workers": "Workers of the model, those that still load it too.",
    "segserve_model_ready_workers": "Workers that have loaded the model.",
    "segserve_model_queued": "Requests that wait for a worker of the model.",
    "segserve_model_batch_size": "Most images that a worker of the model takes at once.",
    "segserve_model_memory_bytes": "Resident memory of all workers of the model; what they share counts for each.",
    "segserve_worker_memory_bytes": "Resident memory of the model's largest worker.",
}


class MachineGauges:
    """Set anew for each scrape; a model that has gone has none.

    Args:
        registry: they belong to.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._of_a_model = {
            name: Gauge(name, meaning, ["model"], registry=registry) for name, meaning in _OF_A_MODEL.items()
        }
        self._memory_limit = Gauge(
            "segserve_memory_limit_bytes", "Memory of the machine, or of the container's limit.", registry=registry
        )
        self._memory_available = Gauge(
            "segserve_memory_available_bytes", "Memory that more workers could take.", registry=registry
        )
        self._disk_available = Gauge(
            "segserve_disk_available_bytes",
            "Disk left where TorchServe unpacks archives (the temporary folder).",
            registry=registry,
        )

    def set(self, models: Mapping[str, ModelStatus]) -> None:
        """Take what is so now. models: as the last poll saw them."""
        for gauge in self._of_a_model.values():
            gauge.clear()
        for status in models.values():
            for name, value in _values(status).items():
                self._of_a_model[name].labels(status.name).set(value)
        room = memory_room()
        if room is not None:
            self._memory_limit.set(room.limit)
            self._memory_available.set(room.available)
        self._disk_available.set(shutil.disk_usage(tempfile.gettempdir()).free)


def _values(status: ModelStatus) -> dict[str, float]:
    values: dict[str, float] = {
        "segserve_model_ready": int(status.ready),
        "segserve_model_workers": status.workers,
        "segserve_model_ready_workers": status.ready_workers,
        "segserve_model_batch_size": status.batch_size,
    }
    if status.queued is not None:
        values["segserve_model_queued"] = status.queued
    sizes = [size for pid in status.pids if (size := process_memory(pid)) is not None]
    if sizes:
        values |= {"segserve_model_memory_bytes": sum(sizes), "segserve_worker_memory_bytes": max(sizes)}
    return values
