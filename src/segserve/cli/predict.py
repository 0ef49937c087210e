"""``segserve predict``: segment images, with a running server or without one.

segserve predict room.jpg --text "sofa. red chair. floor." --out pictures
segserve predict photo.jpg --model balloons --score-threshold 0.5 --out pictures
segserve predict room.jpg --model semantic --engine onnx --out pictures
segserve predict room.jpg --model sam2 --point 420,310 --point 440,380,0 --out pictures
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segserve.cli.prediction_tables import as_json, print_tables

if TYPE_CHECKING:
    from segserve.imaging import Rgb
    from segserve.models.segmentation import LabelMap, Segmentation
    from segserve.results import Result
    from segserve.schema import Parameters, Prompt

PARAMETERS = (
    "box_threshold",
    "text_threshold",
    "score_threshold",
    "nms_iou",
    "nms_across_phrases",
    "max_instances",
    "refine",
    "engine",
    "size",
    "multimask",
    "low_res",
)
DEMO_WEIGHTS = Path("weights") / "demo"

Segmenter = Callable[[str], "Result"]
"""The path or address of an image -> its result."""

Predictor = Callable[["Rgb"], "Segmentation | LabelMap"]
"""A picture -> what is in it."""


def add_parser(subparsers: Any) -> None:
    """Add ``predict`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "predict",
        help="segment images, through a server or --local",
        description="Find and outline objects in images, or with a semantic model, tell the class of every pixel: "
        "prints a table (or JSON) and draws overlays into --out.",
        epilog='example: segserve predict room.jpg --text "sofa. red chair. floor." --out pictures | '
        "segserve predict photo.jpg --model balloons --score-threshold 0.5 --out pictures | "
        "segserve predict room.jpg --model semantic --engine onnx --out pictures | "
        "segserve predict room.jpg --model sam2 --point 420,310 --point 440,380,0 --out pictures",
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="file, or http(s):// address for the server to fetch"
    )
    parser.add_argument(
        "--text", metavar="PHRASES", help='what to look for, e.g. "sofa. red chair.", for a model that takes text'
    )
    parser.add_argument(
        "--point",
        type=_point,
        action="append",
        metavar="X,Y[,0|1]",
        help="a pixel of the object (1, the default) or beside it (0); may be repeated, for the same object",
    )
    parser.add_argument(
        "--box",
        type=_box,
        action="append",
        metavar="X0,Y0,X1,Y1",
        help="a box around an object; may be repeated, for others",
    )
    parser.add_argument(
        "--model", help="model to ask, as `segserve models` names it (default: the server's; of --local grounded_sam)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the overlays (default: none are drawn)")
    parser.add_argument("--json", action="store_true", help="print JSON, masks included, instead of a table")
    server = parser.add_argument_group("where")
    server.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default http://127.0.0.1:8080)")
    server.add_argument("--api-key", metavar="KEY", help="key of a server that asks for one")
    server.add_argument("--timeout", type=float, default=65, metavar="S", help="seconds for each image (default 65)")
    server.add_argument("--local", action="store_true", help="run it in this process, without a server")
    server.add_argument(
        "--weights", type=Path, metavar="DIR", help=f"weights of --local (default {DEMO_WEIGHTS}/MODEL of the checkout)"
    )
    options = parser.add_argument_group("parameters of the model (default: the server's)")
    options.add_argument("--box-threshold", type=float, metavar="T", help="least score of an object, 0 to 1")
    options.add_argument("--text-threshold", type=float, metavar="T", help="least score of a word, 0 to 1")
    options.add_argument("--score-threshold", type=float, metavar="T", help="least score of an instance, 0 to 1")
    options.add_argument("--nms-iou", type=float, metavar="T", help="boxes that overlap more are duplicates, 0 to 1")
    options.add_argument(
        "--nms-across-phrases", action="store_true", default=None, help="also those of different phrases"
    )
    options.add_argument("--max-instances", type=int, metavar="N", help="keep the best N")
    options.add_argument(
        "--refine", nargs="?", const=True, choices=(True, "polygon"), metavar="polygon", help="clean the masks' edges"
    )
    options.add_argument("--engine", choices=("torch", "onnx"), help="what computes, of a semantic model")
    options.add_argument("--size", choices=("original", "model"), help="of a semantic model's label map")
    options.add_argument(
        "--multimask", action=argparse.BooleanOptionalAction, help="answer a click with all masks it may mean, or one"
    )
    options.add_argument(
        "--low-res", action="store_true", default=None, help="with --json: each mask's logits, to be corrected later"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Segment every image. Returns 0 when all succeeded, 1 when one did not (the others are still answered)."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    from segserve.errors import InvalidPromptError, NotFoundError, RequestError, UnauthorizedError

    messages = Console(stderr=True)
    results: list[tuple[str, Result]] = []
    failures = 0
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn())
    with (_local if args.local else _served)(args) as segment, Progress(*columns, console=messages) as progress:
        task = progress.add_task("segmenting", total=len(args.images))
        for image in args.images:
            try:
                results.append((image, segment(image)))
            except (UnauthorizedError, NotFoundError, InvalidPromptError):
                raise  # it would be the same for every image
            except (RequestError, OSError) as error:
                failures += 1
                messages.print(f"{image}: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
            progress.advance(task)
    overlays = _write_overlays(results, args.out) if args.out else {}
    if args.json:
        print(json.dumps([as_json(image, result, overlays.get(image)) for image, result in results]))
    else:
        print_tables(results, overlays, Console())
    return 1 if failures else 0


@contextmanager
def _served(args: argparse.Namespace) -> Iterator[Segmenter]:
    """Ask a running server."""
    from segserve.client import Client

    with Client(args.url, api_key=args.api_key, timeout=args.timeout) as client:
        yield lambda image: client.segment(
            image,
            args.text,
            model=args.model,
            points=args.point,
            boxes=args.box,
            # The server draws what it fetches itself; the pictures that are here are drawn here.
            render=["overlay"] if args.out and "://" in image else [],
            **_parameters(args),
        )


@contextmanager
def _local(args: argparse.Namespace) -> Iterator[Segmenter]:
    """Run the model in this process."""
    from segserve import catalog, schema
    from segserve.errors import InvalidRequestError

    name = args.model or catalog.GROUNDED_SAM.name
    if name not in _LOCAL_MODELS:
        raise InvalidRequestError(f"--local runs {', '.join(_LOCAL_MODELS)} only; ask a server for {name}.")
    entry = catalog.CATALOG[name]
    prompt = schema.Prompt(text=args.text, points=args.point, boxes=args.box)
    schema.check_prompt(prompt, entry)
    parameters = schema.parse(schema.Parameters, _parameters(args), "parameters")
    schema.check_parameters(parameters, entry)

    # Read when it is imported: one bar, the images', is enough.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", message="You'd better set embed_dim")

    from segserve.imaging import decode

    predict = _LOCAL_MODELS[name](args.weights or _demo_weights(name), prompt, parameters)

    def segment(image: str) -> Result:
        data = Path(image).read_bytes()
        return _result(predict(decode(data)), data)

    yield segment


def _result(found: Segmentation | LabelMap, source: bytes) -> Result:
    """What a server would have answered."""
    from segserve.mask_logits import to_text
    from segserve.models.segmentation import LabelMap
    from segserve.results import Instance, Result

    if isinstance(found, LabelMap):
        fractions = found.pixel_fraction()
        return Result(
            found.width,
            found.height,
            [],
            source=source,
            label_map=found.labels,
            classes=found.classes,
            pixel_fraction=fractions,
        )
    instances = [
        Instance(
            each.label,
            round(each.score, 4),
            each.box,
            each.area,
            each.rle,
            each.object,
            None if each.low_res is None else to_text(each.low_res),
        )
        for each in found.instances
    ]
    return Result(found.width, found.height, instances, source=source)


def _local_grounded_sam(weights: Path, prompt: Prompt, parameters: Parameters) -> Predictor:
    from segserve.models.grounded_sam import GroundedSam
    from segserve.models.text_prompt import TextPrompt

    predictor = GroundedSam.from_folder(weights)
    asked = TextPrompt.from_text(prompt.text or "", predictor.defaults.overridden(parameters))
    return lambda image: predictor.predict([image], [asked])[0]


def _local_mask_rcnn(weights: Path, prompt: Prompt, parameters: Parameters) -> Predictor:
    from segserve.models.mask_rcnn import MaskRcnn

    predictor = MaskRcnn.from_folder(weights)
    asked = predictor.defaults.overridden(parameters)
    return lambda image: predictor.predict([image], [asked])[0]


def _local_semantic(weights: Path, prompt: Prompt, parameters: Parameters) -> Predictor:
    from segserve.models.semantic import Semantic, SemanticParameters

    predictor = Semantic.from_folder(weights, engine=parameters.engine)
    asked = SemanticParameters().overridden(parameters)
    return lambda image: predictor.predict([image], [asked])[0]


def _local_sam2(weights: Path, prompt: Prompt, parameters: Parameters) -> Predictor:
    from segserve.models.sam2 import ClickPrompt, Sam2

    predictor = Sam2.from_folder(weights)
    asked = ClickPrompt.from_wire(prompt, predictor.defaults.overridden(parameters))
    return lambda image: predictor.predict([image], [asked])[0]


_LOCAL_MODELS: dict[str, Callable[[Path, Prompt, Parameters], Predictor]] = {
    "grounded_sam": _local_grounded_sam,
    "mask_rcnn": _local_mask_rcnn,
    "semantic": _local_semantic,
    "sam2": _local_sam2,
}


def _demo_weights(model: str) -> Path:
    import segserve
    from segserve.errors import NotFoundError

    weights = DEMO_WEIGHTS / model
    for root in (Path.cwd(), Path(segserve.__file__).resolve().parents[2]):
        if (root / weights).is_dir():
            return root / weights
    raise NotFoundError(f"No {weights} here: name a folder of weights with --weights.")


def _parameters(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in PARAMETERS if getattr(args, name) is not None}


def _write_overlays(results: list[tuple[str, Result]], folder: Path) -> dict[str, Path]:
    """One PNG for each image, named after it; of files with the same name, the later ones get a number."""
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    for image, result in results:
        if image in written:
            continue
        stem = Path(image.split("?")[0]).stem or "image"
        path = folder / f"{stem}_overlay.png"
        number = 2
        while path in written.values():
            path, number = folder / f"{stem}_{number}_overlay.png", number + 1
        result.save_overlay(path)
        written[image] = path
    return written


def _numbers(text: str, counts: tuple[int, ...], form: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in counts:
        raise argparse.ArgumentTypeError(
            f"expected {form}, e.g. {'120,80' if 2 in counts else '10,10,90,70'}; got {text!r}"
        )
    return values


def _point(text: str) -> tuple[float, float, int]:
    """``x,y`` or ``x,y,0|1``."""
    x, y, *label = _numbers(text, (2, 3), "X,Y or X,Y,0 or X,Y,1")
    if label and label[0] not in (0, 1):
        raise argparse.ArgumentTypeError(f"the third number is 1 (object) or 0 (not); got {text!r}")
    return x, y, int(label[0]) if label else 1


def _box(text: str) -> tuple[float, float, float, float]:
    """``x0,y0,x1,y1``."""
    x0, y0, x1, y1 = _numbers(text, (4,), "X0,Y0,X1,Y1")
    return x0, y0, x1, y1
