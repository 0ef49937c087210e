"""Many callers at once, mixed batches, and workers that die under load."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import requests
from servers import SCENE_SEED, Served, serving

from segserve import imaging
from segserve.training.scenes import default_size, make_scene

PROMPTS = ("floor. wall.", "sofa. chair. table. floor.", "ceiling.", "dog. window. door. floor. plant.")


def pictures(count: int) -> list[bytes]:
    """Encoded scenes of different sizes, alternately PNG and JPEG."""
    scenes = [make_scene(SCENE_SEED + 300 + index) for index in range(count)]
    assert len({default_size(scene.seed) for scene in scenes}) > 1
    return [imaging.encode(scene.image, "JPEG" if index % 2 else "PNG") for index, scene in enumerate(scenes)]


def ask(served: Served, image: bytes, text: str) -> requests.Response:
    form = {"request": (None, json.dumps({"prompt": {"text": text}}), "application/json"), "image": ("room", image)}
    return requests.post(f"{served.url}/v1/segment", files=form, timeout=120)


def found(response: requests.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    instances: list[dict[str, Any]] = response.json()["results"][0]["instances"]
    return instances


def assert_same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    """The same objects: labels, boxes within half a pixel, scores within a thousandth, areas within a percent."""

    def ordered(instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(instances, key=lambda each: (each["label"], each["box"]))

    assert [each["label"] for each in ordered(first)] == [each["label"] for each in ordered(second)]
    for one, other in zip(ordered(first), ordered(second), strict=True):
        np.testing.assert_allclose(one["box"], other["box"], atol=0.5)
        np.testing.assert_allclose(one["score"], other["score"], atol=1e-3)
        np.testing.assert_allclose(one["area"], other["area"], rtol=0.01, atol=5)


def test_twenty_clients_each_get_their_own_answer(served: Served):
    images = pictures(5)
    jobs = [(image, text) for image in images for text in PROMPTS]
    assert len(jobs) == 20
    alone = [found(ask(served, *job)) for job in jobs]
    assert sum(map(len, alone)) > 20
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda job: found(ask(served, *job)), jobs))
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


def test_one_broken_image_spoils_no_batch(served: Served):
    good = pictures(6)
    broken = good[0][: len(good[0]) // 2]
    alone = [found(ask(served, image, "floor. wall.")) for image in good]
    with ThreadPoolExecutor(7) as pool:
        answers = list(pool.map(lambda image: ask(served, image, "floor. wall."), [*good[:3], broken, *good[3:]]))
    refused = answers.pop(3)
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "undecodable_image"
    for expected, answer in zip(alone, answers, strict=True):
        assert_same(expected, found(answer))


def test_one_request_of_many_images_keeps_the_good_ones(served: Served):
    good = pictures(3)
    files = [("image", ("room", image)) for image in (good[0], b"no image", good[1], good[2][:500])]
    body = ("request", (None, json.dumps({"prompt": {"text": "floor."}}), "application/json"))
    response = requests.post(f"{served.url}/v1/segment", files=[*files, body], timeout=120)
    assert response.status_code == 200
    results = response.json()["results"]
    assert [result.get("error", {}).get("code") for result in results] == [
        None,
        "not_an_image",
        None,
        "undecodable_image",
    ]
    assert all(result["instances"][0]["label"] == "floor" for result in (results[0], results[2]))


def test_a_worker_killed_under_load_costs_no_answer(store: Path, tmp_path: Path):
    image = pictures(2)[0]
    statuses: Counter[int] = Counter()
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            statuses[ask(served, image, "floor. wall.").status_code] += 1

    with serving(tmp_path, store, workers=2, batch_size=2, batch_delay_ms=20) as served:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(client)
            wait_for(lambda: statuses.total() >= 16)
            victim = served.workers[0]
            victim.send_signal(signal.SIGKILL)
            victim.wait(10)
            before = statuses.total()
            wait_for(lambda: statuses.total() >= before + 60)
            stop.set()
        assert set(statuses) == {200}
        wait_for(lambda: len(served.workers) == 2)
        metrics = requests.get(f"{served.url}/metrics", timeout=10).text
        retries = re.search(r'^segserve_worker_retries_total\{model="grounded_sam"\} ([\d.]+)$', metrics, re.MULTILINE)
        assert retries is not None and float(retries[1]) >= 1


def wait_for(condition: Any, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
