"""``segserve demo``: the whole path on generated rooms, from archive to pictures, in one command.

segserve demo --out demo_output

The README's picture is its overview: cp demo_output/overview.jpg docs/images/demo.jpg
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from segserve.client import Client
    from segserve.imaging import Rgb
    from segserve.results import Result
    from segserve.training.scenes import Scene

SEEDS = (13, 32, 41)
SIZE = (480, 640)
LEAST_IOU = 0.7
_READY_S = 240.0
_GO_ON = "Go on: make serve, and then: segserve predict PHOTO --text 'sofa. floor.' --out DIR"


@dataclass(frozen=True)
class Finding:
    """A true object and what was found of it. score: None when it was not; iou: of the masks, 0..1."""

    phrase: str
    score: float | None
    iou: float


def add_parser(subparsers: Any) -> None:
    """Add ``demo`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "demo",
        help="show it: segment three rooms by text, lay a new floor",
        description="Pack the demo weights, serve them with TorchServe and the gateway, segment three generated rooms "
        "by text, lay new floors through /invocations, write the pictures, compare with the truth, and stop again. "
        "Fails when the masks of a room agree with the truth by a mean IoU under 0.7.",
        epilog="example: segserve demo --out demo_output",
    )
    parser.add_argument("--out", type=Path, default=Path("demo_output"), metavar="DIR", help="default: demo_output")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=list(SEEDS),
        metavar="N",
        help=f"the rooms; those of training are 1000000 to 499999999 (default {' '.join(map(str, SEEDS))})",
    )
    parser.add_argument("--weights", type=Path, metavar="DIR", help="default: weights/demo/grounded_sam")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo. Returns 0 when every room's mean IoU is 0.7 or more, else 1."""
    from rich.console import Console

    from segserve.cli.demo_server import running_service, served_folder, terminated_like_interrupted
    from segserve.imaging import encode
    from segserve.torchserve.archive import build_archive, source_folder
    from segserve.training.scenes import make_scene

    console = Console(highlight=False)
    out: Path = args.out
    weights: Path = args.weights or source_folder("weights") / "demo" / "grounded_sam"
    scenes = [make_scene(seed, SIZE) for seed in args.seeds]
    out.mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        (out / _file(scene, "scene")).write_bytes(encode(scene.image))
    with terminated_like_interrupted():
        with console.status("packing the demo weights"):
            archive = build_archive("grounded_sam", weights, out / "model_store")
        console.print(f"packed   {archive} ({archive.stat().st_size / 2**20:.1f} MiB)", soft_wrap=True)
        with (
            console.status("starting TorchServe and the gateway, loading the model") as status,
            running_service(archive.parent, out / "logs", _READY_S) as client,
            served_folder(out) as address,
        ):
            console.print(f"serving  {client.url}")
            status.update("segmenting the rooms by text")
            results = [client.segment(scene.image, text=_prompt(scene)) for scene in scenes]
            status.update("laying new floors")
            floors = _lay_floors(client, [f"{address}/{_file(scene, 'scene')}" for scene in scenes])
            status.update("stopping")
        console.print("stopped  gateway, TorchServe and its workers")
    findings = [compare(scene, result) for scene, result in zip(scenes, results, strict=True)]
    _print_table(scenes, findings, console)
    _write_pictures(scenes, results, floors, out)
    console.print(f"Pictures in {out}/: overview.jpg, and scene, overlay and tiled of each room.", soft_wrap=True)
    return _verdict(scenes, findings, console)


def compare(scene: Scene, result: Result) -> list[Finding]:
    """Each object of the scene beside the instance that answers it: of its phrase, and overlapping most.

    Better scored instances choose first; each answers one object. Objects to be ignored are left out.
    """
    from segserve.masks import iou

    asked = [thing for thing in scene.objects if not thing.ignore]
    answered: dict[int, Finding] = {}
    for found in sorted(result.instances, key=lambda instance: -instance.score):
        free = [thing for thing in asked if thing.id not in answered and thing.phrase == found.label]
        overlaps = [(iou(scene.mask(thing), found.mask), thing.id) for thing in free]
        best, identity = max(overlaps, default=(0.0, 0))
        if best > 0:
            answered[identity] = Finding(found.label, found.score, best)
    return [answered.get(thing.id, Finding(thing.phrase, None, 0.0)) for thing in asked]


def mean_iou(findings: Sequence[Finding]) -> float:
    """Over all objects that were asked for, those that were not found counting 0; 0..1."""
    return sum(finding.iou for finding in findings) / len(findings) if findings else 0.0


def overview(rows: Sequence[Sequence[Rgb]], width: int = 480, gap: int = 8) -> Rgb:
    """The pictures side by side, each scaled to width pixels, with white between. Rows hold equally many pictures."""
    import cv2
    import numpy as np

    lines = []
    for row in rows:
        height = round(width * row[0].shape[0] / row[0].shape[1])
        scaled = [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in row]
        spaced = [np.pad(each, ((0, gap), (0, gap), (0, 0)), constant_values=255) for each in scaled]
        lines.append(np.hstack(spaced)[:, :-gap])
    return np.vstack(lines)[:-gap].astype(np.uint8)


def _file(scene: Scene, kind: str) -> str:
    return f"room_{scene.seed}_{kind}.png"


def _prompt(scene: Scene) -> str:
    phrases = dict.fromkeys(thing.phrase for thing in scene.objects if not thing.ignore)
    return " ".join(f"{phrase}." for phrase in phrases)


def _lay_floors(client: Client, addresses: Sequence[str]) -> list[Rgb]:
    """The rooms with the demo catalog's flooring: seed 000's request, the rooms by address."""
    from segserve.errors import SegserveError

    floors = []
    for tiled in client.tile("Flooring", addresses, room="Living Room"):
        if isinstance(tiled, SegserveError):
            raise tiled
        floors.append(tiled.image)
    return floors


def _write_pictures(scenes: Sequence[Scene], results: Sequence[Result], floors: Sequence[Rgb], out: Path) -> None:
    from segserve.imaging import encode
    from segserve.render import overlay

    rows = []
    for scene, result, floor in zip(scenes, results, floors, strict=True):
        drawn = overlay(scene.image, result.instances)
        (out / _file(scene, "overlay")).write_bytes(encode(drawn))
        (out / _file(scene, "tiled")).write_bytes(encode(floor))
        rows.append((scene.image, drawn, floor))
    (out / "overview.jpg").write_bytes(encode(overview(rows), "JPEG"))


def _print_table(scenes: Sequence[Scene], findings: Sequence[Sequence[Finding]], console: Console) -> None:
    from rich.table import Table

    table = Table("room", "phrase", "score", "IoU with the truth")
    for column in table.columns[2:]:
        column.justify = "right"
    for scene, found in zip(scenes, findings, strict=True):
        name = str(scene.seed)
        for finding in found:
            score = "not found" if finding.score is None else f"{finding.score:.2f}"
            table.add_row(name, finding.phrase, score, f"{finding.iou:.3f}")
            name = ""
        table.add_row("", "mean", "", f"{mean_iou(found):.3f}", style="bold")
        table.add_section()
    console.print(table)


def _verdict(scenes: Sequence[Scene], findings: Sequence[Sequence[Finding]], console: Console) -> int:
    poor = [
        f"room {scene.seed}: mean IoU {mean_iou(found):.3f} is under {LEAST_IOU}"
        for scene, found in zip(scenes, findings, strict=True)
        if mean_iou(found) < LEAST_IOU
    ]
    for line in poor:
        console.print(line, style="bold red")
    if not poor:
        console.print(
            "Go on: make serve, and then: segserve predict PHOTO --text 'sofa. floor.' --out DIR", soft_wrap=True
        )
    return 1 if poor else 0
