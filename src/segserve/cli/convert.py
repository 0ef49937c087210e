"""``segserve convert``: annotations of labelme or VGG Image Annotator as COCO, original files of SAM 2 as checkpoints.

segserve convert labelme photos --out build/mine/coco.json --split 0.8
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segserve.errors import InvalidRequestError

if TYPE_CHECKING:
    from segserve.training.annotated_picture import AnnotatedPicture
    from segserve.training.conversion import Conversion, Progress

EXAMPLE = """examples:
  segserve convert labelme photos --out build/mine/coco.json --split 0.8
  segserve convert via balloon/train --out build/balloon/train.json --class balloon
  segserve convert sam2 sam2.1_hiera_small.pt --out checkpoints/sam2"""

EMBEDDED_FOLDER = "images"
_SHOWN_BROKEN = 10


def add_parser(subparsers: Any) -> None:
    """Add ``convert`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "convert",
        help="turn labelme's or VGG Image Annotator's annotations into COCO, or SAM 2's original weights into a folder",
        description="Turn annotations into COCO files, which segserve train reads. All files are read before anything "
        "is written; existing COCO files of the same names are replaced. Or turn the file of SAM 2's authors into a "
        "checkpoint folder, which segserve archive sam2 --weights takes.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    labelme = formats.add_parser("labelme", help="a folder of pictures with labelme's JSON files", epilog=EXAMPLE)
    labelme.add_argument("source", type=Path, metavar="SRC", help="the folder, with those in it, or one JSON file")
    via = formats.add_parser("via", help="VGG Image Annotator's JSON export or project", epilog=EXAMPLE)
    via.add_argument("source", type=Path, metavar="SRC", help="the JSON file, or a folder that has such files")
    via.add_argument("--attribute", metavar="NAME", help="the region attribute that names the class (default: found)")
    via.add_argument(
        "--class",
        dest="default_class",
        metavar="NAME",
        help="the class of all regions; with --attribute, of those without it",
    )
    for format_ in (labelme, via):
        format_.formatter_class = argparse.RawDescriptionHelpFormatter
        _add_options(format_)
    sam2 = formats.add_parser(
        "sam2", help="SAM 2's or 2.1's original .pt file, in any of its four sizes", epilog=EXAMPLE
    )
    sam2.formatter_class = argparse.RawDescriptionHelpFormatter
    sam2.add_argument("source", type=Path, metavar="FILE", help="the .pt file; no code in it is run")
    sam2.add_argument("--out", type=Path, required=True, metavar="DIR", help="the checkpoint folder to make")
    parser.set_defaults(run=run)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the COCO file, such as coco.json")
    parser.add_argument(
        "--split",
        type=_fraction,
        metavar="PART",
        help="write FILE's name with .train and .val instead, with this part of the pictures for training",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the split (default 0)")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help=f"folder of the pictures (default: SRC); embedded pictures go there (default: {EMBEDDED_FOLDER}/ "
        "beside FILE)",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="one class a line: keep only these, in this order (default: all)"
    )
    parser.add_argument("--skip-broken", action="store_true", help="go on after damaged files, and list them")


def run(args: argparse.Namespace) -> int:
    """Convert, and show what was found. Returns the exit status."""
    if args.format == "sam2":
        return _convert_sam2(args.source, args.out)
    from rich.console import Console

    from segserve.training.conversion import coco_content, only_classes, write_embedded, write_files

    wanted = _read_labels(args.labels) if args.labels else None
    conversion = _read(args)
    if wanted is not None:
        only_classes(conversion, wanted)
    labels = wanted if wanted is not None else conversion.labels
    parts = _parts(args, conversion)
    embedded = write_embedded(conversion, args.images or args.out.parent / EMBEDDED_FOLDER)
    description = f"segserve convert {args.format}"
    write_files({path: coco_content(pictures, labels, description) for path, pictures in parts.items()})
    console = Console()
    console.print(_table(labels, parts))
    _print_left_out(console, conversion)
    root = conversion.folder.root
    if embedded:
        print(f"{embedded} pictures were taken out of their annotation files; all pictures are in {root}")
    print(f"written: {', '.join(map(str, parts))}; the names in it are relative to {root} (train with --images {root})")
    return 0


def _convert_sam2(file: Path, folder: Path) -> int:
    from rich.console import Console

    from segserve.models.sam2.original_checkpoint import convert

    with Console(stderr=True).status(f"converting {file.name}"):
        convert(file, folder)
    print(f"written: {folder}; serve it with: segserve archive sam2 --weights {folder}")
    return 0


def _read(args: argparse.Namespace) -> Conversion:
    from rich.console import Console
    from rich.progress import Progress as Bars

    from segserve.training.conversion import read_labelme, read_via

    with Bars(console=Console(stderr=True)) as bars:
        task = bars.add_task("pictures", total=None)
        advance: Progress = lambda done, total: bars.update(task, completed=done, total=total)  # noqa: E731
        if args.format == "labelme":
            return read_labelme(args.source, args.images, args.skip_broken, advance)
        naming = {"attribute": args.attribute, "default_class": args.default_class}
        return read_via(args.source, args.images, args.skip_broken, advance, **naming)


def _read_labels(file: Path) -> list[str]:
    """The classes of a text file, one a line, blank lines left out."""
    try:
        labels = [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{file}: expected a text file in UTF-8: {error}") from error
    twice = [label for label in dict.fromkeys(labels) if labels.count(label) > 1]
    if not labels or twice:
        problem = f"names {twice[0]!r} twice" if twice else "is empty"
        raise InvalidRequestError(f"{file}: expected one class a line, each once; it {problem}")
    return labels


def _parts(args: argparse.Namespace, conversion: Conversion) -> dict[Path, list[AnnotatedPicture]]:
    """The pictures of each file to be written."""
    from segserve.training.dataset_split import split

    if args.split is None:
        return {args.out: conversion.pictures}
    names = [picture.name for picture in conversion.pictures]
    classes = [{annotation.label for annotation in picture.annotations} for picture in conversion.pictures]
    divided = zip(("train", "val"), split(names, classes, args.split, args.seed), strict=True)
    suffix = args.out.suffix or ".json"
    return {
        args.out.with_name(f"{args.out.stem}.{part}{suffix}"): [conversion.pictures[index] for index in indices]
        for part, indices in divided
    }


def _table(labels: list[str], parts: dict[Path, list[AnnotatedPicture]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column("")
    for path in parts:
        table.add_column(escape(path.name), justify="right")
    table.add_row("pictures", *(str(len(pictures)) for pictures in parts.values()), end_section=True)
    for label in labels:
        counts = (
            sum(annotation.label == label for picture in pictures for annotation in picture.annotations)
            for pictures in parts.values()
        )
        table.add_row(escape(label), *map(str, counts))
    return table


def _print_left_out(console: Any, conversion: Conversion) -> None:
    from rich.markup import escape

    for reason, count in sorted(conversion.left_out.items()):
        console.print(f"[yellow]left out[/]: {count} × {escape(reason)}", highlight=False)
    for message in conversion.broken[:_SHOWN_BROKEN]:
        console.print(f"[red]skipped[/]: {escape(message)}", highlight=False, soft_wrap=True)
    if len(conversion.broken) > _SHOWN_BROKEN:
        console.print(f"[red]skipped[/]: {len(conversion.broken) - _SHOWN_BROKEN} more")


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number over 0 and under 1 such as 0.8, got {text}")
    return value
