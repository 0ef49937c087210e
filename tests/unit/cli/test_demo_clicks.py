"""What ``segserve demo`` points at, and how the answers are shown. The whole of it runs in e2e."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from segserve.cli.demo_clicks import Pointed, point, pointed_overlay, pointed_table
from segserve.client import Instance, Result
from segserve.masks import encode_rle
from segserve.training.scenes import Scene, SceneObject

HEIGHT, WIDTH = 60, 80
SOFA, CHAIR, RUG = (30, 10, 60, 40), (5, 30, 17, 52), (40, 45, 55, 55)


def scene(*things: tuple[str, tuple[int, int, int, int], bool]) -> Scene:
    """A black scene of rectangles: category, box, ignore; none lies on another."""
    instances = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    objects = []
    for number, (category, (x0, y0, x1, y1), ignore) in enumerate(things, 1):
        instances[y0:y1, x0:x1] = number
        objects.append(SceneObject(number, category, "red", (x0, y0, x1, y1), (x1 - x0) * (y1 - y0), ignore))
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Scene(7, image, instances, np.zeros((HEIGHT, WIDTH), dtype=np.uint8), tuple(objects))


def found(number: int, score: float, box: tuple[int, int, int, int]) -> Instance:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return Instance(f"object {number + 1}", score, box, int(mask.sum()), encode_rle(mask), object=number)


class Answering:
    """A client that answers with these instances, and remembers what it was asked."""

    def __init__(self, *instances: Instance) -> None:
        self.instances = list(instances)
        self.asked: list[dict[str, Any]] = []

    def segment(self, image: Any, **asked: Any) -> Result:
        self.asked.append(asked)
        return Result(WIDTH, HEIGHT, self.instances)


def pointed_at(client: Answering, truth: Scene) -> list[Pointed]:
    return point(client, truth)  # type: ignore[arg-type]


def test_the_largest_piece_is_clicked_on_and_the_next_is_boxed() -> None:
    truth = scene(("wall", (0, 0, 80, 8), False), ("rug", RUG, False), ("sofa", SOFA, False), ("chair", CHAIR, False))
    client = Answering(found(0, 0.9, SOFA), found(1, 0.8, (5, 30, 17, 41)), found(0, 0.4, CHAIR))
    click, box = pointed_at(client, truth)
    (asked,) = client.asked
    ((x, y, label),) = asked["objects"][0]["points"]
    assert asked["model"] == "sam2" and asked["objects"][1] == {"box": CHAIR}
    assert label == 1 and 40 <= x < 50 and 20 <= y < 30, "the middle of the sofa"
    assert (click.thing.category, click.by, click.at, click.score, click.iou) == ("sofa", "click", (x, y), 0.9, 1.0)
    assert (box.thing.category, box.by, box.at, box.score) == ("chair", "box", CHAIR, 0.8)
    assert box.iou == pytest.approx(0.5)


def test_rooms_with_one_piece_or_none() -> None:
    client = Answering()
    (click,) = pointed_at(client, scene(("sofa", SOFA, False), ("chair", CHAIR, True), ("floor", RUG, False)))
    assert (click.by, click.found, click.score, click.iou) == ("click", None, None, 0.0)
    assert pointed_at(client, scene(("floor", SOFA, False))) == []
    assert len(client.asked) == 1


def test_table_and_picture() -> None:
    truth = scene(("sofa", SOFA, False), ("chair", CHAIR, False))
    pointed = pointed_at(Answering(found(0, 0.9, SOFA)), truth)
    output = io.StringIO()
    Console(file=output, width=100).print(pointed_table([(truth, pointed)]))
    lines = [" ".join(line.replace("│", " ").split()) for line in output.getvalue().splitlines()]
    assert "7 click on the red sofa 0.90 1.000" in lines
    assert "box around the red chair not found 0.000" in lines
    drawn = pointed_overlay(truth.image, pointed)
    assert not truth.image.any(), "the picture itself is left alone"
    x, y = pointed[0].at
    assert (drawn[y, x] == 255).all() and drawn[12, 32].any() and not drawn[2, 2].any()
    x0, y0, x1, y1 = CHAIR
    assert (drawn[y0, x0:x1] == 255).all() and (drawn[y1 - 1, x0:x1] == 255).all() and not drawn[40, 10].any()
