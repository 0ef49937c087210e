"""``segserve evaluate``: accuracy on generated scenes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segserve.client import Client
    from segserve.imaging import Rgb
    from segserve.masks import Mask
    from segserve.models.sam2 import Target
    from segserve.models.segmentation import LabelMap, Segmentation
    from segserve.training.click_evaluation import AskedObject, ClickModel, FoundMask
    from segserve.training.evaluation import Segmenter

EXAMPLE = """example:
  segserve scenes --seed 424242 --count 50 --out build/scenes
  segserve evaluate grounded_sam --scenes build/scenes                    # through a running server
  segserve evaluate grounded_sam --scenes build/scenes --local weights/demo/grounded_sam
  segserve evaluate mask_rcnn --scenes build/scenes --name rooms          # served under a name of its own
  segserve evaluate semantic --scenes build/scenes --engine onnx
  segserve evaluate sam2 --scenes build/scenes --local weights/demo/sam2"""

_GROUNDED_SAM_FIGURES = ("instances", "recall", "precision", "mean_mask_iou", "absent_asked", "absent_silent")
_MASK_RCNN_FIGURES = ("instances", "mask_ap", "mask_ap50", "mask_ap75", "box_ap", "box_ap50")
_SEMANTIC_FIGURES = ("iou", "recall", "precision", "pixels")
_CACHE_BYTES = 64 * 2**20
"""Of embeddings: each scene is asked about several times in a row."""

Metrics = dict[str, Any]
Row = tuple[str, dict[str, Any]]


def add_parser(subparsers: Any) -> None:
    """Add ``evaluate`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model's accuracy on generated scenes",
        description="Ask a model about every scene of a folder and score its answers against the truth: recall, "
        "precision and mask IoU of grounded_sam, COCO's AP of mask_rcnn, IoU by class of semantic, mask IoU of sam2 by "
        "kind of prompt.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=list(_EVALUATIONS), help="which model")
    parser.add_argument("--scenes", type=Path, required=True, metavar="DIR", help="folder made by segserve scenes")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server to ask (default: %(default)s)")
    parser.add_argument("--api-key", help="its API key, if it wants one")
    parser.add_argument("--name", help="the name under which it serves the model (default: the model's own)")
    parser.add_argument("--local", type=Path, metavar="DIR", help="ask this checkpoint folder in process, no server")
    parser.add_argument("--engine", choices=("torch", "onnx"), help="of semantic (default: the model's own default)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the metrics as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Evaluate, print a table, write the JSON."""
    import json

    from rich.console import Console
    from rich.progress import Progress

    from segserve.cli.train import TRAINING_FILE
    from segserve.errors import InvalidRequestError
    from segserve.training.scenes.files import read_origin

    if options.engine and options.model != "semantic":
        raise InvalidRequestError(f"--engine: {options.model} has one engine only; leave the option out.")
    origin = read_origin(options.scenes)
    evaluate = _EVALUATIONS[options.model]
    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task("scenes", total=origin.count)
        metrics, rows, figures = evaluate(options, lambda: bars.advance(task))
    asked = "in process" if options.local else "through the served path"
    Console().print(_table(rows, figures, f"{options.model} on {metrics['scenes']} scenes, {asked}"))
    if options.out:
        engine = f" --engine {options.engine}" if options.engine else ""
        commands = [
            f"segserve scenes --seed {origin.seed} --count {origin.count} --out SCENES",
            f"segserve evaluate {options.model} --scenes SCENES{engine}",
        ]
        made_by = options.out.parent / TRAINING_FILE
        trained = {"trained_by": json.loads(made_by.read_text("utf-8"))} if made_by.exists() else {}
        report = {"commands": commands, **trained, "asked": asked, **metrics}
        options.out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
        print(f"written: {options.out}")
    return 0


def _evaluate_grounded_sam(
    options: argparse.Namespace, done: Callable[[], None]
) -> tuple[Metrics, list[Row], tuple[str, ...]]:
    from segserve.training.evaluation import evaluate, summary
    from segserve.training.scenes.files import read_scenes

    with _text_segmenter(options) as segment:
        metrics = evaluate(read_scenes(options.scenes), segment, done)
    return metrics, list(summary(metrics)), _GROUNDED_SAM_FIGURES


@contextmanager
def _text_segmenter(options: argparse.Namespace) -> Iterator[Segmenter]:
    if not options.local:
        with _client(options) as client:
            name = options.name or options.model
            yield lambda image, text: client.segment(image, text=text, model=name).instances
        return
    from segserve.models.grounded_sam import GroundedSam
    from segserve.models.text_prompt import TextPrompt

    predictor = GroundedSam.from_folder(options.local)
    yield lambda image, text: predictor.predict([image], [TextPrompt.from_text(text)])[0].instances


def _evaluate_mask_rcnn(
    options: argparse.Namespace, done: Callable[[], None]
) -> tuple[Metrics, list[Row], tuple[str, ...]]:
    from segserve.training.coco import read_dataset
    from segserve.training.instance_evaluation import evaluate_instances, summary
    from segserve.training.scenes.files import INSTANCES_FILE

    dataset = read_dataset(options.scenes / INSTANCES_FILE, options.scenes)
    with _class_segmenter(options) as (classes, segment):
        metrics = evaluate_instances(dataset, classes, segment, done)
    return metrics, summary(metrics), _MASK_RCNN_FIGURES


@contextmanager
def _class_segmenter(
    options: argparse.Namespace,
) -> Iterator[tuple[tuple[str, ...] | None, Callable[[Rgb], Segmentation]]]:
    """The model's classes, where they are known, and the model."""
    from segserve.models.segmentation import Instance, Segmentation
    from segserve.training.coco_evaluation import MOST_OBJECTS
    from segserve.training.instance_evaluation import SCORE_THRESHOLD

    if options.local:
        from segserve.models.mask_rcnn import MaskRcnn, MaskRcnnParameters

        predictor = MaskRcnn.from_folder(options.local)
        asked = MaskRcnnParameters(SCORE_THRESHOLD, max_instances=MOST_OBJECTS)
        yield predictor.classes, lambda image: predictor.predict([image], [asked])[0]
        return
    with _client(options) as client:
        name = options.name or options.model

        def segment(image: Rgb) -> Segmentation:
            found = client.segment(image, model=name, score_threshold=SCORE_THRESHOLD, max_instances=MOST_OBJECTS)
            instances = [Instance(each.label, each.score, each.box, each.rle) for each in found.instances]
            return Segmentation(found.width, found.height, instances)

        described: dict[str, Any] = next((each for each in client.models() if each["name"] == name), {})
        classes = described.get("classes")
        yield None if classes is None else tuple(classes), segment


def _evaluate_semantic(
    options: argparse.Namespace, done: Callable[[], None]
) -> tuple[Metrics, list[Row], tuple[str, ...]]:
    from segserve.training.scenes.files import read_scenes
    from segserve.training.semantic_evaluation import evaluate_semantic, summary

    with _pixel_classifier(options) as classify:
        metrics = evaluate_semantic(read_scenes(options.scenes), classify, done)
    return metrics, summary(metrics), _SEMANTIC_FIGURES


@contextmanager
def _pixel_classifier(options: argparse.Namespace) -> Iterator[Callable[[Rgb], LabelMap]]:
    """The model: from a picture to its label map."""
    from segserve.errors import InvalidRequestError
    from segserve.models.segmentation import LabelMap

    if options.local:
        from segserve.models.semantic import Semantic, SemanticParameters

        predictor = Semantic.from_folder(options.local, engine=options.engine)
        asked = SemanticParameters(engine=options.engine or "torch")
        yield lambda image: predictor.predict([image], [asked])[0]
        return
    wanted = {"engine": options.engine} if options.engine else {}
    with _client(options) as client:
        name = options.name or options.model

        def classify(image: Rgb) -> LabelMap:
            found = client.segment(image, model=name, **wanted)
            if found.label_map is None:
                raise InvalidRequestError(f"{name}: expected a semantic model, which answers with a label map.")
            return LabelMap(found.width, found.height, found.label_map, found.classes)

        yield classify


def _evaluate_sam2(options: argparse.Namespace, done: Callable[[], None]) -> tuple[Metrics, list[Row], tuple[str, ...]]:
    from segserve.training.click_evaluation import FIGURES, evaluate_clicks, summary
    from segserve.training.scenes.files import read_scenes

    with _click_model(options) as outline:
        metrics = evaluate_clicks(read_scenes(options.scenes), outline, done)
    return metrics, summary(metrics), ("objects", *FIGURES)


@contextmanager
def _click_model(options: argparse.Namespace) -> Iterator[ClickModel]:
    if options.local:
        from segserve.models.embedding_cache import EmbeddingCache
        from segserve.models.sam2 import ClickPrompt, Sam2, Sam2Parameters

        predictor = Sam2.from_folder(options.local, cache=EmbeddingCache(_CACHE_BYTES))

        def outline_here(image: Rgb, asked: Sequence[AskedObject]) -> list[list[FoundMask]]:
            prompt = ClickPrompt(tuple(_target(each) for each in asked), Sam2Parameters(low_res=True))
            found = predictor.predict([image], [prompt])[0].instances
            return _by_object(((each.object, each.mask, each.score, each.low_res) for each in found), len(asked))

        yield outline_here
        return
    with _client(options) as client:
        name = options.name or options.model

        def outline(image: Rgb, asked: Sequence[AskedObject]) -> list[list[FoundMask]]:
            found = client.segment(image, model=name, objects=[_wire(each) for each in asked], low_res=True).instances
            return _by_object(((each.object, each.mask, each.score, each.logits) for each in found), len(asked))

        yield outline


def _target(asked: AskedObject) -> Target:
    from segserve.models.sam2 import Target

    return Target(tuple((click.x, click.y, click.label) for click in asked.clicks), asked.box, asked.logits)


def _wire(asked: AskedObject) -> dict[str, Any]:
    points = [(click.x, click.y, click.label) for click in asked.clicks] or None
    return {"points": points, "box": asked.box, "mask": asked.logits}


def _by_object(
    found: Iterable[tuple[int | None, Mask, float, NDArray[np.float32] | None]], count: int
) -> list[list[FoundMask]]:
    """The answers of each of ``count`` objects."""
    from segserve.training.click_evaluation import FoundMask

    answers: list[list[FoundMask]] = [[] for _ in range(count)]
    for index, mask, score, logits in found:
        answers[index or 0].append(FoundMask(mask, score, logits))
    return answers


_EVALUATIONS: dict[str, Callable[..., tuple[Metrics, list[Row], tuple[str, ...]]]] = {
    "grounded_sam": _evaluate_grounded_sam,
    "mask_rcnn": _evaluate_mask_rcnn,
    "semantic": _evaluate_semantic,
    "sam2": _evaluate_sam2,
}


def _client(options: argparse.Namespace) -> Client:
    from segserve.client import Client

    return Client(options.url, api_key=options.api_key)


def _table(rows: list[Row], names: tuple[str, ...], title: str) -> Any:
    from rich.table import Table

    table = Table(title=title)
    table.add_column("")
    for name in names:
        table.add_column(name.replace("_", " ").replace(" ap", " AP"), justify="right")
    for label, figures in rows:
        table.add_row(label, *(_cell(figures.get(name)) for name in names))
    return table


def _cell(figure: float | int | None) -> str:
    if figure is None:
        return ""
    return f"{figure:.3f}" if isinstance(figure, float) else str(figure)
