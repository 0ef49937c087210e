"""What workers say of their embedding caches, and of their time, in the gateway's metrics."""

from __future__ import annotations

import pytest
from fake_torchserve import FakeTorchServe
from gateways import OpenGateway
from pictures import png, source
from starlette.testclient import TestClient

from segserve.config import Settings

SAM2 = {"model": "sam2", "prompt": {"points": [[3, 4, 1]]}}


@pytest.fixture
def clicks(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> TestClient:
    """A gateway whose only model is sam2."""
    torchserve.models = {"sam2": ["READY"]}
    return open_gateway(Settings(models=("sam2",)))


def ask(gateway: TestClient, **changes: object) -> None:
    answer = gateway.post("/v1/segment", json={**SAM2, "images": [source(png())], **changes})
    assert answer.status_code == 200, answer.text


def metrics(gateway: TestClient) -> str:
    return str(gateway.get("/metrics").text)


def test_hits_misses_bytes_and_times(clicks: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.headers = {
        "X-Segserve-Cache": "miss",
        "X-Segserve-Cache-Bytes": "4096",
        "X-Segserve-Model-Ms": "812.5",
    }
    ask(clicks)
    assert 'segserve_embedding_cache_total{model="sam2",outcome="miss"} 1.0' in metrics(clicks)
    torchserve.headers |= {"X-Segserve-Cache": "hit", "X-Segserve-Model-Ms": "8.0", "X-Segserve-Cache-Bytes": "8192"}
    ask(clicks)
    ask(clicks)
    shown = metrics(clicks)
    assert 'segserve_embedding_cache_total{model="sam2",outcome="miss"} 1.0' in shown
    assert 'segserve_embedding_cache_total{model="sam2",outcome="hit"} 2.0' in shown
    assert 'segserve_embedding_cache_bytes{model="sam2"} 8192.0' in shown
    assert 'segserve_worker_seconds_count{cache="hit",model="sam2"} 2.0' in shown
    assert 'segserve_worker_seconds_sum{cache="hit",model="sam2"} 0.016' in shown
    assert 'segserve_worker_seconds_sum{cache="miss",model="sam2"} 0.8125' in shown


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Segserve-Cache": "perhaps", "X-Segserve-Cache-Bytes": "many", "X-Segserve-Model-Ms": "-3"},
        {"X-Segserve-Cache": "", "X-Segserve-Cache-Bytes": "nan", "X-Segserve-Model-Ms": "inf"},
    ],
)
def test_a_worker_that_says_nothing_or_nonsense(
    clicks: TestClient, torchserve: FakeTorchServe, headers: dict[str, str]
) -> None:
    torchserve.headers = headers
    ask(clicks)
    assert 'model="sam2"' not in "".join(
        line for line in metrics(clicks).splitlines() if line.startswith(("segserve_embedding", "segserve_worker_sec"))
    )


def test_a_model_without_a_cache_has_its_time_only(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.headers = {"X-Segserve-Model-Ms": "20"}
    ask(gateway, model="grounded_sam", prompt={"text": "sofa."})
    shown = metrics(gateway)
    assert 'segserve_worker_seconds_sum{cache="none",model="grounded_sam"} 0.02' in shown
    assert "segserve_embedding_cache_total{" not in shown


def test_objects_reach_the_worker_and_their_indices_the_caller(clicks: TestClient, torchserve: FakeTorchServe) -> None:
    found = {"label": "object 2", "score": 0.5, "box": [0, 0, 1, 1], "area": 1, "object": 1, "low_res": "bm9uZQ=="}
    mask = {"size": [48, 64], "counts": ""}
    torchserve.react = lambda data, prompt: (200, {"width": 64, "height": 48, "instances": [{**found, "mask": mask}]})
    objects = [{"points": [[3, 4, 1], [5, 6, 0]], "mask": "AAAA"}, {"box": [1, 2, 8, 9]}]
    body = {"model": "sam2", "images": [source(png())], "prompt": {"objects": objects}, "parameters": {"low_res": True}}
    answer = clicks.post("/v1/segment", json={**body, "mask_format": "rle"})
    assert answer.status_code == 200, answer.text
    (seen,) = torchserve.seen
    assert seen[1]["objects"] == [
        {"points": [[3.0, 4.0, 1], [5.0, 6.0, 0]], "mask": "AAAA"},
        {"box": [1.0, 2.0, 8.0, 9.0]},
    ]
    assert seen[1]["parameters"] == {"low_res": True}
    (instance,) = answer.json()["results"][0]["instances"]
    assert (instance["object"], instance["low_res"]) == (1, "bm9uZQ==")
