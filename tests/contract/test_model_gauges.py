"""What /metrics tells of the models, their workers and the machine at the moment of a scrape."""

from __future__ import annotations

import os

import pytest
from fake_torchserve import FakeTorchServe
from gateways import OpenGateway, wait_for

from segserve.config import Settings
from segserve.machine_memory import process_memory
from segserve.torchserve.metric_samples import Samples


def test_workers_queue_and_memory_of_each_model(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    torchserve.models = {"grounded_sam": ["READY", "UNLOADING"], "balloons": ["UNLOADING"]}
    torchserve.pending, torchserve.pid = 7, os.getpid()
    gateway = open_gateway(Settings(models=("grounded_sam",)))

    def scraped() -> Samples:
        return Samples(gateway.get("/metrics").text)

    wait_for(lambda: scraped().labels("segserve_model_workers", "model") == ["balloons", "grounded_sam"])
    samples = scraped()
    expected = {"ready": (1, 0), "workers": (2, 1), "ready_workers": (1, 0), "queued": (7, 7), "batch_size": (4, 4)}
    for name, values in expected.items():
        for model, value in zip(("grounded_sam", "balloons"), values, strict=True):
            assert samples.values(f"segserve_model_{name}", model=model) == [value], (name, model)
    own = process_memory(os.getpid())
    (worker,) = samples.values("segserve_worker_memory_bytes", model="grounded_sam")
    assert worker == pytest.approx(own, rel=0.5)
    assert samples.values("segserve_model_memory_bytes", model="grounded_sam") == [pytest.approx(2 * worker, rel=0.1)]
    for name in ("segserve_memory_limit_bytes", "segserve_memory_available_bytes", "segserve_disk_available_bytes"):
        (value,) = samples.values(name)
        assert value > 0, name


def test_a_model_that_has_gone_has_no_gauges(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    torchserve.models = {"grounded_sam": ["READY"], "balloons": ["READY"]}
    # No process has this number: memory that cannot be read is left out, and nothing else is.
    torchserve.pid = 2**22 + 1
    gateway = open_gateway(Settings(models=("grounded_sam",)))

    def models() -> list[str]:
        return Samples(gateway.get("/metrics").text).labels("segserve_model_queued", "model")

    wait_for(lambda: models() == ["balloons", "grounded_sam"])
    assert "segserve_worker_memory_bytes{" not in gateway.get("/metrics").text
    del torchserve.models["balloons"]
    wait_for(lambda: models() == ["grounded_sam"])
