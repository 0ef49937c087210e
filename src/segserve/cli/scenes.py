"""``segserve scenes``: write generated interior scenes with their exact truth.

segserve scenes --seed 424242 --count 50 --out build/scenes
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``scenes`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "scenes",
        help="write generated interior scenes with exact ground truth",
        description="Write generated interior scenes as PNG, their objects as COCO (instances.json) and their "
        "semantic label maps. The same seed gives the same scene. Training uses seeds 1000000 to 499999999; "
        "take others for evaluation.",
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the scenes, with a progress bar on a terminal. Returns the exit status."""
    from rich.console import Console
    from rich.progress import Progress

    from segserve.training.scenes.files import write_scenes

    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task("scenes", total=args.count)
        write_scenes(args.out, args.seed, args.count, args.size, lambda done: bars.update(task, completed=done))
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
