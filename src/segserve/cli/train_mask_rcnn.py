"""``segserve train mask-rcnn``: fine-tune a Mask R-CNN on COCO annotations, or train one from nothing.

    segserve train mask-rcnn --train coco.train.json --val coco.val.json --images photos --out weights/mine

The weights in --out are the best epoch's, averaged over the last steps. Interrupt it whenever you like: the same
command with --resume goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segserve.cli.training_progress import not_negative, positive, training_progress

if TYPE_CHECKING:
    from segserve.training.coco import Dataset
    from segserve.training.mask_rcnn_training import Epoch, MaskRcnnRun

TRAINING_FILE, METRICS_FILE = "training.json", "metrics.json"
SCRATCH_RATE, FINE_RATE = 1e-3, 2e-4
_BACKBONES = ("resnet50", "resnet101", "mobilenet_v3_large")


def add_parser(targets: Any) -> None:
    """Add ``mask-rcnn`` to the subcommands of ``train``."""
    parser = targets.add_parser(
        "mask-rcnn",
        help="a Mask R-CNN on COCO annotations",
        description=(__doc__ or "").partition("\n")[0].partition(": ")[2].capitalize(),
        epilog="example: segserve train mask-rcnn --train coco.train.json --val coco.val.json --images photos "
        "--weights weights/demo/mask_rcnn --out weights/mine --archive",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--train", type=Path, required=True, metavar="FILE", help="COCO annotations to learn")
    data.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the pictures they name")
    data.add_argument("--val", type=Path, metavar="FILE", help="annotations to score each epoch with")
    data.add_argument("--val-images", type=Path, metavar="DIR", help="folder of their pictures (default: --images)")
    model = parser.add_argument_group("model")
    model.add_argument("--backbone", choices=_BACKBONES, default="resnet50", help="default: resnet50")
    model.add_argument(
        "--weights",
        type=Path,
        metavar="PATH",
        help="start from these: a folder of this command, a detectron2 checkpoint (with --config), or a torchvision "
        "classification checkpoint of the backbone. Classes that a Mask R-CNN knows by name keep their weights",
    )
    model.add_argument("--config", type=Path, metavar="FILE", help="detectron2's configuration of --weights")
    model.add_argument("--channels", type=positive, default=256, help="of pyramid and mask head (default 256)")
    model.add_argument("--box-channels", type=positive, default=1024, help="of the box head (default 1024)")
    model.add_argument("--min-size", type=positive, default=800, help="shorter side of the input in px (default 800)")
    model.add_argument("--max-size", type=positive, default=1333, help="longest side of the input (default 1333)")
    course = parser.add_argument_group("course")
    course.add_argument("--epochs", type=positive, default=12, help="default 12")
    course.add_argument("--batch", type=positive, default=4, help="pictures a step (default 4)")
    course.add_argument(
        "--rate", type=float, help=f"learning rate (default {SCRATCH_RATE:g}, or {FINE_RATE:g} with --weights)"
    )
    course.add_argument("--no-flip", action="store_true", help="never mirror pictures (writing, left and right hands)")
    course.add_argument("--scale", type=float, nargs=2, default=(0.8, 1.25), metavar=("MIN", "MAX"), help="size jitter")
    course.add_argument("--seed", type=not_negative, default=0, help="default 0")
    course.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --work")
    place = parser.add_argument_group("place")
    place.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the weights")
    place.add_argument("--work", type=Path, metavar="DIR", help="folder for checkpoints (default: work/ in --out)")
    place.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 … (default: auto)")
    place.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="auto: bfloat16 on a GPU that has it, else float32; on CPUs with AMX bfloat16 is faster",
    )
    place.add_argument("--threads", type=positive, default=1, help="CPU threads of torch (default 1)")
    place.add_argument("--loaders", type=not_negative, default=0, help="processes that prepare pictures (default 0)")
    place.add_argument("--half", action="store_true", help="store the weights as float16, half the size")
    place.add_argument(
        "--archive", nargs="?", const="mask_rcnn", metavar="NAME", help="also pack model_store/NAME.mar for serving"
    )
    place.add_argument("--model-store", type=Path, default=Path("model_store"), metavar="DIR", help="where to")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, then write the report, and the archive if one is wanted. Returns the exit status."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import cv2
    import torch

    from segserve.errors import InvalidRequestError
    from segserve.torchserve.archive import build_archive, check_name
    from segserve.training.coco import read_dataset
    from segserve.training.mask_rcnn_training import has_run

    cv2.setNumThreads(args.threads)
    torch.set_num_threads(args.threads)
    work = args.work or args.out / "work"
    if has_run(work) and not args.resume:
        raise InvalidRequestError(f"{work} holds a training already: go on with --resume, or name another --work.")
    if args.resume and not has_run(work):
        raise InvalidRequestError(f"--resume: {work} holds no checkpoint. Leave it out to begin.")
    if args.rate is not None and not 0 < args.rate < 1:
        raise InvalidRequestError(f"--rate: expected a number between 0 and 1, came {args.rate:g}.")
    if not 0.1 <= args.scale[0] <= args.scale[1] <= 10:
        raise InvalidRequestError(f"--scale: expected 0.1 <= MIN <= MAX <= 10, came {args.scale[0]} {args.scale[1]}.")
    if args.min_size > args.max_size:
        raise InvalidRequestError(f"--min-size: expected at most --max-size, came {args.min_size} and {args.max_size}.")
    if args.archive:
        # Said before the training rather than after it.
        check_name(args.archive)
    dataset = read_dataset(args.train, args.images)
    validation = None
    if args.val is not None:
        validation = _same_classes(read_dataset(args.val, args.val_images or args.images), dataset)
    print(f"{len(dataset.pictures)} pictures to learn, {len(validation.pictures) if validation else 0} to score")
    training = _prepare(args, work, dataset, validation)
    steps = args.epochs * training.steps_per_epoch
    with training_progress("mask-rcnn", steps) as report:
        training.train(args.out, args.epochs, report, _print_epoch, half=args.half)
    _write_report(args, training)
    print(f"weights: {args.out}")
    if args.archive:
        print(f"archive: {build_archive('mask_rcnn', args.out, args.model_store, name=args.archive)}")
    return 0


def _prepare(args: argparse.Namespace, work: Path, dataset: Dataset, validation: Dataset | None) -> MaskRcnnRun:
    from segserve.models.device import choose_placement
    from segserve.training.mask_rcnn_start import network_for, new_architecture
    from segserve.training.mask_rcnn_training import MaskRcnnRun, MaskRcnnSettings

    wanted = new_architecture(
        dataset.classes,
        args.backbone,
        channels=args.channels,
        box_channels=args.box_channels,
        min_size=args.min_size,
        max_size=args.max_size,
    )
    rate = args.rate or (SCRATCH_RATE if args.weights is None else FINE_RATE)
    settings = MaskRcnnSettings(
        rate,
        args.batch,
        args.seed,
        not args.no_flip,
        (args.scale[0], args.scale[1]),
        keep_statistics=args.weights is not None,
    )
    network = network_for(wanted, args.weights, args.config)
    placement = choose_placement(args.device, args.precision)
    return MaskRcnnRun(work, network, dataset, validation, settings, placement, args.loaders)


def _same_classes(validation: Dataset, dataset: Dataset) -> Dataset:
    from segserve.errors import InvalidRequestError

    if validation.classes != dataset.classes:
        raise InvalidRequestError(
            f"--val: its classes are {', '.join(validation.classes)}, those of --train {', '.join(dataset.classes)}."
        )
    return validation


def _print_epoch(epoch: Epoch) -> None:
    scores = epoch.scores
    if scores is None:
        print(f"epoch {epoch.number} is done", flush=True)
        return
    figures = ", ".join(f"{name.replace('_', ' ')} {scores[name]:.3f}" for name in _SHOWN if scores[name] is not None)
    print(f"epoch {epoch.number}: {figures}", flush=True)


_SHOWN = ("mask_ap", "mask_ap50", "mask_ap75", "box_ap")


def _write_report(args: argparse.Namespace, training: MaskRcnnRun) -> None:
    """``training.json``: which command made the weights; ``metrics.json``: each epoch's scores, the best one first."""
    (args.out / TRAINING_FILE).write_text(json.dumps({"mask_rcnn": _command(args)}, indent=2) + "\n", "utf-8")
    scored = [entry for entry in training.history if entry["scores"] and entry["scores"]["mask_ap"] is not None]
    best = max(scored, key=lambda entry: float(entry["scores"]["mask_ap"]), default=None)
    report = {"trained_by": _command(args), "best_epoch": best, "epochs": training.history}
    (args.out / METRICS_FILE).write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def _command(args: argparse.Namespace) -> str:
    words = ["segserve", "train", "mask-rcnn"]
    named = ("train", "val", "images", "val_images", "backbone", "weights", "config", "channels", "box_channels")
    for name in (*named, "min_size", "max_size", "epochs", "batch", "rate", "seed", "precision"):
        value = getattr(args, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += [f"--{name}" for name in ("no-flip", "half") if getattr(args, name.replace("-", "_"))]
    return shlex.join([*words, "--out", str(args.out)])
