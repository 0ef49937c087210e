"""Seed 004's routes before a real TorchServe with the demo weights, both engines; and their example client."""

from __future__ import annotations

import functools
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from servers import ROOT, Served, serving
from test_examples import EXAMPLES, run

from segserve.torchserve.archive import build_archive
from segserve.training.scenes import CATEGORIES, Scene

WEIGHTS = ROOT / "weights" / "demo" / "semantic"
ENGINES = ("torch", "onnx")


@pytest.fixture(scope="module")
def infer_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demo weights and their export, with one worker."""
    folder = tmp_path_factory.mktemp("infer")
    build_archive("semantic", WEIGHTS, folder / "model_store")
    with serving(folder / "served", folder / "model_store", models=("semantic",), workers=1) as service:
        yield service


@pytest.fixture(scope="module")
def room(scene_png: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The scene as a file, and its address on a server of files."""
    file = tmp_path_factory.mktemp("pictures") / "room.png"
    file.write_bytes(scene_png)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(file.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield file, f"http://127.0.0.1:{server.server_port}/room.png"
        server.shutdown()
        thread.join()


def logits_of(served: Served, image: bytes, engine: str) -> np.ndarray:
    """As /v1/segment has them."""
    query = {"model": "semantic", "engine": engine, "output": "logits", "size": "model"}
    headers = {"Content-Type": "image/png", "Accept": "application/x-npy"}
    answer = requests.post(f"{served.url}/v1/segment", params=query, data=image, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    logits: np.ndarray = np.load(io.BytesIO(answer.content))
    return logits


def asked(served: Served, path: str, status: int = 200, **form: Any) -> dict[str, Any]:
    """What the seed's client gets: a form of fields, with a file or without."""
    answer = requests.post(f"{served.url}{path}", timeout=60, **form)
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("engine", ENGINES)
def test_the_three_results_are_those_of_the_tensor(
    infer_served: Served, scene: Scene, room: tuple[Path, str], engine: str
) -> None:
    file, address = room
    logits = logits_of(infer_served, file.read_bytes(), engine)
    powers = np.exp(logits - logits.max(axis=0))
    expected = {
        "logits": logits,
        "pixels_distribution": powers / powers.sum(axis=0),
        "segmentation_map": logits.argmax(axis=0),
    }
    with file.open("rb") as stream:
        sent = {"data": {"infer_model_type": engine}, "files": {"file": ("room.png", stream, "image/png")}}
        by_file = asked(infer_served, "/infer/file", **sent)
    assert (by_file["Status"], by_file["infer_model_type"], by_file["image_type"]) == ("OK", engine, "file")
    assert list(by_file["requested_results"]) == list(expected)
    for name, values in expected.items():
        assert np.array_equal(np.array(by_file["requested_results"][name], values.dtype), values), name
    form = {"infer_model_type": engine, "requested_results_types": ["segmentation_map", "mood"], "url_image": address}
    by_url = asked(infer_served, "/infer/url/", data=form)
    assert (by_url["infer_model_type"], by_url["image_type"]) == (engine, "url")
    results = {"segmentation_map": expected["segmentation_map"].tolist(), "mood": "result type not supported"}
    assert by_url["requested_results"] == results
    height, width = logits.shape[1:]
    truth = np.asarray(
        Image.fromarray(scene.semantic.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    )
    assert (np.array(results["segmentation_map"]) == truth).mean() > 0.85, "it is the picture's map"


def test_wrong_values_are_the_seeds_value_errors(infer_served: Served, room: tuple[Path, str]) -> None:
    _, address = room
    wrong = {"infer_model_type": "tensorflow", "url_image": address}
    told = asked(infer_served, "/infer/url", 401, data=wrong)["detail"]
    assert told == "Fail! Value error: infer_model_type: expected torch or onnx, came 'tensorflow'."
    broken = {"data": {"infer_model_type": "onnx"}, "files": {"file": ("room.png", b"no picture")}}
    assert asked(infer_served, "/infer/file/", 401, **broken)["detail"].startswith(
        "Fail! Value error: The bytes are not"
    )
    assert requests.get(f"{infer_served.url}/healthcheck/", timeout=10).json() == {"status": "live"}


@pytest.mark.parametrize("curl", sorted({shutil.which("curl") or "", ""}))
def test_documented_curl_works(infer_served: Served, room: tuple[Path, str], tmp_path: Path, curl: str) -> None:
    """The command of docs/api.md, word for word but for address and file; without curl, a stand-in runs it."""
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("curl") and "/infer/file " in line]
    line = line.replace("http://127.0.0.1:8080", infer_served.url).replace("room.jpg", str(room[0]))
    program = [curl] if curl else [sys.executable, str(Path(__file__).with_name("curl_stand_in.py"))]
    subprocess.run([*program, *shlex.split(line)[1:]], cwd=tmp_path, check=True)
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert (answer["infer_model_type"], list(answer["requested_results"])) == ("onnx", ["logits", "segmentation_map"])


def test_semantic_client(infer_served: Served, room: tuple[Path, str], tmp_path: Path) -> None:
    """Both routes; the viewer that --show opens is a program that notes what it is shown."""
    file, address = room
    noted, viewer = tmp_path / "shown.txt", tmp_path / "xdg-open"
    viewer.write_text(f'#!/bin/sh\necho "$1" >> "{noted}"\n')
    viewer.chmod(0o755)
    command = [sys.executable, EXAMPLES / "semantic_client.py", file, address, "--out", tmp_path / "maps", "--show"]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    printed = run(*command, "--engine", "onnx", "--url", infer_served.url, path=path)
    labels = logits_of(infer_served, file.read_bytes(), "onnx").argmax(axis=0)
    by_file, by_url = (Image.open(tmp_path / "maps" / name) for name in ("1_room.png", "2_room.png"))
    for picture in (by_file, by_url):
        assert np.array_equal(np.asarray(picture), labels), "a pixel is the number of its class"
        shares = np.bincount(labels.ravel(), minlength=len(CATEGORIES)) / labels.size
        for name, share in zip(CATEGORIES, shares, strict=True):
            assert printed.count(f"  {name:<16} {share:6.1%}\n") == (2 if share else 0)
    wait_until(lambda: noted.exists() and len(noted.read_text().splitlines()) == 2)
    for shown in map(Path, noted.read_text().splitlines()):
        assert np.array_equal(*(np.asarray(picture.convert("RGB")) for picture in (Image.open(shown), by_file)))
        shown.unlink()


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"did not become true within {seconds:g} s"
        time.sleep(0.05)
