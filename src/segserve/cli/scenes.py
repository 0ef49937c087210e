"""``segserve scenes``: write generated interior scenes with their exact truth.

segserve scenes --seed 424242 --count 50 --out build/scenes
segserve scenes --seed 424242 --count 50 --out build/photos --format labelme --categories window,sofa
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from segserve.errors import InvalidRequestError


def add_parser(subparsers: Any) -> None:
    """Add ``scenes`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "scenes",
        help="write generated interior scenes with exact ground truth",
        description="Write generated interior scenes as PNG, their objects as COCO (instances.json) and their "
        "semantic label maps; or as PNG with a JSON file of labelme beside each. The same seed gives the same scene. "
        "Training uses seeds 1000000 to 499999999; take others for evaluation.",
        epilog="example: segserve scenes --seed 424242 --count 50 --out build/scenes --size 640x480",
    )
    parser.add_argument("--seed", type=_number_from(0), required=True, metavar="N", help="seed of the first scene")
    parser.add_argument(
        "--count", type=_number_from(1), default=1, metavar="K", help="how many: seeds N to N+K-1 (default 1)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new or empty folder, or earlier scenes to replace"
    )
    parser.add_argument(
        "--size",
        type=_size,
        metavar="WxH",
        help="width x height in pixels (default: drawn from the seed)",
    )
    parser.add_argument(
        "--format",
        choices=("coco", "labelme"),
        default="coco",
        help="coco: instances.json and label maps; labelme: a JSON file beside each picture (default: %(default)s)",
    )
    parser.add_argument(
        "--categories",
        type=lambda text: text.split(","),
        metavar="A,B,...",
        help="with --format labelme: annotate only these, such as window,sofa",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the scenes, with a progress bar on a terminal. Returns the exit status."""
    from rich.console import Console
    from rich.progress import Progress

    from segserve.training.scenes.files import write_scenes
    from segserve.training.scenes.labelme_files import write_labelme_scenes

    if args.categories and args.format != "labelme":
        raise InvalidRequestError("--categories: goes with --format labelme only")
    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task("scenes", total=args.count)
        wanted = {"seed": args.seed, "count": args.count, "size": args.size}
        wanted["progress"] = lambda done: bars.update(task, completed=done)
        if args.format == "labelme":
            write_labelme_scenes(args.out, **wanted, categories=args.categories)
        else:
            write_scenes(args.out, **wanted)
    last = args.seed + args.count - 1
    print(f"{args.count} scenes (seeds {args.seed} to {last}) in {args.out}")
    return 0


def _number_from(smallest: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if value < smallest:
            raise argparse.ArgumentTypeError(f"expected {smallest} or more, got {value}")
        return value

    return number


def _size(text: str) -> tuple[int, int]:
    """The text `640x480` as (height, width)."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 640x480, got {text!r}")
    return int(height), int(width)
