"""``segserve compare mask-rcnn``: models side by side on the same annotated pictures.

segserve compare mask-rcnn build/r50 weights/demo/mask_rcnn --scenes build/scenes --out build/comparison
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segserve.cli import compare_onnx
from segserve.errors import InvalidRequestError

if TYPE_CHECKING:
    from segserve.imaging import Rgb
    from segserve.render import Drawable
    from segserve.training.coco import Dataset
    from segserve.training.comparison import Comparison, Result

EXAMPLE = """example:
  segserve scenes --seed 500000000 --count 200 --out build/scenes
  segserve compare mask-rcnn build/r50 weights/demo/mask_rcnn --scenes build/scenes --out build/comparison
  segserve compare mask-rcnn A B --val val.json --images photos --names large small"""
JSON_FILE, PLOT_FILE, PICTURES_FILE = "comparison.json", "comparison.png", "predictions.png"
DRAWN_SCORE = 0.5


def add_parser(subparsers: Any) -> None:
    """Add ``compare`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "compare",
        help="compare models, or one model's engines",
        description="Measure side by side: Mask R-CNNs by size, latency, memory and accuracy on annotated pictures; "
        "the engines of a semantic model by runtime and by how far their answers lie apart.",
        epilog=f"{EXAMPLE}\n  segserve compare onnx weights/demo/semantic --scenes build/scenes --out build/engines",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="WHAT")
    one = kinds.add_parser(
        "mask-rcnn",
        help="checkpoint folders of Mask R-CNN",
        description="Show every picture to every model, taking turns, and report what each costs and finds.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("checkpoints", type=Path, nargs="+", metavar="DIR", help="a folder with config.json and weights")
    truth = one.add_mutually_exclusive_group(required=True)
    truth.add_argument("--val", type=Path, metavar="FILE", help="COCO annotations; --images says where pictures lie")
    truth.add_argument("--scenes", type=Path, metavar="DIR", help="a folder made by segserve scenes")
    one.add_argument("--images", type=Path, metavar="DIR", help="the pictures of --val")
    one.add_argument("--out", type=Path, metavar="DIR", help=f"write {JSON_FILE}, {PLOT_FILE} and {PICTURES_FILE}")
    one.add_argument("--names", nargs="+", metavar="NAME", help="of the models (default: the folders' names)")
    one.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default auto)")
    one.add_argument("--threads", type=_positive, default=1, help="CPU threads of torch (default 1)")
    one.add_argument("--repeat", type=_positive, default=1, metavar="N", help="show every picture N times (default 1)")
    one.set_defaults(run=run)
    compare_onnx.add_kind(kinds)


def run(args: argparse.Namespace) -> int:
    """Compare, print a table, write the files. Returns the exit status."""
    import cv2
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from segserve.training.comparison import compare, machine, mask_rcnn_contestant

    names = _names(args.checkpoints, args.names)
    dataset = _dataset(args)
    cv2.setNumThreads(args.threads)
    torch.set_num_threads(args.threads)
    pairs = zip(args.checkpoints, names, strict=True)
    contestants = [mask_rcnn_contestant(folder, name, args.device) for folder, name in pairs]
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=args.repeat * len(dataset.pictures))
        comparison = compare(contestants, dataset, rounds=args.repeat, done=lambda: bars.advance(task))
    measured_on = machine(contestants[0].device)
    console = Console()
    console.print(_table(comparison, measured_on))
    for result in comparison.results:
        if result.unknown_classes:
            console.print(f"{result.name} does not know: {', '.join(result.unknown_classes)}", markup=False)
    if args.out:
        _write(args, comparison, measured_on)
    return 0


def _names(checkpoints: Sequence[Path], given: Sequence[str] | None) -> list[str]:
    """Those given, or as much of the ends of the folders' paths as tells them apart."""
    if given is not None:
        if len(given) != len(checkpoints):
            raise InvalidRequestError(f"--names: expected {len(checkpoints)}, one for each model, got {len(given)}")
        if len(set(given)) != len(given):
            raise InvalidRequestError(f"--names: expected a different one for each model, got {', '.join(given)}")
        return list(given)
    paths = [folder.resolve() for folder in checkpoints]
    longest = max(len(path.parts) for path in paths)
    for depth in range(1, longest):
        names = ["/".join(path.parts[1:][-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise InvalidRequestError("the same checkpoint is given twice; --names can tell them apart")


def _dataset(args: argparse.Namespace) -> Dataset:
    from segserve.training.coco import read_dataset
    from segserve.training.scenes.files import INSTANCES_FILE, read_origin

    if args.scenes:
        if args.images:
            raise InvalidRequestError("--images belongs to --val; --scenes has its pictures beside its annotations")
        read_origin(args.scenes)  # tells what is wrong with a folder that is none of scenes
        return read_dataset(args.scenes / INSTANCES_FILE, args.scenes)
    if not args.images:
        raise InvalidRequestError("--val: say with --images in which folder its pictures lie")
    return read_dataset(args.val, args.images)


def _table(comparison: Comparison, measured_on: dict[str, Any]) -> Any:
    from rich.table import Table

    first = comparison.results[0]
    table = Table(title=_title(comparison, measured_on))
    table.add_column("", no_wrap=True)
    for result in comparison.results:
        table.add_column(result.name, justify="right", overflow="fold")
    for label, cells in _rows(comparison.results):
        table.add_row(label, *cells)
    table.add_section()
    for name, scores in first.scores.per_class.items():
        if scores.instances:
            found = (result.scores.per_class[name].mask_ap50 for result in comparison.results)
            table.add_row(f"AP50 {name} ({scores.instances})", *(_share(value) for value in found))
    return table


def _title(comparison: Comparison, measured_on: dict[str, Any]) -> str:
    scores = comparison.results[0].scores
    threads = f", {measured_on['threads']} of them used" if "threads" in measured_on else ""
    return f"{scores.pictures} pictures, {scores.instances} objects; {measured_on['device']}{threads}"


def _rows(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    first = results[0]
    return [
        ("parameters, millions", [f"{result.parameters / 1e6:.2f}" for result in results]),
        ("weights file, MB", [f"{result.file_bytes / 1e6:.2f}" for result in results]),
        ("latency median, ms", [f"{result.median:.1f}" for result in results]),
        ("latency p90, ms", [f"{result.p90:.1f}" for result in results]),
        (f"latency, times {first.name}'s", [f"{result.ratio_to(first):.2f}" for result in results]),
        ("CPU time median, ms", [f"{result.cpu_median:.1f}" for result in results]),
        ("pictures/s", [f"{result.pictures_per_second:.2f}" for result in results]),
        ("memory of a picture, MB", [_megabytes(result.peak_memory) for result in results]),
        ("mask AP", [_share(result.scores.mask_ap) for result in results]),
        ("mask AP50", [_share(result.scores.mask_ap50) for result in results]),
        ("mask AP75", [_share(result.scores.mask_ap75) for result in results]),
        ("box AP", [_share(result.scores.box_ap) for result in results]),
        ("box AP50", [_share(result.scores.box_ap50) for result in results]),
    ]


def _write(args: argparse.Namespace, comparison: Comparison, measured_on: dict[str, Any]) -> None:
    import json

    from segserve.training.comparison_plot import write_comparison_plot
    from segserve.training.mask_rcnn_samples import drawing_sheet, truth_drawings, write_sheet

    args.out.mkdir(parents=True, exist_ok=True)
    report = {"command": _command(args), **measured_on, **comparison.to_dict()}
    (args.out / JSON_FILE).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    names = [result.name for result in comparison.results]
    write_comparison_plot(comparison, _title(comparison, measured_on), args.out / PLOT_FILE)
    rows: list[tuple[Rgb, list[Sequence[Drawable]]]] = []
    for sample in comparison.samples:
        columns: list[Sequence[Drawable]] = [truth_drawings(sample.picture, comparison.classes)]
        for answer in sample.answers:
            columns.append([each for each in answer.instances if each.score >= DRAWN_SCORE])
        rows.append((sample.image, columns))
    headings = ["truth", *names]
    sheet = drawing_sheet(rows, headings, 480 * len(headings), comparison.classes)
    write_sheet(sheet, args.out / PICTURES_FILE)
    print(f"written: {', '.join(str(args.out / name) for name in (JSON_FILE, PLOT_FILE, PICTURES_FILE))}")


def _command(args: argparse.Namespace) -> str:
    """The command that gives the report again, with folders as they were given."""
    source = ["--scenes", args.scenes] if args.scenes else ["--val", args.val, "--images", args.images]
    names = ["--names", *args.names] if args.names else []
    options = ["--device", args.device, "--threads", args.threads, "--repeat", args.repeat]
    words = ["segserve", "compare", args.kind, *args.checkpoints, *source, *names, *options]
    return shlex.join(str(word) for word in words)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _megabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.0f}"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number
