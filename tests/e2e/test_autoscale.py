"""``segserve autoscale`` on a real service: load makes workers, quiet takes them away, the gateway does as well."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import ADMIN_KEY, Served

from segserve.cli import main
from segserve.client import Client
from segserve.closed_loop import post_request, run_load
from segserve.torchserve.management import Management

MODEL = "grounded_sam"
DEADLINE_S = 240.0


def arguments(served: Served, *options: str, remote: bool = False) -> list[str]:
    where = ["--url", served.url, "--admin-key", ADMIN_KEY] if remote else ["--port", str(served.port)]
    return ["autoscale", MODEL, *where, *options]


def wait_for(condition: Callable[[], bool], what: str, told: Callable[[], str]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_S:g} s: {what}\n{told()}"
        time.sleep(0.2)


def workers(served: Served) -> int:
    return len(Management(served.address).describe(MODEL).workers)


@pytest.fixture(autouse=True)
def _one_worker_again(served: Served) -> Iterator[None]:
    """The service is shared: whatever a test leaves, the next finds one worker, and a gateway that knows it."""
    yield
    with Client(served.url, api_key=ADMIN_KEY) as client:
        client.scale(MODEL, 1, 1)


@contextlib.contextmanager
def loaded(served: Served, picture: bytes) -> Iterator[None]:
    """Twelve clients that ask without a pause: three batches of four wait for one worker."""
    request = post_request(f"{served.url}/v1/segment?text=sofa.", picture, {"Content-Type": "image/png"})
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            run_load(served.url, [request], clients=12, seconds=1.0, ramp=0)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_load_makes_workers_and_quiet_takes_them_away(served: Served, scene_png: bytes, tmp_path: Path):
    journal, trouble = tmp_path / "journal", tmp_path / "trouble"
    options = ["--min", "1", "--max", "2", "--interval", "0.5", "--target-queue-time", "0.05", "--grow-after", "2"]
    options += ["--grow-cool-down", "0", "--shrink-after", "3", "--shrink-cool-down", "1"]
    with journal.open("w") as out, trouble.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "segserve.cli", *arguments(served, *options)], stdout=out, stderr=err
        )
    management = Management(served.address)

    def told() -> str:
        return journal.read_text("utf-8") + trouble.read_text("utf-8")

    try:
        wait_for(lambda: "watching" in told(), "it runs", told)
        with loaded(served, scene_png):
            wait_for(lambda: management.describe(MODEL).ready_workers == 2, "a second worker that loaded", told)
        wait_for(lambda: len(management.describe(MODEL).workers) == 1, "one worker again", told)
        assert process.poll() is None, told()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, told()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    lines = journal.read_text("utf-8").splitlines()
    changes = [line.split(" workers")[0] for line in lines if "→" in line]
    assert changes == [f"{MODEL}: 1 → 2", f"{MODEL}: 2 → 1"]
    assert lines[-1].startswith("stopped")


class Once:
    """One decision, in this process."""

    def __init__(self, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
        self._served = served
        self._capsys = capsys

    def __call__(self, *options: str, remote: bool = False) -> str:
        assert main(arguments(self._served, "--once", "--interval", "0.5", *options, remote=remote)) == 0
        return self._capsys.readouterr().out.strip()


@pytest.fixture
def once(served: Served, capsys: pytest.CaptureFixture[str]) -> Once:
    return Once(served, capsys)


def test_one_decision_through_the_gateway_and_back(served: Served, once: Once):
    up = once("--min", "2", "--max", "2", remote=True)
    assert up == f"{MODEL}: 1 → 2 workers (fewer than the minimum of 2)"
    assert workers(served) == 2
    down = once("--min", "1", "--max", "1", remote=True)
    assert down == f"{MODEL}: 2 → 1 workers (more than the maximum of 1)"
    assert workers(served) == 1


def test_what_changes_nothing(served: Served, once: Once):
    dry = once("--min", "2", "--max", "2", "--dry-run")
    assert dry == f"{MODEL}: would be 1 → 2 workers (fewer than the minimum of 2)"
    assert "no memory for another worker" in once("--min", "2", "--max", "2", "--memory-reserve", "100000000")
    assert "1 workers are the minimum" in once("--min", "1", "--max", "2")
    assert workers(served) == 1


def test_mistakes_get_one_clear_line(served: Served, capsys: pytest.CaptureFixture[str]):
    wrong_key = ["autoscale", MODEL, "--min", "2", "--max", "2", "--once", "--interval", "0.1", "--url", served.url]
    cases = [
        ([*wrong_key, "--admin-key", "wrong"], "admin key"),
        (["autoscale", "nothing", "--min", "1", "--max", "2", "--port", str(served.port)], "nothing"),
        (["autoscale", "--min", "1", "--max", "2", "--port", "9"], "port 9"),
        (["autoscale", "--min", "0", "--max", "2", "--port", str(served.port)], "min 0"),
    ]
    for given, named in cases:
        assert main(given) == 1
        (told,) = capsys.readouterr().err.strip().splitlines()
        assert told.startswith("segserve autoscale: ")
        assert named in told
    assert workers(served) == 1
