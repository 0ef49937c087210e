"""``segserve train demo-grounded-sam``: train the demo weights on generated scenes, from nothing.

    segserve train demo-grounded-sam --work build/train --out weights/demo/grounded_sam

Interrupt it whenever you like: the same command goes on from the last checkpoint of each model.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from segserve.cli import train_mask_rcnn, train_sam2, train_semantic
from segserve.cli.training_progress import not_negative, positive, training_progress

DETECTOR_STEPS, SEGMENTER_STEPS = 5000, 2200
DETECTOR_FOLDER, SEGMENTER_FOLDER = "grounding_dino", "sam"
TRAINING_FILE = "training.json"


def add_parser(subparsers: Any) -> None:
    """Add ``train`` to the command line's subcommands."""
    parser = subparsers.add_parser("train", help="train models", description=__doc__.splitlines()[0])
    targets = parser.add_subparsers(dest="target", required=True, metavar="WHAT")
    demo = targets.add_parser("demo-grounded-sam", help="the small Grounding DINO and SAM of the demo")
    demo.add_argument("--out", type=Path, default=Path("weights/demo/grounded_sam"), help="folder for the weights")
    demo.add_argument("--work", type=Path, default=Path("build/train"), help="folder for checkpoints")
    demo.add_argument("--only", choices=("detector", "segmenter"), help="train one of the two")
    demo.add_argument("--steps-detector", type=positive, default=DETECTOR_STEPS, help="length of its run, in steps")
    demo.add_argument("--steps-segmenter", type=positive, default=SEGMENTER_STEPS, help="length of its run, in steps")
    demo.add_argument("--batch-detector", type=positive, default=8, help="scenes a step (default 8)")
    demo.add_argument("--batch-segmenter", type=positive, default=4, help="scenes a step (default 4)")
    demo.add_argument("--seed", type=not_negative, default=0, help="seed of initial weights and data (default 0)")
    demo.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default cpu)")
    demo.add_argument("--threads", type=positive, default=1, help="CPU threads of torch (default 1)")
    demo.set_defaults(run=run)
    train_mask_rcnn.add_parser(targets)
    train_semantic.add_parser(targets)
    train_sam2.add_parser(targets)


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
        with training_progress("detector", args.steps_detector) as report:
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
        with training_progress("segmenter", args.steps_segmenter) as report:
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
