"""``segserve package-sagemaker``: model archives as SageMaker takes them.

segserve package-sagemaker --out model.tar.gz
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``package-sagemaker`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "package-sagemaker",
        help="pack model archives as SageMaker's model.tar.gz",
        description="Pack model archives (.mar) as SageMaker takes them: one model.tar.gz with all of them for an "
        "endpoint, which it unpacks into /opt/ml/model; or, for a multi-model endpoint, one NAME.tar.gz for each, "
        "which callers name as their TargetModel. The same archives give the same bytes.",
        epilog="examples: segserve package-sagemaker --out model.tar.gz | "
        "segserve package-sagemaker grounded_sam model_store/sam2.mar --multi-model packages",
    )
    parser.add_argument(
        "archives", nargs="*", metavar="ARCHIVE", help="files, or names of the model store (default: all of it)"
    )
    parser.add_argument(
        "--model-store", type=Path, default=Path("model_store"), metavar="DIR", help="default: model_store"
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--out", type=Path, default=Path("model.tar.gz"), metavar="FILE", help="default: model.tar.gz")
    forms.add_argument("--multi-model", type=Path, metavar="DIR", help="write DIR/NAME.tar.gz for each archive instead")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the packages and say what to do with them. Returns the exit status."""
    from segserve.torchserve.sagemaker_package import archives_of

    archives = archives_of(args.archives, args.model_store)
    if args.multi_model is None:
        _write(archives, args.out)
        print(
            f"Upload it, and give its address as the model's ModelDataUrl:\n"
            f"  aws s3 cp {args.out} s3://BUCKET/PREFIX/{args.out.name}"
        )
        return 0
    for archive in archives:
        _write([archive], args.multi_model / f"{archive.name}.tar.gz")
    print(
        f"Upload them, and give the prefix as the model's ModelDataUrl (Mode: MultiModel); callers name one as "
        f"TargetModel={archives[0].name}.tar.gz:\n"
        f"  aws s3 cp --recursive {args.multi_model} s3://BUCKET/PREFIX/"
    )
    return 0


def _write(archives: list[Any], target: Path) -> None:
    """Write one package, with a bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from segserve.torchserve.sagemaker_package import write_package

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(str(target))
        write_package(archives, target, lambda done, total: bars.update(bar, completed=done, total=total))
    names = ", ".join(f"{archive.name} {archive.version}" for archive in archives)
    print(f"{target}: {target.stat().st_size / 1e6:,.1f} MB with {names}")
