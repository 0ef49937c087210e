"""``segserve train demo-sam2``: train the SAM 2 of the demo on generated scenes, from nothing.

    segserve train demo-sam2 --work build/train/sam2 --out weights/demo/sam2

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

STEPS, BATCH = 4000, 4
CHECKPOINT_EVERY = 100
TRAINING_FILE = "training.json"


def add_parser(targets: Any) -> None:
    """Add ``demo-sam2`` to the subcommands of ``train``."""
    parser = targets.add_parser(
        "demo-sam2",
        help="the small SAM 2 of the demo",
        description=(__doc__ or "").partition("\n")[0].partition(": ")[2].capitalize(),
        epilog="example: segserve train demo-sam2 --work build/train/sam2 --out weights/demo/sam2",
    )
    parser.add_argument("--out", type=Path, default=Path("weights/demo/sam2"), help="folder for the weights")
    parser.add_argument("--work", type=Path, default=Path("build/train/sam2"), help="folder for checkpoints")
    parser.add_argument("--steps", type=positive, default=STEPS, help="length of the run (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=BATCH, help="scenes a step (default: %(default)s)")
    parser.add_argument(
        "--seed", type=not_negative, default=0, help="of initial weights and data (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of torch (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, then write the transformers folder and ``training.json``. Returns the exit status."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not keep another training's core busy
    import cv2
    import torch

    from segserve.training.click_training import export_click_segmenter, train_click_segmenter

    cv2.setNumThreads(args.threads)
    torch.set_num_threads(args.threads)
    with training_progress("sam2", args.steps) as report:
        train_click_segmenter(
            args.work,
            steps=args.steps,
            seed=args.seed,
            batch_size=args.batch,
            device=args.device,
            progress=report,
            checkpoint_every=CHECKPOINT_EVERY,
        )
    export_click_segmenter(args.work, args.out)
    (args.out / TRAINING_FILE).write_text(json.dumps({"sam2": _command(args)}, indent=2) + "\n", "utf-8")
    print(f"weights: {args.out}")
    return 0


def _command(args: argparse.Namespace) -> str:
    words = ["segserve", "train", "demo-sam2"]
    for name in ("steps", "batch", "seed", "device"):
        words += [f"--{name}", str(getattr(args, name))]
    return shlex.join([*words, "--out", str(args.out)])
