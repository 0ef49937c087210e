"""``segserve train semantic``: train the semantic model of the demo on generated scenes, from nothing.

    segserve train semantic --work build/train/semantic --out weights/demo/semantic

Interrupt it whenever you like: the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import Any

from segserve.cli.training_progress import not_negative, positive, training_progress

STEPS, BATCH, RATE = 2000, 8, 2e-3
EARLY_SIZE, INPUT_SIZE = 224, 320
ARCHITECTURE = "lraspp_mobilenet_v3_large"
TRAINING_FILE = "training.json"
_STRIDE = 32


def add_parser(targets: Any) -> None:
    """Add ``semantic`` to the subcommands of ``train``."""
    parser = targets.add_parser(
        "semantic",
        help="the semantic model of the demo",
        description=(__doc__ or "").partition("\n")[0].partition(": ")[2].capitalize(),
        epilog="example: segserve train semantic --work build/train/semantic --out weights/demo/semantic",
    )
    parser.add_argument("--out", type=Path, default=Path("weights/demo/semantic"), help="folder for the weights")
    parser.add_argument("--work", type=Path, default=Path("build/train/semantic"), help="folder for checkpoints")
    parser.add_argument("--architecture", default=ARCHITECTURE, help="torchvision's name of it (default: %(default)s)")
    parser.add_argument("--steps", type=positive, default=STEPS, help="length of the run (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=BATCH, help="scenes a step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=RATE, help="highest learning rate (default: %(default)s)")
    parser.add_argument(
        "--early-size", type=_side, default=EARLY_SIZE, help="side of the input at first, in px (default: %(default)s)"
    )
    parser.add_argument(
        "--input-size",
        type=_side,
        default=INPUT_SIZE,
        help="side of the input while the learning rate falls, over the last 30 %% of the steps, and of the model "
        "that is served (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="bfloat16 is faster on GPUs and on CPUs with AMX (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=not_negative, default=0, help="of initial weights and data (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of torch (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, then write the checkpoint folder and ``training.json``. Returns the exit status."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not keep another training's core busy
    import cv2
    import torch

    from segserve.errors import InvalidRequestError
    from segserve.training.schedule import Schedule
    from segserve.training.semantic_training import WARMUP, SemanticSettings, export_semantic, train_semantic

    if not 0 < args.rate < 1:
        raise InvalidRequestError(f"--rate: expected a number between 0 and 1, came {args.rate:g}.")
    cv2.setNumThreads(args.threads)
    torch.set_num_threads(args.threads)
    settings = SemanticSettings(
        seed=args.seed,
        batch_size=args.batch,
        architecture=args.architecture,
        early_size=(args.early_size, args.early_size),
        input_size=(args.input_size, args.input_size),
        bfloat16=args.precision == "bfloat16",
        schedule=Schedule(peak=args.rate, warmup=WARMUP),
    )
    with training_progress("semantic", args.steps) as report:
        train_semantic(args.work, steps=args.steps, device=args.device, progress=report, settings=settings)
    export_semantic(args.work, args.out)
    (args.out / TRAINING_FILE).write_text(json.dumps({"semantic": _command(args)}, indent=2) + "\n", "utf-8")
    print(f"weights: {args.out}")
    return 0


def _side(text: str) -> int:
    side = int(text)
    if side < _STRIDE or side % _STRIDE:
        raise argparse.ArgumentTypeError(f"expected a multiple of {_STRIDE}, got {side}")
    return side


def _command(args: argparse.Namespace) -> str:
    words = ["segserve", "train", "semantic"]
    for name in ("architecture", "steps", "batch", "rate", "early_size", "input_size", "precision", "seed", "device"):
        words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return shlex.join([*words, "--out", str(args.out)])
