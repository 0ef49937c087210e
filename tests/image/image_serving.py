"""The image as SageMaker runs it, `IMAGE serve` without an option, on a system where nothing but /tmp is writable."""

from __future__ import annotations

import base64
import contextlib
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests
from engine import STOP_S, Container, Engine, EngineError

from segserve import imaging, label_maps, masks
from segserve.training.scenes import CATEGORIES, Scene

LEAST_IOU = 0.6


@pytest.fixture(scope="module")
def served(engine: Engine, start: Callable[..., Container], figures: dict[str, Any]) -> Container:
    """The demo models, ready."""
    container = start("serve", options=engine.hardened)
    figures["ready_s"] = round(container.wait_ready(), 1)
    return container


def question(scene: Scene, model: str, **fields: Any) -> dict[str, Any]:
    """A body for /invocations about a scene's picture."""
    image = {"base64": base64.b64encode(imaging.encode(scene.image)).decode("ascii")}
    return {"model": model, "images": [image], **fields}


def ask(container: Container, body: dict[str, Any]) -> dict[str, Any]:
    """The result that /invocations answers with."""
    answer = requests.post(f"{container.url}/invocations", json=body, timeout=70)
    assert answer.status_code == 200, answer.text[:500]
    (result,) = answer.json()["results"]
    return dict(result)


def invoke(container: Container, scene: Scene, model: str, **fields: Any) -> dict[str, Any]:
    """The result for a scene's picture, of its size."""
    result = ask(container, question(scene, model, **fields))
    assert (result["height"], result["width"]) == scene.image.shape[:2], str(result)[:500]
    return result


def best_iou(scene: Scene, category: str, result: dict[str, Any]) -> float:
    """How well an instance of that label meets the largest object of a category."""
    objects = [thing for thing in scene.objects if thing.category == category]
    truth = scene.mask(max(objects, key=lambda thing: thing.area))
    found = [masks.decode_rle(one["mask"]) for one in result["instances"] if one["label"] == category]
    return max((masks.iou(mask, truth) for mask in found), default=0.0)


def test_grounded_sam_finds_the_floor_by_its_name_and_nothing_else(served: Container, scene: Scene) -> None:
    result = invoke(served, scene, "grounded_sam", prompt={"text": "floor."})
    assert {one["label"] for one in result["instances"]} == {"floor"}
    assert best_iou(scene, "floor", result) >= LEAST_IOU


def test_mask_rcnn_finds_the_rooms_parts_without_a_prompt(served: Container, scene: Scene) -> None:
    result = invoke(served, scene, "mask_rcnn", parameters={"score_threshold": 0.5})
    assert {one["label"] for one in result["instances"]} <= set(CATEGORIES)
    assert min(best_iou(scene, category, result) for category in ("floor", "wall")) >= LEAST_IOU


def test_sam2_segments_what_is_clicked_on(served: Container, scene: Scene) -> None:
    floor = scene.semantic == CATEGORIES.index("floor")
    rows, columns = np.nonzero(floor)
    middle = len(rows) // 2
    point = [int(columns[middle]), int(rows[middle]), 1]
    result = invoke(served, scene, "sam2", prompt={"points": [point]})
    # By falling score: the first is the best guess at what was meant.
    one = result["instances"][0]
    assert masks.iou(masks.decode_rle(one["mask"]), floor) >= LEAST_IOU


def test_semantic_names_most_pixels_rightly(served: Container, scene: Scene) -> None:
    result = invoke(served, scene, "semantic")
    labels = label_maps.decode_png(base64.b64decode(result["label_map"]))
    named = np.array([CATEGORIES.index(name) for name in result["classes"]])[labels]
    assert (named == scene.semantic).mean() >= 0.75


def test_it_runs_without_root_capabilities_or_a_writable_system(served: Container) -> None:
    status = dict(
        line.split(":\t", 1) for line in served.execute("cat", "/proc/1/status").splitlines() if ":\t" in line
    )
    assert set(status["Uid"].split()) == {"10001"}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    write = (
        "import errno\ntry: open('/opt/segserve/x', 'w')\nexcept OSError as error: print(errno.errorcode[error.errno])"
    )
    assert served.execute("python3", "-c", write).strip() in ("EROFS", "EACCES")


def test_torchserve_listens_within_the_container_only(served: Container) -> None:
    # Local addresses of listening sockets, in hexadecimal: 0100007F is 127.0.0.1, also mapped to IPv6; 1F90 is 8080.
    lines = served.execute("cat", "/proc/1/net/tcp", "/proc/1/net/tcp6").splitlines()
    listening = {fields[1] for line in lines if (fields := line.split())[3] == "0A"}
    loopback = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")
    reachable = {address for address in listening if not address.startswith(loopback)}
    assert {address.rpartition(":")[2] for address in reachable} == {"1F90"}
    assert len(listening) > len(reachable)


def test_its_health_check_passes(served: Container) -> None:
    deadline = time.monotonic() + 40
    while not served.is_healthy() and time.monotonic() < deadline:
        time.sleep(2)
    assert served.is_healthy()


def test_a_worker_that_is_killed_comes_back_and_leaves_no_zombie(served: Container, scene: Scene) -> None:
    find = """
import os, signal
for pid in (name for name in os.listdir('/proc') if name.isdigit()):
    words = open(f'/proc/{pid}/cmdline').read().split('\\0')
    if 'semantic' in words and any('model_service_worker' in word for word in words): os.kill(int(pid), signal.SIGKILL)
"""
    served.execute("python3", "-c", find)
    deadline = time.monotonic() + 90
    served_again = False
    while not served_again and time.monotonic() < deadline:
        time.sleep(1)
        served_again = served.ping() == 200
    assert "label_map" in invoke(served, scene, "semantic")
    states = "import glob; print([open(p).read().rsplit(')', 1)[1].split()[0] for p in glob.glob('/proc/[0-9]*/stat')])"
    assert "Z" not in served.execute("python3", "-c", states)


def test_sigterm_answers_what_is_in_flight_and_ends_with_0(
    served: Container, scene: Scene, figures: dict[str, Any]
) -> None:
    body = question(scene, "grounded_sam", prompt={"text": "floor."})
    with ThreadPoolExecutor(6) as pool:
        pending = [pool.submit(ask, served, body) for _ in range(6)]
        while not any(request.done() for request in pending):
            time.sleep(0.01)
        unanswered = sum(not request.done() for request in pending)
        started = time.monotonic()
        served.kill("TERM")
        assert all(request.result()["instances"] for request in pending)
    assert unanswered >= 3
    assert served.wait(STOP_S) == 0
    figures["stopped_after_s"] = round(time.monotonic() - started, 1)
    assert "Traceback" not in served.logs()


def test_the_death_of_torchserve_ends_the_container_with_1(engine: Engine, start: Callable[..., Container]) -> None:
    container = start("serve", options=(*engine.hardened, "--env", "SEGSERVE_MODELS=semantic"))
    container.wait_ready()
    find = """
import os, signal
for pid in (name for name in os.listdir('/proc') if name.isdigit()):
    if open(f'/proc/{pid}/comm').read().strip() == 'java': os.kill(int(pid), signal.SIGKILL)
"""
    container.execute("python3", "-c", find)
    assert container.wait(STOP_S) == 1
    assert "TorchServe died (killed by SIGKILL)" in container.logs()


def test_a_signal_before_anything_has_loaded_ends_it_too(engine: Engine, start: Callable[..., Container]) -> None:
    # With little of a processor loading takes so long that the signal is there first, however busy the machine is.
    container = start("serve", options=(*engine.hardened, "--cpus", "0.2"))
    deadline = time.monotonic() + STOP_S
    # Once Python runs; before that the kernel drops what a first process has no handler for.
    while container.exit_code() is None and time.monotonic() < deadline:
        with contextlib.suppress(EngineError):
            container.kill("TERM")
        time.sleep(0.1)
    # Not 0, with which the service itself answers a signal: it had not begun.
    assert container.exit_code() == 128 + signal.SIGTERM
