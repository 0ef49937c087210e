"""``segserve archive``: pack checkpoints into model archives.

segserve archive demo
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segserve.torchserve.archive import Progress


def add_parser(subparsers: Any) -> None:
    """Add ``archive`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "archive",
        help="pack checkpoints into model archives (.mar)",
        description="Pack checkpoint folders into archives that TorchServe loads. The same input gives the same bytes.",
        epilog="examples: segserve archive demo | segserve archive checkpoints/grounded_sam grounded_sam --workers 2",
    )
    parser.add_argument(
        "source",
        nargs="?",
        default="demo",
        metavar="demo|PATH",
        help="the demo weights of the source tree (default), or a checkpoint folder, or a folder of such by model name",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="which models (default: all that the source has)")
    parser.add_argument("--out", type=Path, default=Path("model_store"), metavar="DIR", help="default: model_store")
    parser.add_argument("--name", help="name of the served model, when it is one (default: MODEL)")
    parser.add_argument("--model-version", default="1.0", metavar="V", help="version of the archive (default 1.0)")
    profile = parser.add_argument_group("serving, on CPU and GPU alike (default: as the yaml in handlers/ says)")
    profile.add_argument("--workers", type=int, metavar="N", help="processes that hold the model")
    profile.add_argument("--batch-size", type=int, metavar="N", help="most images that a worker takes at once")
    profile.add_argument("--batch-delay", type=int, metavar="MS", help="how long a worker waits for a full batch")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="an option of the handler, e.g. --set dtype=float32 --set box_threshold=0.4; may be repeated",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build the archives, with a progress bar on a terminal. Returns the exit status."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from segserve.errors import InvalidRequestError
    from segserve.torchserve.archive import build_archive

    sources = _sources(args.source, args.models)
    if args.name and len(sources) > 1:
        raise InvalidRequestError(f"--name: there are {len(sources)} models ({', '.join(sources)}); name one of them.")
    changes = {"workers": args.workers, "batch_size": args.batch_size, "batch_delay_ms": args.batch_delay}
    changes = {name: value for name, value in changes.items() if value is not None}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        for model, folder in sources.items():
            path = build_archive(
                model,
                folder,
                args.out,
                name=args.name,
                version=args.model_version,
                profiles={"cpu": changes, "gpu": changes},
                handler_options=_settings(args.settings),
                progress=_shown(bars, model),
            )
            print(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")
    return 0


def _shown(bars: Any, model: str) -> Progress:
    task = bars.add_task(model, total=None)
    return lambda done, total: bars.update(task, completed=done, total=total)


def _sources(source: str, models: list[str]) -> dict[str, Path]:
    """Checkpoint folder by model name."""
    from segserve.errors import NotFoundError
    from segserve.torchserve.archive import source_folder
    from segserve.torchserve.checkpoint_folder import PARTS

    if source in PARTS and not Path(source).is_dir():
        source, models = "demo", [source, *models]
    root = source_folder("weights") / "demo" if source == "demo" else Path(source)
    if not root.is_dir():
        raise NotFoundError(f"{root} is not a folder. Expected demo or the folder of a checkpoint.")
    wanted = models or [name for name in PARTS if (root / name).is_dir()]
    if not wanted:
        # The checkpoint itself: whichever model has all its parts there.
        wanted = [name for name, parts in PARTS.items() if all((root / part.folder).is_dir() for part in parts)]
    if not wanted:
        raise NotFoundError(f"{root} holds no checkpoint of {', '.join(PARTS)}.")
    return {name: root / name if (root / name).is_dir() else root for name in wanted}


def _settings(pairs: list[str]) -> dict[str, Any]:
    import yaml

    from segserve.errors import InvalidRequestError

    settings: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise InvalidRequestError(f"--set: expected KEY=VALUE, came {pair!r}.")
        settings[name.strip()] = yaml.safe_load(value)
    return settings
