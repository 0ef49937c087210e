"""What serving costs: throughput, latency and CPU of the served grounded_sam against in-process calls.

    python benchmarks/serving.py                    # as `make bench`
    python benchmarks/serving.py --detector-size 256 --clients 1 4 16 --rounds 6

In-process means as many one-thread processes as there are workers, each calling ``GroundedSam.predict`` in a loop.
Both sides take turns, some seconds each, and each round's ratio is of neighboring turns: the speed of a shared machine
drifts by more than what is measured. The detector's input is enlarged (default 640 px) so that a picture takes a
quarter of a second or more, as a real model does; its answers then mean nothing, its cost does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import psutil
from rich.console import Console
from rich.table import Table

from segserve import imaging
from segserve.client import Client
from segserve.closed_loop import post_request, run_load
from segserve.torchserve.java import ALLOCATOR
from segserve.training.scenes import make_scene

ROOT = Path(__file__).resolve().parent.parent
TEXT = "sofa. chair. table. lamp. window. floor."
SCENE_SEED = 77
WARM_UP_S = 20.0
CONSOLE = Console()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmark of the serving path.", epilog="make bench runs it as it is")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "demo" / "grounded_sam")
    parser.add_argument("--detector-size", type=int, default=640, help="side of the detector's input in pixels")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side at each number of clients")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a turn")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "serving.json")
    return parser.parse_args()


def picture() -> bytes:
    """A JPEG of about 100 KB of a generated room."""
    scene = make_scene(SCENE_SEED, (960, 1280))
    for quality in range(95, 40, -5):
        ok, encoded = cv2.imencode(".jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        if ok and len(encoded) <= 105_000:
            return encoded.tobytes()
    return encoded.tobytes()


def heavier_copy(weights: Path, side: int, out: Path) -> Path:
    """The checkpoint with its detector's input enlarged to side x side pixels."""
    shutil.copytree(weights, out)
    for file in (out / "grounding_dino").glob("*processor_config.json"):
        config = json.loads(file.read_text("utf-8"))
        config.get("image_processor", config)["size"] = {"height": side, "width": side}
        file.write_text(json.dumps(config), "utf-8")
    return out


def in_process_worker(weights: str, data: bytes, batch: int, turns: Any, results: Any) -> None:
    """One process: for each turn (its seconds; None ends it), predict in a loop; reports (pictures, s, CPU s)."""
    import torch

    from segserve.models.grounded_sam import GroundedSam
    from segserve.models.text_prompt import TextPrompt

    torch.set_num_threads(1)
    predictor = GroundedSam.from_folder(Path(weights))
    images, prompts = [imaging.decode(data)] * batch, [TextPrompt.from_text(TEXT)] * batch
    predictor.predict(images, prompts)
    results.put(None)
    while (seconds := turns.get()) is not None:
        begun, cpu, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - begun < seconds:
            predictor.predict(images, prompts)
            done += batch
        results.put((done, time.perf_counter() - begun, time.process_time() - cpu))


class InProcess:
    """The bare predictor in as many processes as there are workers, idle between turns."""

    def __init__(self, weights: Path, data: bytes, processes: int, batch: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._results = context.Queue()
        self._turns = [context.Queue() for _ in range(processes)]
        arguments = (str(weights), data, batch)
        self._processes = [
            context.Process(target=in_process_worker, args=(*arguments, turns, self._results), daemon=True)
            for turns in self._turns
        ]
        # As in the workers: without this the served side would be compared with a handicapped one.
        os.environ.update(ALLOCATOR)
        for process in self._processes:
            process.start()
        self._collect()

    def turn(self, seconds: float) -> dict[str, float]:
        """Pictures a second, and milliseconds and CPU milliseconds a picture, of one turn."""
        for turns in self._turns:
            turns.put(seconds)
        rows = self._collect()
        pictures = sum(row[0] for row in rows)
        return {
            "throughput": sum(done / elapsed for done, elapsed, _ in rows),
            "latency_ms": 1000 * sum(elapsed for _, elapsed, _ in rows) / pictures,
            "cpu_ms": 1000 * sum(cpu for _, _, cpu in rows) / pictures,
        }

    def close(self) -> None:
        for turns in self._turns:
            turns.put(None)
        for process in self._processes:
            process.join()

    def _collect(self) -> list[Any]:
        return [self._results.get(timeout=240) for _ in self._processes]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def serving(weights: Path, work: Path, workers: int, batch: int) -> Iterator[tuple[str, int]]:
    """A running ``segserve serve`` of the checkpoint: (URL, process id)."""
    store, port, log = work / "store", free_port(), work / "serve.log"
    segserve = [sys.executable, "-m", "segserve.cli"]
    subprocess.run([*segserve, "archive", str(weights), "grounded_sam", "--out", str(store)], check=True)
    command = [*segserve, "serve", "--port", str(port), "--model-store", str(store)]
    command += ["--workers", str(workers), "--batch-size", str(batch), "--log-dir", str(work)]
    command += [word for name in ("inference", "management", "metrics") for word in (f"--torchserve-{name}-port", "0")]
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        with Client(url) as client:
            client.wait_until_ready(timeout=240)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


def cpu_seconds(gateway: int) -> dict[str, float]:
    """CPU seconds so far of the gateway, of Java and of its Python workers."""
    spent = {"gateway": 0.0, "java": 0.0, "workers": 0.0}
    parent = psutil.Process(gateway)
    for process in [parent, *parent.children(recursive=True)]:
        times = process.cpu_times()
        kind = "gateway" if process.pid == gateway else "java" if "java" in process.name() else "workers"
        spent[kind] += times.user + times.system
    return spent


@dataclass(frozen=True)
class Service:
    """The running service and the request that it is sent."""

    url: str
    pid: int
    request: bytes

    def turn(self, clients: int, seconds: float) -> dict[str, Any]:
        """One closed-loop turn with its CPU figures, in milliseconds a request."""
        before = cpu_seconds(self.pid)
        done = run_load(self.url, [self.request], clients=clients, seconds=seconds)
        after = cpu_seconds(self.pid)
        spent = {f"{kind}_cpu_ms": 1000 * (after[kind] - before[kind]) / done.answered for kind in after}
        if set(done.statuses) != {200}:
            raise SystemExit(f"not every request was answered with 200: {done.statuses}")
        return {"throughput": done.throughput, "latencies": done.latencies, **spent}


def measure(service: Service, bare: InProcess, clients: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Both sides by turns at one number of clients. Throughput and CPU are means, the ratio is of the means."""
    served, in_process = [], [bare.turn(seconds)]
    for _ in range(rounds):
        served.append(service.turn(clients, seconds))
        in_process.append(bare.turn(seconds))

    def mean(rows: list[dict[str, Any]], name: str) -> float:
        return statistics.fmean(row[name] for row in rows)

    # Each served turn stands between two in-process ones, whose mean is what it is compared with.
    ratios = [
        turn["throughput"] / statistics.fmean((one["throughput"], other["throughput"]))
        for turn, (one, other) in zip(served, pairwise(in_process), strict=True)
    ]
    latencies = sorted(latency for turn in served for latency in turn["latencies"])
    return {
        "clients": clients,
        "answers": len(latencies),
        "throughput": mean(served, "throughput"),
        "in_process_throughput": mean(in_process, "throughput"),
        "in_process_latency_ms": mean(in_process, "latency_ms"),
        "ratio": statistics.fmean(ratios),
        "ratios": ratios,
        **{f"p{percent}_ms": 1000 * nearest_rank(latencies, percent) for percent in (50, 95, 99)},
        "gateway_cpu_ms": mean(served, "gateway_cpu_ms"),
        "java_cpu_ms": mean(served, "java_cpu_ms"),
        "worker_extra_cpu_ms": mean(served, "workers_cpu_ms") - mean(in_process, "cpu_ms"),
    }


def nearest_rank(ordered: list[float], percent: float) -> float:
    """The value that percent of the ordered ones do not pass."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(caption="CPU: milliseconds a request; of the workers, what they spend beyond the predictor")
    columns = ("clients", "pictures/s", "in process", "ratio", "p50 ms", "p95 ms", "p99 ms", "p99/p50")
    for name in (*columns, "gateway", "Java", "workers"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row["clients"]),
            f"{row['throughput']:.2f}",
            f"{row['in_process_throughput']:.2f}",
            f"{row['ratio']:.3f}",
            *(f"{row[name]:.0f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
            f"{row['p99_ms'] / row['p50_ms']:.2f}",
            *(f"{row[name]:.1f}" for name in ("gateway_cpu_ms", "java_cpu_ms", "worker_extra_cpu_ms")),
        )
    Console(width=110).print(table)


def main() -> None:
    options = parse_arguments()
    data = picture()
    CONSOLE.print(f"{len(data) / 1000:.0f} KB JPEG, detector at {options.detector_size} px, {options.workers} workers")
    target = f"/v1/segment?text={TEXT.replace(' ', '%20')}"
    rows = []
    with tempfile.TemporaryDirectory() as folder, CONSOLE.status("loading") as status:
        work = Path(folder)
        weights = heavier_copy(options.weights, options.detector_size, work / "weights")
        bare = InProcess(weights, data, options.workers, options.batch_size)
        with serving(weights, work, options.workers, options.batch_size) as (url, gateway):
            request = post_request(url + target, data, {"Content-Type": "image/jpeg"})
            service = Service(url, gateway, request)
            # Java compiles what runs often: its first hundreds of requests cost several times as much.
            status.update("warming up")
            service.turn(max(options.clients), WARM_UP_S)
            for clients in options.clients:
                status.update(f"{clients} clients and in process, by turns")
                rows.append(measure(service, bare, clients, options.rounds, options.seconds))
        bare.close()
    show(rows)
    report = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "options": {key: str(value) for key, value in vars(options).items() if key not in ("out", "weights")},
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2), "utf-8")
    CONSOLE.print(f"written: {os.path.relpath(options.out)}")


if __name__ == "__main__":
    main()
