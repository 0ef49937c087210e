"""``segserve demo``: the whole path on generated rooms, from archive to pictures, in one command.

segserve demo --out demo_output

The README's picture is its overview: cp demo_output/overview.jpg docs/images/demo.jpg
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from segserve.cli.demo_clicks import Pointed
    from segserve.client import Client
    from segserve.imaging import Rgb
    from segserve.results import Result
    from segserve.training.scenes import Scene

SEEDS = (13, 32, 41)
SIZE = (480, 640)
LEAST_IOU = 0.7
_READY_S = 240.0
_FOUND_IOU = 0.5
_LEAST_SCORE = 0.5
_GO_ON = (
    "Go on: make serve, whose web page is http://127.0.0.1:8080, and then: "
    "segserve predict PHOTO --text 'sofa. floor.' --out DIR"
)


@dataclass(frozen=True)
class Finding:
    """A true object, or all of a class, and what was found of it.

    Attributes:
        score: None when it was not found, and of classes, which have none.
        iou: of the masks, 0..1.
    """

    phrase: str
    score: float | None
    iou: float


@dataclass(frozen=True)
class Room:
    """What was made of a scene.

    Attributes:
        by_text: grounded_sam's answer.
        by_class: mask_rcnn's; None where it is not served.
        by_pixel: semantic's; None where it is not served.
        floor: the scene with a new floor.
        by_click: what sam2 was pointed at; empty where it is not served.
    """

    scene: Scene
    by_text: Result
    by_class: Result | None
    by_pixel: Result | None
    floor: Rgb
    by_click: Sequence[Pointed] = ()


def add_parser(subparsers: Any) -> None:
    """Add ``demo`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "demo",
        help="show it: segment three rooms by text, class and pixel, by click and box, lay a new floor",
        description="Pack the demo weights, serve them with TorchServe and the gateway, segment three generated rooms "
        "by text (grounded_sam), by class (mask_rcnn), pixel by pixel (semantic), and by a click and a box (sam2), lay "
        "new floors through /invocations, write the pictures, compare with the truth, and stop again. Fails when the "
        "masks of a room agree with the truth by a mean IoU under 0.7.",
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
    parser.add_argument(
        "--instance-weights",
        type=Path,
        metavar="DIR",
        help="default: weights/demo/mask_rcnn; without that folder, the rooms are not segmented by class",
    )
    parser.add_argument(
        "--semantic-weights",
        type=Path,
        metavar="DIR",
        help="default: weights/demo/semantic; without that folder, the rooms are not segmented pixel by pixel",
    )
    parser.add_argument(
        "--click-weights",
        type=Path,
        metavar="DIR",
        help="default: weights/demo/sam2; without that folder, nothing is pointed at",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo. Returns 0 when every room's mean IoU is 0.7 or more with each model, else 1."""
    from rich.console import Console

    from segserve.cli import demo_classes, demo_clicks
    from segserve.cli.demo_server import terminated_like_interrupted
    from segserve.imaging import encode
    from segserve.training.scenes import make_scene

    console = Console(highlight=False)
    out: Path = args.out
    scenes = [make_scene(seed, SIZE) for seed in args.seeds]
    out.mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        (out / _file(scene, "scene")).write_bytes(encode(scene.image))
    with terminated_like_interrupted():
        models = _pack(_weights(args), out / "model_store", console)
        rooms = _serve_and_ask(scenes, models, out, console)
    by_text = [compare(scene, room.by_text) for scene, room in zip(scenes, rooms, strict=True)]
    by_class = [compare(room.scene, room.by_class, by_category=True) for room in rooms if room.by_class is not None]
    by_pixel = [class_findings(*pair) for pair in _by_pixel(rooms)]
    by_click = [[Finding(each.thing.phrase, each.score, each.iou) for each in room.by_click] for room in rooms]
    _print_table(scenes, by_text, console)
    if by_class:
        console.print(class_table(rooms, by_class))
    if by_pixel:
        console.print(demo_classes.class_table(_by_pixel(rooms)))
    if any(by_click):
        console.print(demo_clicks.pointed_table([(room.scene, room.by_click) for room in rooms]))
    kinds = _write_pictures(rooms, out)
    shown = f"{', '.join(kinds[:-1])} and {kinds[-1]}"
    console.print(f"Pictures in {out}/: overview.jpg, and scene, {shown} of each room.", soft_wrap=True)
    findings = {"grounded_sam": by_text, "mask_rcnn": by_class, "semantic": by_pixel, "sam2": by_click}
    return _verdict(scenes, {model: of_rooms for model, of_rooms in findings.items() if any(of_rooms)}, console)


def _weights(args: argparse.Namespace) -> dict[str, Path]:
    """Checkpoint folder by model."""
    from segserve.torchserve.archive import source_folder

    demo = source_folder("weights") / "demo"
    folders = {"grounded_sam": args.weights or demo / "grounded_sam"}
    further = {"mask_rcnn": args.instance_weights, "semantic": args.semantic_weights, "sam2": args.click_weights}
    for model, given in further.items():
        if given or (demo / model / "model.safetensors").exists():
            folders[model] = given or demo / model
    return folders


def _pack(folders: Mapping[str, Path], store: Path, console: Console) -> list[str]:
    """Archives of the checkpoints; returns the models' names."""
    from segserve.torchserve.archive import build_archive

    for model, folder in folders.items():
        with console.status("packing the demo weights"):
            archive = build_archive(model, folder, store)
        console.print(f"packed   {archive} ({archive.stat().st_size / 2**20:.1f} MiB)", soft_wrap=True)
    return list(folders)


def _serve_and_ask(scenes: Sequence[Scene], models: Sequence[str], out: Path, console: Console) -> list[Room]:
    from segserve.cli.demo_clicks import point
    from segserve.cli.demo_server import running_service, served_folder

    by_class: list[Result | None] = [None] * len(scenes)
    by_pixel: list[Result | None] = [None] * len(scenes)
    by_click: list[list[Pointed]] = [[]] * len(scenes)
    with (
        console.status("starting TorchServe and the gateway, loading the models") as status,
        running_service(out / "model_store", models, out / "logs", _READY_S) as client,
        served_folder(out) as address,
    ):
        console.print(f"serving  {client.url}")
        status.update("segmenting the rooms by text")
        by_text = [client.segment(scene.image, text=_prompt(scene), model="grounded_sam") for scene in scenes]
        if "mask_rcnn" in models:
            status.update("segmenting the rooms by class")
            by_class = [
                client.segment(scene.image, model="mask_rcnn", score_threshold=_LEAST_SCORE) for scene in scenes
            ]
        if "semantic" in models:
            status.update("segmenting the rooms pixel by pixel")
            by_pixel = [client.segment(scene.image, model="semantic") for scene in scenes]
        if "sam2" in models:
            status.update("pointing at objects")
            by_click = [point(client, scene) for scene in scenes]
        status.update("laying new floors")
        floors = _lay_floors(client, [f"{address}/{_file(scene, 'scene')}" for scene in scenes])
        status.update("stopping")
    console.print("stopped  gateway, TorchServe and its workers")
    return [Room(*each) for each in zip(scenes, by_text, by_class, by_pixel, floors, by_click, strict=True)]


def compare(scene: Scene, result: Result, *, by_category: bool = False) -> list[Finding]:
    """Each object of the scene beside the instance that answers it: of its name, and overlapping most.

    Better scored instances choose first; each answers one object. Objects to be ignored are left out.

    Args:
        by_category: objects are named "sofa" rather than "red sofa".
    """
    from segserve.masks import iou

    asked = [thing for thing in scene.objects if not thing.ignore]
    names = {thing.id: thing.category if by_category else thing.phrase for thing in asked}
    answered: dict[int, Finding] = {}
    for found in sorted(result.instances, key=lambda instance: -instance.score):
        free = [thing for thing in asked if thing.id not in answered and names[thing.id] == found.label]
        overlaps = [(iou(scene.mask(thing), found.mask), thing.id) for thing in free]
        best, identity = max(overlaps, default=(0.0, 0))
        if best > 0:
            answered[identity] = Finding(found.label, found.score, best)
    return [answered.get(thing.id, Finding(names[thing.id], None, 0.0)) for thing in asked]


def class_findings(scene: Scene, result: Result) -> list[Finding]:
    """Each class that the scene shows beside all pixels that were given it.

    Raises:
        ValueError: the result has no label map of the scene's size.
    """
    from segserve.cli.demo_classes import class_ious

    return [Finding(name, None, iou) for name, iou in class_ious([(scene, result)]).items()]


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


def _by_pixel(rooms: Sequence[Room]) -> list[tuple[Scene, Result]]:
    return [(room.scene, room.by_pixel) for room in rooms if room.by_pixel is not None]


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


def _write_pictures(rooms: Sequence[Room], out: Path) -> list[str]:
    """Those of each room, and all of them on one sheet; returns their kinds."""
    from segserve.cli.demo_classes import with_class_legend
    from segserve.cli.demo_clicks import pointed_overlay
    from segserve.colors import colors_of
    from segserve.imaging import encode
    from segserve.label_render import overlay as class_overlay
    from segserve.render import overlay

    # One color for a label all over the sheet.
    results = [found for room in rooms for found in (room.by_text, room.by_class, room.by_pixel) if found is not None]
    labels = {instance.label for result in results for instance in result.instances}
    labels.update(name for result in results for name in result.classes)
    rows = []
    drawn: dict[str, Rgb] = {}
    for room in rooms:
        image = room.scene.image
        drawn = {"overlay": overlay(image, room.by_text.instances, labels=labels)}
        if room.by_class is not None:
            drawn["instances"] = overlay(image, room.by_class.instances, labels=labels)
        if room.by_pixel is not None and room.by_pixel.label_map is not None:
            drawn["classes"] = class_overlay(
                image, room.by_pixel.label_map, room.by_pixel.classes, colors=colors_of(labels)
            )
        if any(other.by_click for other in rooms):
            drawn["clicks"] = pointed_overlay(image, room.by_click)
        drawn["tiled"] = room.floor
        for kind, picture in drawn.items():
            (out / _file(room.scene, kind)).write_bytes(encode(picture))
        # Without the legend, which has no place within a row: there is one for the whole sheet.
        rows.append((image, *(picture[: image.shape[0]] for picture in drawn.values())))
    sheet = overview(rows, 480 if len(rows[0]) < 4 else 360)
    sheet = with_class_legend(sheet, [result for _, result in _by_pixel(rooms)], colors_of(labels))
    (out / "overview.jpg").write_bytes(encode(sheet, "JPEG"))
    return list(drawn)


def _print_table(scenes: Sequence[Scene], findings: Sequence[Sequence[Finding]], console: Console) -> None:
    from rich.table import Table

    table = Table("room", "phrase", "score", "IoU with the truth", title="by text: grounded_sam", title_justify="left")
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


def class_table(rooms: Sequence[Room], findings: Sequence[Sequence[Finding]]) -> Table:
    """For each class: how many there are in the rooms, how many mask_rcnn found and how well, and what else it said.

    Found is an object whose mask is overlapped by IoU 0.5 or more; extra is an instance that is of no such object.
    """
    from rich.table import Table

    table = Table("class", "objects", "found", "extra", "mean IoU", title="by class: mask_rcnn", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    everything = [finding for found in findings for finding in found]
    labels = [instance.label for room in rooms if room.by_class for instance in room.by_class.instances]
    for name in (*dict.fromkeys(sorted((*labels, *(finding.phrase for finding in everything)))), None):
        of_class = [finding for finding in everything if name in (None, finding.phrase)]
        good = sum(finding.iou >= _FOUND_IOU for finding in of_class)
        said = len(labels) if name is None else labels.count(name)
        mean = f"{mean_iou(of_class):.3f}" if of_class else "-"
        style = "bold" if name is None else None
        table.add_row(name or "all", str(len(of_class)), str(good), str(said - good), mean, style=style)
    return table


def _verdict(scenes: Sequence[Scene], findings: Mapping[str, Sequence[Sequence[Finding]]], console: Console) -> int:
    """findings: by model, of each scene."""
    poor = [
        f"{model}, room {scene.seed}: mean IoU {mean_iou(found):.3f} is under {LEAST_IOU}"
        for model, of_rooms in findings.items()
        for scene, found in zip(scenes, of_rooms, strict=True)
        if found and mean_iou(found) < LEAST_IOU
    ]
    for line in poor:
        console.print(line, style="bold red")
    if not poor:
        console.print(_GO_ON, soft_wrap=True)
    return 1 if poor else 0
