"""Models that come and go on a real TorchServe: loaded, asked, unloaded, and everything that goes wrong on the way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from servers import ADMIN_KEY, ROOT, Served, serving

from segserve.torchserve.archive import build_archive
from segserve.torchserve.management import Management

DEMO = ROOT / "weights" / "demo"


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What SageMaker would have unpacked, a folder for each model: two good ones and the broken."""
    folder = tmp_path_factory.mktemp("hosted").resolve()
    built = build_archive("semantic", DEMO / "semantic", tmp_path_factory.mktemp("built"))
    for name in ("rooms", "more", "broken", "several"):
        (folder / name / "model").mkdir(parents=True)
    (folder / "rooms" / "model" / "semantic.mar").symlink_to(shutil.copy(built, folder / "semantic.mar"))
    shutil.copy(built, folder / "more" / "model")
    for name in ("a.mar", "b.mar"):
        shutil.copy(built, folder / "several" / "model" / name)
    (folder / "no_archive.mar").write_bytes(b"this is no archive")
    with zipfile.ZipFile(built) as whole, zipfile.ZipFile(folder / "broken" / "model" / "broken.mar", "w") as broken:
        for entry in whole.namelist():
            data = whole.read(entry)
            broken.writestr(entry, data[: len(data) // 2] if entry.endswith(".safetensors") else data)
    (folder / "escape.mar").symlink_to(built)
    return folder


@pytest.fixture(scope="module")
def multi(hosted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that hosts many models, has none yet, and answers AWS clients. Its folder of models is read-only."""
    folder = tmp_path_factory.mktemp("multi")
    options = ("--multi-model", "--multi-model-dir", str(hosted), "--sagemaker-runtime")
    with serving(folder, folder, models=(), workers=1, options=options) as served:
        yield served


def load(served: Served, name: str, url: Path | str) -> requests.Response:
    return requests.post(f"{served.url}/models", json={"model_name": name, "url": str(url)}, timeout=300)


def ask(served: Served, name: str, image: bytes) -> requests.Response:
    return requests.post(
        f"{served.url}/models/{name}/invoke", data=image, headers={"Content-Type": "image/png"}, timeout=120
    )


def refused(response: requests.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == code
    return str(response.json()["error"]["message"])


def test_load_invoke_unload(multi: Served, hosted: Path, scene_png: bytes) -> None:
    assert requests.get(f"{multi.url}/ping", timeout=10).status_code == 200
    assert requests.get(f"{multi.url}/models", timeout=10).json() == {"models": []}
    refused(ask(multi, "0a1b2c", scene_png), 404, "model_not_found")

    loaded = load(multi, "0a1b2c", hosted / "rooms" / "model")
    assert loaded.status_code == 200, loaded.text
    answer = ask(multi, "0a1b2c", scene_png)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "0a1b2c" and "sofa" in answer.json()["results"][0]["classes"]
    refused(load(multi, "0a1b2c", hosted / "more" / "model"), 409, "already_loaded")
    unpacked = multi.address.key_file.parent / "tmp" / "models"
    assert len(list(unpacked.iterdir())) == 1

    assert requests.delete(f"{multi.url}/models/0a1b2c", timeout=120).status_code == 200
    refused(ask(multi, "0a1b2c", scene_png), 404, "model_not_found")
    refused(requests.delete(f"{multi.url}/models/0a1b2c", timeout=120), 404, "model_not_found")
    assert Management(multi.address).list() == []
    assert list(unpacked.iterdir()) == []
    assert requests.get(f"{multi.url}/ping", timeout=10).status_code == 200


def test_what_may_not_or_cannot_be_loaded(multi: Served, hosted: Path) -> None:
    outside = DEMO / "semantic"
    wrong: list[tuple[Path | str, str]] = [
        (outside, "elsewhere"),
        ("/etc/passwd", "elsewhere"),
        (hosted / "rooms" / ".." / ".." / "x", "elsewhere"),
        ("file:///etc", "elsewhere"),
        (hosted / "escape.mar", "elsewhere"),
        (hosted / "nothing", "there is none"),
        (hosted / "several" / "model", "it holds 2"),
        (hosted / "no_archive.mar", "not a model archive"),
    ]
    for url, told in wrong:
        message = refused(load(multi, "wrong", url), 400, "invalid_request")
        assert told in message and str(hosted) not in message
    assert Management(multi.address).list() == []


def test_a_model_whose_weights_are_broken_does_not_disturb_another(
    multi: Served, hosted: Path, scene_png: bytes
) -> None:
    assert load(multi, "good", hosted / "rooms" / "model").status_code == 200
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(load, multi, "broken", hosted / "broken" / "model")
        answers = [ask(multi, "good", scene_png).status_code]
        while not loading.done():
            answers.append(ask(multi, "good", scene_png).status_code)
        message = refused(loading.result(), 400, "load_failed")
    assert set(answers) == {200}
    assert "model.safetensors cannot be read" in message and "/" not in message.split(": ", 1)[1]
    assert Management(multi.address).list() == ["good"]
    listed = requests.get(f"{multi.url}/models", timeout=10).json()["models"]
    assert [model["modelName"] for model in listed] == ["good"]
    assert requests.get(f"{multi.url}/readyz", timeout=10).json()["models"] == ["good"]


def test_requests_at_work_are_answered_when_a_model_is_unloaded(multi: Served, hosted: Path, scene_png: bytes) -> None:
    """Twelve requests at one worker, and the model is unloaded meanwhile: each has an answer, or is told of it."""
    if requests.get(f"{multi.url}/models/good", timeout=10).status_code == 404:
        assert load(multi, "good", hosted / "rooms" / "model").status_code == 200
    with ThreadPoolExecutor(13) as pool:
        asked = [pool.submit(ask, multi, "good", scene_png) for _ in range(12)]
        next(as_completed(asked))
        unloaded = pool.submit(requests.delete, f"{multi.url}/models/good", timeout=120)
        statuses = [each.result().status_code for each in asked]
        assert unloaded.result().status_code == 200
    assert statuses.count(200) >= 1 and set(statuses) <= {200, 404}
    assert Management(multi.address).list() == []


def test_an_aws_client_asks_the_target_model(multi: Served, hosted: Path, scene_png: bytes) -> None:
    assert load(multi, "rooms", hosted / "more" / "model").status_code == 200
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=multi.url,
        region_name="eu-central-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=Config(retries={"total_max_attempts": 1}),
    )
    wanted: dict[str, Any] = {"EndpointName": "demo", "Body": scene_png, "ContentType": "image/png"}
    answer = client.invoke_endpoint(**wanted, TargetModel="rooms.tar.gz", SessionId="NEW_SESSION", InferenceId="one")
    assert json.load(answer["Body"])["model"] == "rooms"
    session = answer["NewSessionId"].partition(";")[0]
    again = client.invoke_endpoint(**wanted, TargetModel="rooms.tar.gz", SessionId=session)
    assert again["ResponseMetadata"]["HTTPStatusCode"] == 200
    with pytest.raises(client.exceptions.ModelError) as caught:
        client.invoke_endpoint(**wanted, TargetModel="sofas.tar.gz")
    assert caught.value.response["OriginalStatusCode"] == 404
    assert requests.delete(f"{multi.url}/models/rooms", timeout=120).status_code == 200


def segserve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segserve.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def one_worker_left(served: Served) -> None:
    """Wait until one worker process is left; the others are killed by then, but may take a moment to go."""
    deadline = time.monotonic() + 30
    while len(served.workers) != 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(served.workers) == 1


def test_register_and_unregister_while_another_model_is_served(served: Served, store: Path, scene_png: bytes) -> None:
    """Through the record of this machine's service, then with the admin key; grounded_sam answers on."""
    archive = build_archive("semantic", DEMO / "semantic", store)
    try:
        registered = segserve("register", str(archive), "--name", "rooms", "--port", str(served.port))
        assert (registered.returncode, registered.stdout.strip()) == (0, "rooms is ready"), registered.stderr
        assert ask(served, "rooms", scene_png).json()["model"] == "rooms"
        assert len(served.workers) == 2
        down = segserve("scale", "rooms", "--min", "0", "--max", "1", "--port", str(served.port))
        assert down.returncode == 0, down.stderr
        one_worker_left(served)
        taken = segserve("register", "semantic.mar", "--name", "rooms", "--port", str(served.port))
        assert taken.returncode == 1 and taken.stderr.startswith("segserve register: A model 'rooms' is loaded already")
        assert load(served, "more", "semantic.mar").status_code == 401
        wrong = segserve("unregister", "rooms", "--url", served.url, "--admin-key", "wrong")
        assert wrong.returncode == 1 and "admin key" in wrong.stderr
        gone = segserve("unregister", "rooms", "--url", served.url, "--admin-key", ADMIN_KEY)
        assert (gone.returncode, gone.stdout.strip()) == (0, "rooms is unloaded"), gone.stderr
        one_worker_left(served)
        assert segserve("unregister", "rooms", "--port", str(served.port)).returncode == 1
    finally:
        archive.unlink()
    assert requests.get(f"{served.url}/readyz", timeout=10).json()["models"] == ["grounded_sam"]
