"""``segserve evaluate``: accuracy on generated scenes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segserve.training.evaluation import Segmenter

EXAMPLE = """example:
  segserve scenes --seed 424242 --count 50 --out build/scenes
  segserve evaluate grounded_sam --scenes build/scenes                    # through a running server
  segserve evaluate grounded_sam --scenes build/scenes --local weights/demo/grounded_sam"""


def add_parser(subparsers: Any) -> None:
    """Add ``evaluate`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model's accuracy on generated scenes",
        description="Ask a model about every scene of a folder and score its answers against the truth.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=["grounded_sam"], help="which model")
    parser.add_argument("--scenes", type=Path, required=True, metavar="DIR", help="folder made by segserve scenes")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server to ask (default: %(default)s)")
    parser.add_argument("--api-key", help="its API key, if it wants one")
    parser.add_argument("--local", type=Path, metavar="DIR", help="ask this checkpoint folder in process, no server")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the metrics as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Evaluate, print a table, write the JSON."""
    import json

    from rich.console import Console
    from rich.progress import Progress

    from segserve.cli.train import TRAINING_FILE
    from segserve.training.evaluation import evaluate, summary
    from segserve.training.scenes.files import read_origin, read_scenes

    origin = read_origin(options.scenes)
    segment, asked = _local(options.local) if options.local else _served(options.url, options.api_key)
    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task("scenes", total=origin.count)
        metrics = evaluate(read_scenes(options.scenes), segment, lambda: bars.advance(task))
    Console().print(_table(summary(metrics), f"{options.model} on {metrics['scenes']} scenes, {asked}"))
    if options.out:
        commands = [
            f"segserve scenes --seed {origin.seed} --count {origin.count} --out SCENES",
            f"segserve evaluate {options.model} --scenes SCENES",
        ]
        made_by = options.out.parent / TRAINING_FILE
        trained = {"trained_by": json.loads(made_by.read_text("utf-8"))} if made_by.exists() else {}
        report = {"commands": commands, **trained, "asked": asked, **metrics}
        options.out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
        print(f"written: {options.out}")
    return 0


def _served(url: str, api_key: str | None) -> tuple[Segmenter, str]:
    from segserve.client import Client

    client = Client(url, api_key=api_key)
    return lambda image, text: client.segment(image, text=text).instances, "through the served path"


def _local(weights: Path) -> tuple[Segmenter, str]:
    from segserve.models.grounded_sam import GroundedSam
    from segserve.models.text_prompt import TextPrompt

    predictor = GroundedSam.from_folder(weights)

    def segment(image: Any, text: str) -> Any:
        return predictor.predict([image], [TextPrompt.from_text(text)])[0].instances

    return segment, "in process"


def _table(rows: list[tuple[str, dict[str, float | int]]], title: str) -> Any:
    from rich.table import Table

    table = Table(title=title)
    table.add_column("")
    names = ("instances", "recall", "precision", "mean_mask_iou", "absent_asked", "absent_silent")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for label, figures in rows:
        table.add_row(label, *(_cell(figures.get(name)) for name in names))
    return table


def _cell(figure: float | int | None) -> str:
    if figure is None:
        return ""
    return f"{figure:.3f}" if isinstance(figure, float) else str(figure)
