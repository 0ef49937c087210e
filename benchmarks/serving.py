"""What serving costs: throughput, latency and CPU of the served grounded_sam against in-process calls.

    python benchmarks/serving.py                    # as `make bench`
    python benchmarks/serving.py --detector-size 256 --requests 200 --clients 1 4 16

Both sides run in the same minutes on the same machine: in-process means as many one-thread processes as there are
workers, each calling ``GroundedSam.predict`` in a loop. The detector's input is enlarged (default 640 px) so that a
picture takes a quarter of a second or more, as a real model does; its answers then mean nothing, its cost does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import psutil
from rich.console import Console
from rich.table import Table

import load
from segserve import imaging
from segserve.client import Client
from segserve.training.scenes import make_scene

ROOT = Path(__file__).resolve().parent.parent
TEXT = "sofa. chair. table. lamp. window. floor."
SCENE_SEED = 77
WARM_UP = 100
CONSOLE = Console()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmark of the serving path.", epilog="make bench runs it as it is")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "demo" / "grounded_sam")
    parser.add_argument("--detector-size", type=int, default=640, help="side of the detector's input in pixels")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=160, help="requests of each run")
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


def in_process_worker(weights: str, data: bytes, batch: int, start: Any, seconds: float, results: Any) -> None:
    """One process: predict in a loop; reports (pictures, seconds, CPU seconds)."""
    import torch

    from segserve.models.grounded_sam import GroundedSam
    from segserve.models.text_prompt import TextPrompt

    torch.set_num_threads(1)
    predictor = GroundedSam.from_folder(Path(weights))
    images, prompts = [imaging.decode(data)] * batch, [TextPrompt.from_text(TEXT)] * batch
    predictor.predict(images, prompts)
    start.wait()
    begun, cpu, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begun < seconds:
        predictor.predict(images, prompts)
        done += batch
    results.put((done, time.perf_counter() - begun, time.process_time() - cpu))


def in_process(weights: Path, data: bytes, processes: int, batch: int, seconds: float = 20.0) -> dict[str, float]:
    """Pictures a second, and CPU milliseconds a picture, of the bare predictor."""
    context = multiprocessing.get_context("spawn")
    results, start = context.Queue(), context.Barrier(processes)
    arguments = (str(weights), data, batch, start, seconds, results)
    workers = [context.Process(target=in_process_worker, args=arguments) for _ in range(processes)]
    for worker in workers:
        worker.start()
    rows = [results.get(timeout=seconds + 240) for _ in workers]
    for worker in workers:
        worker.join()
    pictures = sum(row[0] for row in rows)
    return {
        "throughput": sum(done / elapsed for done, elapsed, _ in rows),
        "latency_ms": 1000 * sum(elapsed for _, elapsed, _ in rows) * batch / pictures,
        "cpu_ms": 1000 * sum(cpu for _, _, cpu in rows) / pictures,
    }


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


def measure(
    url: str, gateway: int, data: bytes, clients: int, requests: int, baseline: dict[str, float]
) -> dict[str, Any]:
    """One closed-loop run against the gateway, with its CPU figures."""
    target = f"{url}/v1/segment?text={TEXT.replace(' ', '%20')}"
    request = load.request_bytes(target, data, {"Content-Type": "image/jpeg"})
    # Java compiles what runs often: the first hundreds of requests cost it several times as much.
    load.run(url, request, clients=clients, requests=WARM_UP)
    before = cpu_seconds(gateway)
    done = load.run(url, request, clients=clients, requests=requests)
    spent = {kind: 1000 * (after - before[kind]) / requests for kind, after in cpu_seconds(gateway).items()}
    return {
        "clients": clients,
        "requests": requests,
        "statuses": done.statuses,
        "throughput": done.throughput,
        "ratio": done.throughput / baseline["throughput"],
        "p50_ms": 1000 * done.percentile(50),
        "p95_ms": 1000 * done.percentile(95),
        "p99_ms": 1000 * done.percentile(99),
        "gateway_cpu_ms": spent["gateway"],
        "java_cpu_ms": spent["java"],
        "worker_extra_cpu_ms": spent["workers"] - baseline["cpu_ms"],
    }


def show(rows: list[dict[str, Any]], baseline: dict[str, float]) -> None:
    table = Table(
        title=f"In process: {baseline['throughput']:.2f} pictures/s, {baseline['latency_ms']:.0f} ms each",
        caption="CPU milliseconds a request; of the workers, what they spend beyond the predictor",
    )
    columns = ("clients", "pict./s", "served/ in proc.", "p50 ms", "p95 ms", "p99 ms", "p99/ p50")
    for name in (*columns, "CPU gateway", "CPU Java", "CPU workers"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row["clients"]),
            f"{row['throughput']:.2f}",
            f"{row['ratio']:.3f}",
            *(f"{row[name]:.0f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
            f"{row['p99_ms'] / row['p50_ms']:.2f}",
            *(f"{row[name]:.1f}" for name in ("gateway_cpu_ms", "java_cpu_ms", "worker_extra_cpu_ms")),
        )
    CONSOLE.print(table)


def main() -> None:
    options = parse_arguments()
    data = picture()
    CONSOLE.print(f"{len(data) / 1000:.0f} KB JPEG, detector at {options.detector_size} px, {options.workers} workers")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        weights = heavier_copy(options.weights, options.detector_size, work / "weights")
        with CONSOLE.status("in process, before"):
            first = in_process(weights, data, options.workers, options.batch_size)
        rows = []
        with serving(weights, work, options.workers, options.batch_size) as (url, gateway):
            for clients in options.clients:
                with CONSOLE.status(f"{clients} clients"):
                    rows.append(measure(url, gateway, data, clients, options.requests, first))
        with CONSOLE.status("in process, after"):
            second = in_process(weights, data, options.workers, options.batch_size)
    # The machine's speed drifts: the baseline is the mean of a run before and a run after the served ones.
    baseline = {name: (first[name] + second[name]) / 2 for name in first}
    for row in rows:
        row["ratio"] = row["throughput"] / baseline["throughput"]
        row["worker_extra_cpu_ms"] += first["cpu_ms"] - baseline["cpu_ms"]
    show(rows, baseline)
    report = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "options": {key: str(value) for key, value in vars(options).items()},
        "in_process": {"mean": baseline, "before": first, "after": second},
        "served": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2), "utf-8")
    CONSOLE.print(f"written: {os.path.relpath(options.out)}")


if __name__ == "__main__":
    main()
