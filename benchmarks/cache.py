"""What a kept embedding saves: the second prompt on a picture against the first, as a caller sees both.

    python benchmarks/cache.py                                 # sam2 and grounded_sam, full-sized, random weights
    python benchmarks/cache.py --models sam2 --pictures 30 --workers 2 --threads 1

Served with ``segserve serve``: sam2 with the architecture of sam2.1-hiera-small, and grounded_sam with that of
sam-vit-base behind the demo's detector, which is small: with a full-sized one the first prompt and the second both
cost more. Weights are random, so the answers mean nothing; the cost does. Each picture is new: it is asked once, which
encodes it, and then again with other prompts. Both times the file is sent, decoded and hashed anew.

Besides the time that a caller waits, the processor time of the whole service (gateway, Java, workers) is told: on a
machine that others use too, it is the steadier of the two.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import requests
import torch
import transformers
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from segserve import imaging
from segserve.client import Client
from segserve.torchserve.ports import free_ports
from segserve.training.scenes import make_scene
from serving import cpu_seconds

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "weights" / "demo" / "grounded_sam"
SCENE_SEED = 770_000
WARM_UPS = 2
TIMEOUT_S = 600
"""On a busy machine the first prompt can take longer than the gateway waits by default."""
MODELS = ("sam2", "grounded_sam")
TEXTS = ("sofa. floor.", "chair. lamp.", "table. window.", "floor. wall.")
CONSOLE = Console()


@dataclass(frozen=True)
class Figures:
    """Milliseconds of one model's prompts as a caller sees them.

    first_cpu, later_cpu: the service's processor time, for each picture; of later prompts the mean of a picture's.
    hits, misses: as the gateway's metrics count them.
    """

    first: list[float]
    later: list[float]
    first_cpu: list[float]
    later_cpu: list[float]
    hits: int
    misses: int

    @property
    def ratio(self) -> float:
        """p50 of first prompts by p50 of later ones."""
        return statistics.median(self.first) / statistics.median(self.later)

    @property
    def cpu_ratio(self) -> float:
        """The same of processor time."""
        return statistics.median(self.first_cpu) / statistics.median(self.later_cpu)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmark of the embedding cache.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--later", type=int, default=4, help="further prompts on each picture")
    parser.add_argument("--size", type=int, nargs=2, default=(960, 1280), metavar=("H", "W"))
    parser.add_argument("--format", choices=("PNG", "JPEG"), default="PNG", help="of the files that are sent")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="of a worker; 0: all cores")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "cache.json")
    return parser.parse_args()


def save_sam2(folder: Path) -> None:
    """sam2.1-hiera-small: transformers' default is the tiny one, whose third stage has fewer blocks."""
    backbone = transformers.Sam2HieraDetConfig(blocks_per_stage=[1, 2, 11, 2], global_attention_blocks=[7, 10, 13])
    vision = transformers.Sam2VisionConfig(backbone_config=backbone)
    transformers.Sam2Model(transformers.Sam2Config(vision_config=vision)).save_pretrained(folder)
    transformers.Sam2Processor(transformers.Sam2ImageProcessor()).save_pretrained(folder)


def save_grounded_sam(folder: Path) -> None:
    """The demo's detector, and sam-vit-base, which is transformers' default.

    Not with the default's deviation of random weights, 1e-10: its activations are so small that processors fall back
    to their slow arithmetic for denormal numbers, and encoding a picture takes minutes.
    """
    shutil.copytree(DEMO / "grounding_dino", folder / "grounding_dino")
    vision = transformers.SamVisionConfig(initializer_range=0.02)
    transformers.SamModel(transformers.SamConfig(vision_config=vision)).save_pretrained(folder / "sam")
    transformers.SamProcessor(transformers.SamImageProcessor()).save_pretrained(folder / "sam")


@contextmanager
def serving(work: Path, model: str, options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """A running ``segserve serve`` of one model: (URL, process id)."""
    torch.manual_seed(0)
    {"sam2": save_sam2, "grounded_sam": save_grounded_sam}[model](work / "weights")
    segserve = [sys.executable, "-m", "segserve.cli"]
    archive = [*segserve, "archive", model, "--weights", str(work / "weights"), "--out", str(work / "store")]
    subprocess.run([*archive, "--set", f"threads={options.threads}"], check=True, stdout=subprocess.DEVNULL)
    (port,) = free_ports(1)
    command = [*segserve, "serve", "--port", str(port), "--model-store", str(work / "store"), "--log-dir", str(work)]
    command += ["--workers", str(options.workers)]
    command += [word for name in ("inference", "management", "metrics") for word in (f"--torchserve-{name}-port", "0")]
    env = {**os.environ, "SEGSERVE_TIMEOUT_S": str(TIMEOUT_S)}
    with (work / "serve.log").open("w") as stream:
        process = subprocess.Popen(command, env=env, stdout=stream, stderr=subprocess.STDOUT)
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            client.wait_until_ready(timeout=TIMEOUT_S)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


def prompts_of(model: str, size: tuple[int, int], count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """As many prompts of the same kind: single clicks, or two phrases."""
    if model == "grounded_sam":
        return [{"text": TEXTS[index % len(TEXTS)]} for index in range(count)]
    height, width = size
    return [{"points": [(rng.integers(width), rng.integers(height), 1)]} for _ in range(count)]


def timed(client: Client, model: str, data: bytes, prompt: dict[str, Any]) -> float:
    """Milliseconds from the call to the parsed answer."""
    begun = time.perf_counter()
    client.segment(data, model=model, **prompt)
    return 1000 * (time.perf_counter() - begun)


def counted(url: str) -> dict[str, int]:
    """Hits and misses in the gateway's metrics."""
    counts = {"hit": 0, "miss": 0}
    for line in requests.get(f"{url}/metrics", timeout=30).text.splitlines():
        for outcome in counts:
            if line.startswith("segserve_embedding_cache_total") and f'outcome="{outcome}"' in line:
                counts[outcome] = int(float(line.rpartition(" ")[2]))
    return counts


def cpu_ms(service: int) -> float:
    """Processor time so far of the service with all its processes."""
    return 1000 * sum(cpu_seconds(service).values())


def measure(
    service: tuple[str, int], model: str, pictures: list[bytes], options: argparse.Namespace, progress: Progress
) -> Figures:
    """Ask for each picture once and then again; the first pictures only warm up."""
    url, process = service
    rng = np.random.default_rng(0)
    figures = Figures([], [], [], [], 0, 0)
    task = progress.add_task(model, total=len(pictures))
    with Client(url, timeout=TIMEOUT_S) as client:
        for index, data in enumerate(pictures):
            if index == WARM_UPS:
                before, figures = counted(url), Figures([], [], [], [], 0, 0)
            asked = prompts_of(model, options.size, 1 + options.later, rng)
            spent = [cpu_ms(process)]
            figures.first.append(timed(client, model, data, asked[0]))
            spent.append(cpu_ms(process))
            figures.later.extend(timed(client, model, data, prompt) for prompt in asked[1:])
            spent.append(cpu_ms(process))
            figures.first_cpu.append(spent[1] - spent[0])
            figures.later_cpu.append((spent[2] - spent[1]) / options.later)
            progress.advance(task)
    after = counted(url)
    return replace(figures, hits=after["hit"] - before["hit"], misses=after["miss"] - before["miss"])


def unavoidable(pictures: list[bytes]) -> dict[str, float]:
    """Milliseconds that also a hit costs the worker: decoding the file and hashing its pixels, in this process."""
    decoding, hashing = [], []
    for data in pictures:
        begun = time.perf_counter()
        image = imaging.decode(data)
        decoded = time.perf_counter()
        hashlib.sha256(image.data).digest()
        decoding.append(1000 * (decoded - begun))
        hashing.append(1000 * (time.perf_counter() - decoded))
    return {"decode_ms": statistics.median(decoding), "hash_ms": statistics.median(hashing)}


def show(rows: dict[str, Figures]) -> None:
    table = Table(caption="ms; ratio: the median of first prompts by that of later ones; CPU: of the whole service")
    names = ("model", "first p50", "p95", "later p50", "p95", "ratio", "CPU first", "later", "ratio", "hits/misses")
    for name in names:
        table.add_column(name, justify="left" if name == "model" else "right")
    for model, figures in rows.items():
        cells = [
            f"{np.percentile(values, percent):.0f}" for values in (figures.first, figures.later) for percent in (50, 95)
        ]
        spent = [f"{statistics.median(values):.0f}" for values in (figures.first_cpu, figures.later_cpu)]
        ratios = f"{figures.ratio:.1f}", f"{figures.cpu_ratio:.1f}"
        table.add_row(model, *cells, ratios[0], *spent, ratios[1], f"{figures.hits}/{figures.misses}")
    Console(width=110).print(table)


def main() -> None:
    options = parse_arguments()
    options.size = tuple(options.size)
    with CONSOLE.status("painting scenes"):
        seeds = range(SCENE_SEED, SCENE_SEED + WARM_UPS + options.pictures)
        pictures = [imaging.encode(make_scene(seed, options.size).image, options.format) for seed in seeds]
    spent = unavoidable(pictures)
    size = statistics.median(len(data) for data in pictures)
    CONSOLE.print(
        f"{options.format} of {size / 1000:.0f} KB, {options.workers} worker(s), threads {options.threads or 'all'}; "
        f"decoding takes {spent['decode_ms']:.1f} ms, hashing {spent['hash_ms']:.1f} ms"
    )
    rows: dict[str, Figures] = {}
    for model in options.models:
        with (
            Progress(console=CONSOLE, transient=True) as progress,
            tempfile.TemporaryDirectory() as folder,
            serving(Path(folder), model, options) as service,
        ):
            rows[model] = measure(service, model, pictures, options, progress)
        show(rows)
    report = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "options": {key: str(value) for key, value in vars(options).items() if key != "out"},
        "file_kb": size / 1000,
        **spent,
        "rows": {
            model: {**asdict(figures), "ratio": figures.ratio, "cpu_ratio": figures.cpu_ratio}
            for model, figures in rows.items()
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2), "utf-8")
    CONSOLE.print(f"written: {os.path.relpath(options.out)}")


if __name__ == "__main__":
    main()
