"""How a service ends: by a signal, by the death of TorchServe, or before it began."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests
from servers import ROOT, Served, serving

from segserve.errors import NotFoundError
from segserve.torchserve.running import find_running


def segment(served: Served, image: bytes) -> int:
    """Status of one request through the gateway."""
    request = {"model": "grounded_sam", "prompt": {"text": "floor. wall. sofa."}}
    form = {"request": (None, json.dumps(request), "application/json"), "image": ("scene.png", image)}
    return requests.post(f"{served.url}/v1/segment", files=form, timeout=120).status_code


def assert_all_gone(family: list[psutil.Process], key_folder: Path, port: int) -> None:
    """No process, no temporary folder and no record is left."""
    _, alive = psutil.wait_procs(family, timeout=5)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert not key_folder.exists()
    with pytest.raises(NotFoundError):
        find_running(port)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_sigterm_answers_what_is_in_flight_and_leaves_nothing(store: Path, tmp_path: Path, scene_png: bytes):
    with serving(tmp_path, store, workers=1) as served:
        family, key_file = served.family(), served.address.key_file
        assert key_file is not None
        assert len(family) >= 3
        with ThreadPoolExecutor(8) as pool:
            pending = [pool.submit(segment, served, scene_png) for _ in range(8)]
            while not any(request.done() for request in pending):
                time.sleep(0.005)
            served.process.send_signal(signal.SIGTERM)
            unanswered = sum(not request.done() for request in pending)
            statuses = [request.result() for request in pending]
        assert unanswered >= 4
        assert statuses == [200] * 8
        assert served.process.wait(45) == 0
        assert_all_gone(family, key_file.parent, served.port)


def test_the_death_of_torchserve_ends_the_service_with_the_reason(store: Path, tmp_path: Path):
    with serving(tmp_path, store, workers=1) as served:
        family, key_file = served.family(), served.address.key_file
        assert key_file is not None
        served.java.send_signal(signal.SIGKILL)
        assert served.process.wait(45) == 1
        assert "segserve serve: TorchServe died (killed by SIGKILL)" in served.printed()
        assert_all_gone(family, key_file.parent, served.port)


def serve_to_its_end(*options: str) -> subprocess.CompletedProcess[str]:
    """A service that cannot start."""
    command = [sys.executable, "-m", "segserve.cli", "serve", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_a_port_in_use_is_said_in_one_line(store: Path, tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        common = ("--model-store", str(store), "--log-dir", str(tmp_path))
        for options in (("--port", port), ("--port", "0", "--torchserve-inference-port", port)):
            done = serve_to_its_end(*options, *common)
            assert done.returncode == 1
            (line,) = done.stderr.strip().splitlines()
            assert line.startswith(f"segserve serve: Port {port}")
            assert "in use" in line


def test_nothing_to_serve_is_said_in_one_line(store: Path, tmp_path: Path):
    for options, named in (
        (("--model-store", str(tmp_path)), "segserve archive demo"),
        (("--model-store", str(store), "--models", "nothing"), "'nothing'"),
        (("--model-store", str(store), "--workers", "0"), "workers"),
    ):
        done = serve_to_its_end("--port", "0", *options)
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert named in line
