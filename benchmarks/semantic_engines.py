"""torch against ONNX Runtime against both in one worker: pictures a second of a semantic model, as ratios of one run.

    python benchmarks/semantic_engines.py                               # the demo weights, one thread
    python benchmarks/semantic_engines.py --threads 2 --rounds 10
    python benchmarks/semantic_engines.py --architecture deeplabv3_mobilenet_v3_large --input-size 512

Three sides call ``Semantic.predict`` in one process, as a worker does: ``torch``, ``onnx``, and ``both``, where every
other picture asks for the other engine (within a batch; at batch 1, call by call). All sides answer the same pictures
and take turns, and each round's ratio is of neighboring turns: the speed of a shared machine drifts by more than what
is measured. The networks alone are timed the same way. With --architecture the weights are random: the answers mean
nothing, the cost does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import psutil
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from segserve.export.engines import machine, onnx_runner, torch_runner
from segserve.export.onnx_export import export_onnx
from segserve.imaging import Rgb
from segserve.models.semantic import Semantic, SemanticConfig, SemanticParameters
from segserve.models.semantic.architecture import ARCHITECTURES, build_network
from segserve.models.semantic.checkpoint import ONNX_FILE, pascal_voc_labels, save_checkpoint
from segserve.training.scenes import make_scene

ROOT = Path(__file__).resolve().parent.parent
SCENE_SEED = 77
WARM_UPS = 3
SIDES = ("torch", "onnx", "both")
CONSOLE = Console()

Call = Callable[[], object]


@dataclass(frozen=True)
class Figures:
    """One side at one batch size.

    seconds, cpu_seconds: of every call; the processor time is that of all threads, which others on the machine hardly
    change. ratio, cpu_ratio: the medians over the rounds of either divided by torch's in the same round.
    """

    seconds: list[float]
    cpu_seconds: list[float]
    ratio: float
    cpu_ratio: float
    pictures_per_second: float


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmark of the engines of the model semantic.")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "demo" / "semantic")
    parser.add_argument("--architecture", choices=ARCHITECTURES, help="random weights of this network instead")
    parser.add_argument("--input-size", type=int, default=512, help="side of its input in pixels")
    parser.add_argument("--picture", type=int, nargs=2, default=[480, 640], metavar=("H", "W"), help="size of pictures")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--threads", type=int, default=1, help="of each engine")
    parser.add_argument("--rounds", type=int, default=12, help="calls of each side at each batch size")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "semantic_engines.json")
    return parser.parse_args()


def random_checkpoint(folder: Path, architecture: str, side: int, images: list[Rgb]) -> Path:
    """A checkpoint of random weights with its model.onnx; the statistics are of noise, so that the answers differ."""
    torch.manual_seed(0)
    config = SemanticConfig(pascal_voc_labels(), architecture, (side, side))
    network = build_network(config).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(2, 3, 128, 128))
    save_checkpoint(folder, config, network.eval())
    export_onnx(folder, folder / ONNX_FILE, images[:2])
    return folder


def predictions(predictor: Semantic, images: list[Rgb]) -> dict[str, Call]:
    """A call of predict for each side."""
    flip = [False]

    def asked(engines: list[str]) -> Call:
        prompts = [SemanticParameters(engine=engine) for engine in engines]  # type: ignore[arg-type]
        return lambda: predictor.predict(images, prompts)

    calls = {engine: asked([engine] * len(images)) for engine in ("torch", "onnx")}
    mixed = asked([("torch", "onnx")[index % 2] for index in range(len(images))])

    def both() -> None:
        if len(images) > 1:
            mixed()
            return
        flip[0] = not flip[0]
        calls["torch" if flip[0] else "onnx"]()

    return {**calls, "both": both}


def networks(predictor: Semantic, images: list[Rgb]) -> dict[str, Call]:
    """A call of the network alone for each engine, from prepared inputs to logits."""
    pixels = torch.stack(predictor.inputs(images))
    runners = {"torch": torch_runner(predictor), "onnx": onnx_runner(predictor)}
    return {name: lambda run=run: run(pixels) for name, run in runners.items()}  # type: ignore[misc]


def take_turns(calls: dict[str, Call], batch: int, rounds: int, done: Call) -> dict[str, Figures]:
    """So many calls of each side, round by round, each round beginning with the next side."""
    names = list(calls)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for name in names * WARM_UPS:
        calls[name]()
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            # At batch 1, "both" is one call of each engine.
            repeat = 2 if name == "both" and batch == 1 else 1
            start, cpu_start = time.perf_counter(), time.process_time()
            for _ in range(repeat):
                calls[name]()
            wall[name].append((time.perf_counter() - start) / repeat)
            cpu[name].append((time.process_time() - cpu_start) / repeat)
        done()
    return {
        name: Figures(
            seconds=wall[name],
            cpu_seconds=cpu[name],
            ratio=median_ratio(wall[name], wall["torch"]),
            cpu_ratio=median_ratio(cpu[name], cpu["torch"]),
            pictures_per_second=batch / statistics.median(wall[name]),
        )
        for name in names
    }


def median_ratio(ours: list[float], torchs: list[float]) -> float:
    """The median over the rounds."""
    return statistics.median(mine / its for mine, its in zip(ours, torchs, strict=True))


def memory_of(folder: Path, threads: int) -> tuple[Semantic, dict[str, int]]:
    """The predictor with both engines, and the resident bytes before, and after a first answer of each engine."""
    process = psutil.Process()
    before = process.memory_info().rss
    predictor = Semantic.from_folder(folder, device="cpu", threads=threads)
    image = make_scene(SCENE_SEED, (480, 640)).image
    for engine in predictor.engines:
        predictor.predict([image], [SemanticParameters(engine=engine)])
    return predictor, {"before": before, "with_both_engines": process.memory_info().rss}


def show(report: dict[str, dict[str, dict[str, Figures]]], title: str) -> None:
    table = Table(title=title)
    for column in ("batch", "what", "side", "ms", "pictures/s", "CPU ms", "ratio", "CPU ratio"):
        table.add_column(column, justify="left" if column in ("what", "side") else "right")
    for batch, kinds in report.items():
        for kind, sides in kinds.items():
            for name, figures in sides.items():
                milliseconds = 1000 * statistics.median(figures.seconds) / int(batch)
                cpu = 1000 * statistics.median(figures.cpu_seconds) / int(batch)
                ratios = f"{figures.ratio:.2f}", f"{figures.cpu_ratio:.2f}"
                speed = f"{figures.pictures_per_second:.1f}"
                table.add_row(batch, kind, name, f"{milliseconds:.1f}", speed, f"{cpu:.1f}", *ratios)
        table.add_section()
    CONSOLE.print(table)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    images = [make_scene(SCENE_SEED + number, tuple(args.picture)).image for number in range(max(args.batches))]
    report: dict[str, dict[str, dict[str, Figures]]] = {}
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task("rounds", total=2 * args.rounds * len(args.batches))
        weights = args.weights
        if args.architecture:
            weights = random_checkpoint(Path(folder) / "model", args.architecture, args.input_size, images)
        predictor, memory = memory_of(weights, args.threads)
        for batch in args.batches:
            chosen = images[:batch]
            advance = lambda: bars.advance(task)  # noqa: E731
            report[str(batch)] = {
                "predict": take_turns(predictions(predictor, chosen), batch, args.rounds, advance),
                "network": take_turns(networks(predictor, chosen), batch, args.rounds, advance),
            }
    measured_on = machine(torch.device("cpu"), args.threads, predictor.onnx.providers if predictor.onnx else ())
    what = args.architecture or args.weights.name
    size = predictor.preprocessing.input_size
    show(report, f"{what}, input {size}, {args.threads} thread(s) an engine, {args.rounds} rounds, a picture")
    CONSOLE.print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; resident memory: {memory}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        **measured_on,
        "python": platform.python_version(),
        "model": what,
        "input_size": size,
        "picture": args.picture,
        "resident_bytes": memory,
        "batches": {
            batch: {kind: {name: asdict(figures) for name, figures in sides.items()} for kind, sides in kinds.items()}
            for batch, kinds in report.items()
        },
    }
    args.out.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    CONSOLE.print(f"written: {args.out}")


if __name__ == "__main__":
    main()
