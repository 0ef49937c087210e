"""``segserve archive``: pack checkpoints into model archives.

segserve archive demo
segserve archive mask_rcnn --weights model_final.pth --config config.yaml --labels labels.txt --name balloons
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segserve.torchserve.archive import Progress


_EXAMPLES = """examples:
  segserve archive demo
  segserve archive checkpoints/grounded_sam grounded_sam --workers 2
  segserve archive mask_rcnn --weights model_final.pth --config config.yaml --labels labels.txt --name balloons
  segserve archive mask_rcnn --weights runs/balloons --name balloons"""


def add_parser(subparsers: Any) -> None:
    """Add ``archive`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "archive",
        help="pack checkpoints into model archives (.mar)",
        description="Pack checkpoints into archives that TorchServe loads: checkpoint folders of segserve's, or\n"
        "weights of detectron2 with their configuration. The same input gives the same bytes.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        nargs="?",
        default="demo",
        metavar="demo|MODEL|DIR",
        help="the demo weights of the source tree (default), or a model (those of its demo weights, unless --weights "
        "names others), or a checkpoint folder, or a folder of such by model name",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="which models (default: all that the source has)")
    parser.add_argument("--out", type=Path, default=Path("model_store"), metavar="DIR", help="default: model_store")
    parser.add_argument("--name", help="name of the served model, when it is one (default: MODEL)")
    parser.add_argument("--model-version", default="1.0", metavar="V", help="version of the archive (default 1.0)")
    own = parser.add_argument_group("your own weights, for a MODEL")
    own.add_argument(
        "--weights",
        type=Path,
        metavar="PATH",
        help="a checkpoint folder of segserve's, or a Mask R-CNN of detectron2: .pth, .pkl or .safetensors",
    )
    own.add_argument("--config", type=Path, metavar="FILE", help="detectron2's configuration, .yaml")
    own.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="the classes' labels, one a line, in the order of the training (default: COCO's for weights trained on "
        "COCO, else numbers)",
    )
    own.add_argument(
        "--engine", choices=("torchvision", "detectron2"), help="what runs mask_rcnn (default: as the yaml says)"
    )
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

    changes = {"workers": args.workers, "batch_size": args.batch_size, "batch_delay_ms": args.batch_delay}
    changes = {name: value for name, value in changes.items() if value is not None}
    options = _settings(args.settings) | ({"engine": args.engine} if args.engine else {})
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with _sources(args, options) as sources, Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        if args.name and len(sources) > 1:
            raise InvalidRequestError(
                f"--name: there are {len(sources)} models ({', '.join(sources)}); name one of them."
            )
        for model, folder in sources.items():
            path = build_archive(
                model,
                folder,
                args.out,
                name=args.name,
                version=args.model_version,
                profiles={"cpu": changes, "gpu": changes},
                handler_options=options,
                progress=_shown(bars, model),
            )
            print(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")
    return 0


def _shown(bars: Any, model: str) -> Progress:
    task = bars.add_task(model, total=None)
    return lambda done, total: bars.update(task, completed=done, total=total)


@contextlib.contextmanager
def _sources(args: argparse.Namespace, options: dict[str, Any]) -> Iterator[dict[str, Path]]:
    """Checkpoint folder by model name; one that was made of foreign weights is removed again."""
    from segserve.errors import InvalidRequestError

    for option in ("config", "labels"):
        if getattr(args, option) and not args.weights:
            raise InvalidRequestError(f"--{option}: belongs to --weights, which is missing.")
    if args.weights is None:
        yield _found_sources(args.source, args.models)
        return
    model = _model_of_weights(args)
    if args.weights.is_dir():
        yield {model: args.weights}
        return
    with tempfile.TemporaryDirectory(prefix="segserve-archive-") as folder:
        _convert(args, options.get("engine"), Path(folder))
        yield {model: Path(folder)}


def _model_of_weights(args: argparse.Namespace) -> str:
    """The model that --weights are for.

    Raises:
        NotFoundError: no such model, or nothing where the weights should be.
        InvalidRequestError: no single model, or options that do not go together.
    """
    from segserve.catalog import MASK_RCNN
    from segserve.errors import InvalidRequestError, NotFoundError
    from segserve.torchserve.checkpoint_folder import PARTS

    names: list[str] = args.models if args.source == "demo" else [args.source, *args.models]
    if len(names) != 1:
        came = " ".join(names) or "none"
        raise InvalidRequestError(f"--weights: expected one model beside it ({', '.join(PARTS)}), came {came}.")
    (model,) = names
    if model not in PARTS:
        raise NotFoundError(f"--weights: {model!r} is no model; expected one of {', '.join(PARTS)}.")
    if not args.weights.exists():
        raise NotFoundError(f"--weights: there is no {args.weights}.")
    if args.weights.is_dir():
        for option in ("config", "labels"):
            if getattr(args, option):
                raise InvalidRequestError(
                    f"--{option}: goes with detectron2's weights; the folder {args.weights} has its own."
                )
    elif model != MASK_RCNN.name:
        raise InvalidRequestError(f"--weights: expected a checkpoint folder of {model}, came the file {args.weights}.")
    elif args.config is None:
        raise InvalidRequestError("--config: missing; detectron2's weights need the configuration (.yaml) beside them.")
    return model


def _convert(args: argparse.Namespace, engine: str | None, folder: Path) -> None:
    """Make a checkpoint folder of detectron2's weights."""
    from rich.console import Console

    from segserve.models.mask_rcnn import detectron2_checkpoint
    from segserve.models.mask_rcnn.labels import read_labels

    labels = read_labels(args.labels) if args.labels else None
    make = detectron2_checkpoint.convert
    if engine == "detectron2":
        make = detectron2_checkpoint.convert_for_detectron2
    with Console(stderr=True).status("reading the weights"):
        make(args.weights, args.config, labels, folder)


def _found_sources(source: str, models: list[str]) -> dict[str, Path]:
    from segserve.errors import NotFoundError
    from segserve.torchserve.archive import source_folder
    from segserve.torchserve.checkpoint_folder import PARTS, models_in

    if source in PARTS and not Path(source).is_dir():
        source, models = "demo", [source, *models]
    root = source_folder("weights") / "demo" if source == "demo" else Path(source)
    if not root.is_dir():
        raise NotFoundError(f"{root} is not a folder. Expected demo, a model, or the folder of a checkpoint.")
    wanted = models or [name for name in PARTS if (root / name).is_dir()] or models_in(root)
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
