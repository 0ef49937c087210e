"""``segserve compare onnx``: torch and ONNX Runtime side by side on the same pictures.

segserve compare onnx weights/demo/semantic --scenes build/scenes --out build/engines
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segserve.export.engine_comparison import EngineComparison
    from segserve.imaging import Rgb

EXAMPLE = """examples:
  segserve scenes --seed 424242 --count 20 --out build/scenes
  segserve compare onnx weights/demo/semantic --scenes build/scenes --out build/engines
  segserve compare onnx build/mine --onnx build/mine.onnx --images photos --batch 4"""
JSON_FILE, PICTURE_FILE = "engines.json", "engines.png"


def add_kind(kinds: Any) -> None:
    """Add ``onnx`` to what ``segserve compare`` compares."""
    parser = kinds.add_parser(
        "onnx",
        help="a semantic checkpoint's network in torch and as ONNX",
        description="Give every picture to both engines, taking turns, and report what each takes and how far their "
        "answers lie apart. Timed is the network alone, from the prepared input to the logits.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="DIR", help="a checkpoint folder of semantic")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="default: model.onnx in the checkpoint folder")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--scenes", type=Path, metavar="DIR", help="a folder made by segserve scenes")
    source.add_argument("--images", type=Path, metavar="DIR", help="a folder of pictures")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"write {JSON_FILE} and {PICTURE_FILE}")
    parser.add_argument("--batch", type=_positive, default=1, metavar="N", help="pictures in a batch (default 1)")
    parser.add_argument("--repeat", type=_positive, default=1, metavar="N", help="rounds over all pictures (default 1)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:1 ... (default cpu)")
    parser.add_argument("--threads", type=_positive, default=1, help="CPU threads of each engine (default 1)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare, print a table, write the files. Returns the exit status."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from segserve.export.engine_comparison import compare_engines
    from segserve.export.engines import load_engines, machine

    files = _files(args)
    engines = load_engines(args.checkpoint, args.onnx, device=args.device, threads=args.threads)
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=len(files))
        comparison = compare_engines(
            engines.run,
            _pictures(files),
            engines.prepare,
            count=len(files),
            batch_size=args.batch,
            rounds=args.repeat,
            done=lambda: bars.advance(task),
        )
    measured_on = machine(engines.device, args.threads, engines.providers)
    title = f"{len(files)} pictures, batches of {args.batch}; {_place(measured_on)}"
    console = Console()
    console.print(title, highlight=False)
    console.print(_table(comparison, engines.file_bytes))
    console.print(_answers(comparison))
    if engines.stale:
        console.print("[yellow]The ONNX file was made of other weights than the checkpoint's; export it again.[/]")
    if args.out:
        report = {
            "command": _command(args),
            **measured_on,
            "pictures": len(files),
            "file_bytes": engines.file_bytes,
            "onnx": engines.metadata,
            "made_of_other_weights": engines.stale,
            **comparison.to_dict(),
        }
        _write(args.out, report, comparison, engines.classes, title)
    return 0


def _files(args: argparse.Namespace) -> list[Path]:
    from segserve.export.pictures import picture_files

    if not args.scenes:
        return picture_files(args.images)
    from segserve.training.scenes.files import read_origin

    read_origin(args.scenes)  # tells what is wrong with a folder that is none of scenes
    return picture_files(args.scenes / "images")


def _pictures(files: list[Path]) -> Iterator[tuple[str, Rgb]]:
    from segserve.export.pictures import read_picture

    for file in files:
        yield file.name, read_picture(file)


def _table(comparison: EngineComparison, file_bytes: dict[str, int]) -> Any:
    from rich.table import Table

    runtimes = comparison.runtimes
    first = next(iter(runtimes))
    table = Table()
    table.add_column("", no_wrap=True)
    for name in runtimes:
        table.add_column(name, justify="right")
    each = list(runtimes.values())
    table.add_row("files, MB", *(f"{file_bytes[name] / 1e6:.2f}" for name in runtimes))
    table.add_row("batch median, ms", *(f"{one.median:.1f}" for one in each))
    table.add_row("batch p90, ms", *(f"{one.p90:.1f}" for one in each))
    table.add_row(f"times {first}'s", *(f"{one.ratio_to(each[0]):.2f}" for one in each))
    table.add_row("CPU time median, ms", *(f"{one.cpu_median:.1f}" for one in each))
    table.add_row("pictures/s", *(f"{one.pictures_per_second:.2f}" for one in each))
    return table


def _answers(comparison: EngineComparison) -> Any:
    from rich.table import Table

    found = comparison.agreement
    table = Table(title="how far the answers lie apart", show_header=False)
    table.add_row("largest difference of a logit", f"{found.max_abs:.2e} (in {comparison.worst})")
    table.add_row("as a share of the logits' range", f"{found.relative:.2e}")
    table.add_row("L2 of the logits, mean", f"{found.logits_l2:.2e}")
    table.add_row("L2 of the distribution, mean", f"{found.distribution_l2:.2e}")
    table.add_row("L2 of the label map, mean", f"{found.label_map_l2:.3g}")
    table.add_row("pixels with the same class", f"{found.labels:.4%}")
    table.add_row("in the worst picture", f"{found.worst_labels:.4%}")
    return table


def _write(
    out: Path, report: dict[str, Any], comparison: EngineComparison, classes: tuple[str, ...], title: str
) -> None:
    from segserve.export.engine_comparison_plot import write_engine_plot

    out.mkdir(parents=True, exist_ok=True)
    (out / JSON_FILE).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    write_engine_plot(comparison, classes, title, out / PICTURE_FILE)
    print(f"written: {out / JSON_FILE}, {out / PICTURE_FILE}")


def _place(measured_on: dict[str, Any]) -> str:
    threads = measured_on.get("threads")
    return f"{measured_on['device']}" + (f", threads: {threads}" if threads else "")


def _command(args: argparse.Namespace) -> str:
    """The command that gives the report again, with folders as they were given."""
    source = ["--scenes", args.scenes] if args.scenes else ["--images", args.images]
    onnx = ["--onnx", args.onnx] if args.onnx else []
    options = ["--batch", args.batch, "--repeat", args.repeat, "--device", args.device, "--threads", args.threads]
    words = ["segserve", "compare", "onnx", args.checkpoint, *onnx, *source, *options]
    return shlex.join(str(word) for word in words)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number
