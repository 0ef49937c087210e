"""``segserve archive``: pack checkpoints into model archives.

segserve archive demo
segserve archive mask_rcnn --weights model_final.pth --config config.yaml --labels labels.txt --name balloons
segserve archive semantic --weights model.pth --labels labels.txt --onnx model.onnx --name streets
segserve archive sam2 --weights checkpoints/sam2
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segserve.cli.archive_weights import checkpoint_folders, size_of

if TYPE_CHECKING:
    from segserve.torchserve.archive import Progress


_EXAMPLES = """examples:
  segserve archive demo
  segserve archive checkpoints/grounded_sam grounded_sam --workers 2
  segserve archive mask_rcnn --weights model_final.pth --config config.yaml --labels labels.txt --name balloons
  segserve archive mask_rcnn --weights runs/balloons --name balloons
  segserve archive semantic --weights model.pth --architecture fcn_resnet50 --labels labels.txt --onnx model.onnx
  segserve archive semantic --weights checkpoints/segformer --engine onnx --name streets
  segserve archive sam2 --weights checkpoints/sam2 --set embedding_cache_mb=1024"""


def add_parser(subparsers: Any) -> None:
    """Add ``archive`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "archive",
        help="pack checkpoints into model archives (.mar)",
        description="Pack checkpoints into archives that TorchServe loads: checkpoint folders of segserve's (for\n"
        "semantic and sam2 also of transformers'), or weights of detectron2 or torchvision. An ONNX file is\n"
        "loaded and run once before it is packed. The same input gives the same bytes.",
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
        help="a checkpoint folder, or a file: a Mask R-CNN of detectron2 (.pth, .pkl, .safetensors), or a semantic "
        "model of torchvision (.pth, .safetensors)",
    )
    own.add_argument("--config", type=Path, metavar="FILE", help="detectron2's configuration, .yaml")
    own.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="the classes' labels, one a line, in the order of the training (default: COCO's for a Mask R-CNN trained "
        "on COCO, else numbers; Pascal VOC's for a semantic model of 21 classes)",
    )
    own.add_argument(
        "--architecture",
        metavar="NAME",
        help="of torchvision's semantic weights, e.g. lraspp_mobilenet_v3_large, fcn_resnet50 "
        "(default: deeplabv3_mobilenet_v3_large)",
    )
    own.add_argument(
        "--input-size", type=size_of, metavar="HxW", help="to which torchvision's semantic model resizes (512x512)"
    )
    own.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE",
        help="the same semantic model for the engine onnx (default: model.onnx in the checkpoint folder, if there is "
        "one)",
    )
    parser.add_argument(
        "--engine",
        metavar="NAME",
        help="what runs the model: torchvision or detectron2 for mask_rcnn; for semantic the default of requests that "
        "name none, torch or onnx (default: as the yaml says)",
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
    with (
        checkpoint_folders(args, options) as sources,
        Progress(*columns, console=Console(stderr=True), transient=True) as bars,
    ):
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
