"""``segserve export-onnx``: a semantic checkpoint as an ONNX file that answers as the checkpoint does.

segserve export-onnx semantic --weights weights/demo/semantic
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segserve.cli.archive_weights import size_of
from segserve.errors import InvalidRequestError

if TYPE_CHECKING:
    from segserve.export.onnx_export import Export, Step
    from segserve.imaging import Rgb

EXAMPLE = """examples:
  segserve export-onnx semantic --weights weights/demo/semantic
  segserve export-onnx semantic --weights checkpoints/segformer --pictures photos --opset 20
  segserve export-onnx semantic --weights model.pth --architecture fcn_resnet50 --labels labels.txt --out model.onnx"""

SCENE_SEED = 424_242
"""First of the scenes that exports are verified on by default; training never uses these."""

DEFAULT_PICTURES = 16
_DOING = {"load": "loading", "export": "exporting", "verify": "verifying"}


def add_parser(subparsers: Any) -> None:
    """Add ``export-onnx`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "export-onnx",
        help="write a semantic checkpoint as ONNX and prove that it answers the same",
        description="Write a checkpoint's network as one ONNX file (any batch size), run torch and ONNX Runtime on "
        "real pictures at batch sizes 1 to 8, and put the file in place only when they agree. Otherwise the exit "
        "status is 1, and a file that was there before stays.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=["semantic"], help="which model")
    parser.add_argument(
        "--weights", type=Path, required=True, metavar="PATH", help="a checkpoint folder, or a .pth of torchvision"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: model.onnx in the checkpoint folder")
    parser.add_argument("--opset", type=int, default=18, metavar="N", help="version of ONNX's operators (default 18)")
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="verify on the pictures of this folder (default: generated scenes)"
    )
    parser.add_argument(
        "--count", type=_positive, default=DEFAULT_PICTURES, metavar="N",
        help=f"of how many pictures at most (default {DEFAULT_PICTURES})",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, metavar="X",
        help="largest difference of a logit, as a share of the logits' range (default 1e-4)",
    )  # fmt: skip
    parser.add_argument(
        "--agreement", type=float, default=0.999, metavar="X",
        help="least share of pixels with the same class (default 0.999)",
    )  # fmt: skip
    own = parser.add_argument_group("torchvision's weights (.pth, .safetensors), as for segserve archive")
    own.add_argument("--architecture", metavar="NAME", help="default: deeplabv3_mobilenet_v3_large")
    own.add_argument("--labels", type=Path, metavar="FILE", help="the classes, one a line (default: Pascal VOC's)")
    own.add_argument("--input-size", type=size_of, metavar="HxW", help="to which pictures are resized (512x512)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, verify, put in place, print the numbers. Returns the exit status."""
    from rich.console import Console

    from segserve.export.onnx_export import export_onnx
    from segserve.export.verification import Tolerance
    from segserve.models.semantic.checkpoint import ONNX_FILE

    tolerance = Tolerance(args.tolerance, args.agreement)
    with _progress() as step, _checkpoint(args) as folder:
        out = args.out or folder / ONNX_FILE
        export = export_onnx(folder, out, _pictures(args), opset=args.opset, tolerance=tolerance, step=step)
    Console().print(_table(export, "pictures of the folder" if args.pictures else "generated scenes"))
    print(f"written: {export.file}, {export.report}")
    return 0


@contextmanager
def _checkpoint(args: argparse.Namespace) -> Iterator[Path]:
    """The checkpoint's folder; of torchvision's weights one that is removed again."""
    given = [name for name in ("architecture", "labels", "input_size") if getattr(args, name)]
    if not args.weights.is_file():
        if given:
            flag = given[0].replace("_", "-")
            raise InvalidRequestError(f"--{flag}: goes with torchvision's weights; a checkpoint folder has its own.")
        yield args.weights
        return
    if not args.out:
        raise InvalidRequestError("--out: missing; weights that are a file have no folder for the ONNX file.")
    from segserve.models.labels import read_labels
    from segserve.models.semantic.architecture import DEFAULT_ARCHITECTURE
    from segserve.models.semantic.checkpoint import convert_torchvision

    labels = read_labels(args.labels) if args.labels else None
    size = {"input_size": args.input_size} if args.input_size else {}
    with tempfile.TemporaryDirectory(prefix="segserve-export-") as folder:
        convert_torchvision(args.weights, args.architecture or DEFAULT_ARCHITECTURE, labels, Path(folder), **size)
        yield Path(folder)


def _pictures(args: argparse.Namespace) -> list[Rgb]:
    if args.pictures:
        from segserve.export.pictures import evenly, picture_files, read_picture

        return [read_picture(file) for file in evenly(picture_files(args.pictures), args.count)]
    from segserve.training.scenes import make_scene

    return [make_scene(SCENE_SEED + number).image for number in range(args.count)]


@contextmanager
def _progress() -> Iterator[Step]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # The stream itself, since sys.stderr leads nowhere while torch's exporter is at work.
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bars:
        task = bars.add_task("pictures", total=None)

        def step(name: str, done: int, total: int) -> None:
            bars.update(task, description=_DOING[name], completed=done, total=total or None)

        yield step


def _table(export: Export, source: str) -> Any:
    from rich.table import Table

    found, checked = export.verification.agreement, export.verification
    table = Table(title=f"{export.file.name}: torch and ONNX Runtime agree", show_header=False)
    rows = [
        ("pictures", f"{found.pictures} answers, {source}"),
        ("batch sizes", ", ".join(map(str, checked.batch_sizes))),
        ("largest difference of a logit", f"{found.max_abs:.2e}"),
        ("as a share of the logits' range", f"{found.relative:.2e} (allowed {checked.tolerance.logits:g})"),
        ("pixels with the same class", f"{found.labels:.4%} (needed {checked.tolerance.labels:.2%})"),
        ("in the worst picture", f"{found.worst_labels:.4%}"),
        ("opset, producer", f"{export.metadata['opset']}, {export.metadata['producer']}"),
        ("size", f"{export.bytes / 1e6:.1f} MB"),
    ]
    for label, value in rows:
        table.add_row(label, value)
    return table


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number
