"""``segserve train demo-grounded-sam``: train the demo weights on generated scenes, from nothing.

    segserve train demo-grounded-sam --work build/train --out weights/demo/grounded_sam

Interrupt it whenever you like: the same command goes on from the last checkpoint of each model.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segserve.training.progress import Progress

DETECTOR_STEPS, SEGMENTER_STEPS = 5000, 2200
DETECTOR_FOLDER, SEGMENTER_FOLDER = "grounding_dino", "sam"
TRAINING_FILE = "training.json"
LOG_EVERY = 50


def add_parser(subparsers: Any) -> None:
    """Add ``train`` to the command line's subcommands."""
    parser = subparsers.add_parser("train", help="train models", description=__doc__.splitlines()[0])
    targets = parser.add_subparsers(dest="target", required=True, metavar="WHAT")
    demo = targets.add_parser("demo-grounded-sam", help="the small Grounding DINO and SAM of the demo")
    demo.add_argument("--out", type=Path, default=Path("weights/demo/grounded_sam"), help="folder for the weights")
    demo.add_argument("--work", type=Path, default=Path("build/train"), help="folder for checkpoints")
    demo.add_argument("--only", choices=("detector", "segmenter"), help="train one of the two")
    demo.add_argument("--steps-detector", type=_positive, default=DETECTOR_STEPS, help="length of its run, in steps")
    demo.add_argument("--steps-segmenter", type=_positive, default=SEGMENTER_STEPS, help="length of its run, in steps")
    demo.add_argument("--batch-detector", type=_positive, default=8, help="scenes a step (default 8)")
    demo.add_argument("--batch-segmenter", type=_positive, default=4, help="scenes a step (default 4)")
    demo.add_argument("--seed", type=int, default=0, help="seed of initial weights and data (default 0)")
    demo.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default cpu)")
    demo.add_argument("--threads", type=_positive, default=1, help="CPU threads of torch (default 1)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train what is asked, then write the transformers folders. Returns the exit status."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not keep the other model's core busy
    import cv2
    import torch

    cv2.setNumThreads(args.threads)
    torch.set_num_threads(args.threads)
    if args.only != "segmenter":
        from segserve.training.detector_training import export_detector, train_detector

        work = args.work / "detector"
        with _reporter("detector", args.steps_detector) as report:
            train_detector(
                work,
                steps=args.steps_detector,
                seed=args.seed,
                batch_size=args.batch_detector,
                device=args.device,
                progress=report,
            )
        export_detector(work, args.out / DETECTOR_FOLDER)
        note_command(args, "detector")
    if args.only != "detector":
        from segserve.training.segmenter_training import export_segmenter, train_segmenter

        work = args.work / "segmenter"
        with _reporter("segmenter", args.steps_segmenter) as report:
            train_segmenter(
                work,
                steps=args.steps_segmenter,
                seed=args.seed,
                batch_size=args.batch_segmenter,
                device=args.device,
                progress=report,
            )
        export_segmenter(work, args.out / SEGMENTER_FOLDER)
        note_command(args, "segmenter")
    return 0


def note_command(args: argparse.Namespace, model: str) -> None:
    """Write beside the weights which command makes them: ``training.json``, by model."""
    file: Path = args.out / TRAINING_FILE
    commands = json.loads(file.read_text("utf-8")) if file.exists() else {}
    steps, batch = getattr(args, f"steps_{model}"), getattr(args, f"batch_{model}")
    commands[model] = (
        f"segserve train demo-grounded-sam --only {model} --steps-{model} {steps} --batch-{model} {batch} "
        f"--seed {args.seed} --device {args.device}"
    )
    file.write_text(json.dumps(commands, indent=2) + "\n", "utf-8")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {number}")
    return number


@contextmanager
def _reporter(name: str, steps: int) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on a terminal; a line every few steps where the output goes to a file."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console()
    if not console.is_terminal:
        yield lambda state: _print_line(name, state)
        return
    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Bars(*columns, console=console) as bars:
        task = bars.add_task(name, total=steps, state="")

        def advance(state: Progress) -> None:
            bars.update(task, completed=state.step, state=_summary(state))

        yield advance


def _print_line(name: str, state: Progress) -> None:
    if state.step % LOG_EVERY == 0 or state.step in (1, state.steps):
        print(f"{name} {state.step}/{state.steps} {_summary(state)}", flush=True)


def _summary(state: Progress) -> str:
    losses = " ".join(f"{term} {value:.3f}" for term, value in state.losses.items())
    return f"{state.images_per_second:.1f} images/s, rate {state.learning_rate:.1e}, {losses}"
