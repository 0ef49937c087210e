"""What differs from one container to the next: mounted models, variables, users."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from engine import STOP_S, Container, Engine

from segserve import imaging
from segserve.training.scenes import Scene

ROOT = Path(__file__).parents[2]
SEMANTIC = ROOT / "weights" / "demo" / "semantic"


def names(container: Container, **headers: str) -> list[str]:
    """The models that it serves."""
    answer = requests.get(f"{container.url}/v1/models", headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text[:300]
    return [model["name"] for model in answer.json()["models"]]


def test_a_mounted_archive_is_served_in_place_of_the_demo(
    engine: Engine, start: Callable[..., Container], artifacts: Path, scene: Scene
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (artifacts, *artifacts.iterdir())}
    environment = {
        "SAGEMAKER_BIND_TO_PORT": "9090",
        "SAGEMAKER_SAFE_PORT_RANGE": "21000-21999",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        "SEGSERVE_API_KEYS": "key-of-the-test",
        "SEGSERVE_LOG_FORMAT": "json",
    }
    variables = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
    # A user that the image has never heard of, as some platforms run containers.
    options = (*engine.hardened, "--user", "4242:4242", "--volume", f"{artifacts}:/opt/ml/model:ro", *variables)
    container = start("serve", options=options, port=9090)
    container.wait_ready()
    assert container.is_healthy() or not engine.is_podman
    assert requests.get(f"{container.url}/v1/models", timeout=30).status_code == 401
    assert names(container, **{"X-API-Key": "key-of-the-test"}) == ["rooms"]
    headers = {
        "Content-Type": "image/png",
        "X-Amzn-SageMaker-Custom-Attributes": "model=rooms",
        "X-API-Key": "key-of-the-test",
    }
    answer = requests.post(
        f"{container.url}/invocations", data=imaging.encode(scene.image), headers=headers, timeout=70
    )
    assert answer.status_code == 200 and "pixel_fraction" in answer.json()["results"][0]
    workers = container.execute("python3", "-c", _COUNT_WORKERS)
    assert workers.strip() == "2"
    container.kill("TERM")
    assert container.wait(STOP_S) == 0
    assert {path: path.stat().st_mtime_ns for path in (artifacts, *artifacts.iterdir())} == before


_COUNT_WORKERS = """
import glob
lines = [open(path).read() for path in glob.glob('/proc/[0-9]*/cmdline')]
print(sum('model_service_worker.py' in line and 'cmdline' not in line for line in lines))
"""


def test_models_come_and_go_in_multi_model_mode(
    engine: Engine, start: Callable[..., Container], artifacts: Path, tmp_path: Path, scene: Scene
) -> None:
    # As SageMaker lays out a model.tar.gz of a multi-model endpoint.
    loaded = tmp_path / "4711" / "model"
    loaded.mkdir(parents=True)
    shutil.copy(artifacts / "rooms.mar", loaded)
    for place in (tmp_path, *tmp_path.parents[:2], tmp_path / "4711", loaded):
        place.chmod(0o755)
    options = (*engine.hardened, "--env", "SAGEMAKER_MULTI_MODEL=true", "--volume", f"{tmp_path}:/opt/ml/models:ro")
    container = start("serve", options=options)
    container.wait_ready()
    assert requests.get(f"{container.url}/models", timeout=30).json()["models"] == []
    body = {"model_name": "4711", "url": "/opt/ml/models/4711/model"}
    assert requests.post(f"{container.url}/models", json=body, timeout=120).status_code == 200
    assert requests.post(f"{container.url}/models", json=body, timeout=120).status_code == 409
    image = {"base64": base64.b64encode(imaging.encode(scene.image)).decode("ascii")}
    request: dict[str, Any] = {"model": "4711", "images": [image]}
    answer = requests.post(f"{container.url}/models/4711/invoke", json=request, timeout=70)
    assert answer.status_code == 200 and "pixel_fraction" in answer.json()["results"][0]
    assert requests.delete(f"{container.url}/models/4711", timeout=60).status_code == 200
    assert requests.post(f"{container.url}/models/4711/invoke", json=request, timeout=70).status_code == 404
    container.kill("TERM")
    assert container.wait(STOP_S) == 0


def test_a_model_for_which_the_containers_memory_is_not_enough_gets_a_507(
    engine: Engine, start: Callable[..., Container], artifacts: Path
) -> None:
    memory = ("--memory", "1600m", "--memory-swap", "1600m")
    options = (*memory, "--env", "SAGEMAKER_MULTI_MODEL=true", "--volume", f"{artifacts}:/opt/ml/models:ro")
    container = start("serve", options=(*engine.hardened, *options))
    container.wait_ready()

    def load(name: str) -> requests.Response:
        body = {"model_name": name, "url": "/opt/ml/models/rooms.mar"}
        return requests.post(f"{container.url}/models", json=body, timeout=120)

    assert load("first").status_code == 200
    refused = load("second")
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "no_room")
    assert [model["modelName"] for model in requests.get(f"{container.url}/models", timeout=30).json()["models"]] == [
        "first"
    ]
    # As SageMaker makes room, and asks again.
    assert requests.delete(f"{container.url}/models/first", timeout=60).status_code == 200
    assert load("second").status_code == 200


def test_without_an_archive_it_ends_and_says_where_it_looked(engine: Engine, start: Callable[..., Container]) -> None:
    container = start("serve", options=(*engine.hardened, "--env", "SEGSERVE_MODEL_STORE=/opt/ml/model:/tmp"))
    assert container.wait(60) == 1
    assert "No model archive in /opt/ml/model or /tmp" in container.logs()


def test_it_packs_weights_of_ones_own(engine: Engine, image: str, tmp_path: Path) -> None:
    weights, out = tmp_path / "weights", tmp_path / "out"
    shutil.copytree(SEMANTIC, weights)
    out.mkdir()
    for place in (tmp_path, *tmp_path.parents[:2], weights):
        place.chmod(0o755)
    out.chmod(0o777)
    volumes = ("--volume", f"{weights}:/weights:ro", "--volume", f"{out}:/out")
    engine.run(
        image,
        *("archive", "semantic", "--weights", "/weights", "--name", "mine", "--out", "/out"),
        options=(*engine.hardened, *volumes),
    )
    assert [path.name for path in out.iterdir()] == ["mine.mar"]
