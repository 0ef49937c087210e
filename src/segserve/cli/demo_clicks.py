"""How ``segserve demo`` points at things: a click on one, a box around another; and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

    from segserve.client import Client
    from segserve.imaging import Rgb
    from segserve.results import Instance
    from segserve.training.scenes import Scene, SceneObject

_BACKGROUND = ("floor", "wall", "ceiling")
_GREEN, _WHITE, _BLACK = (22, 163, 74), (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Pointed:
    """An object that was pointed at, and the answer.

    Attributes:
        by: how it was pointed at.
        at: the click (x, y), or the box (x0, y0, x1, y1), in pixels.
        found: the likeliest outline; None where there is none.
        iou: of its mask and the object's, 0..1.
    """

    thing: SceneObject
    by: Literal["click", "box"]
    at: tuple[int, ...]
    found: Instance | None
    iou: float

    @property
    def score(self) -> float | None:
        """The IoU that the model expects, 0..1; None where there is no outline."""
        return None if self.found is None else self.found.score


def point(client: Client, scene: Scene) -> list[Pointed]:
    """Ask sam2, in one request, for the scene's largest piece by a click into its middle, and for the next by its box.

    Scenes with a single piece get the click only, those with none get nothing.
    """
    from segserve.masks import iou
    from segserve.training.clicks import first_click

    pieces = [thing for thing in scene.objects if not thing.ignore and thing.category not in _BACKGROUND]
    largest = sorted(pieces, key=lambda each: -each.area)
    targets: list[tuple[SceneObject, Literal["click", "box"], tuple[int, ...]]] = []
    for thing in largest[:1]:
        click = first_click(scene.mask(thing))
        targets.append((thing, "click", (click.x, click.y)))
    targets += [(thing, "box", thing.box) for thing in largest[1:2]]
    if not targets:
        return []
    objects = [{"points": [(*at, 1)]} if by == "click" else {"box": at} for _, by, at in targets]
    answered = client.segment(scene.image, model="sam2", objects=objects).instances
    pointed = []
    for index, (thing, by, at) in enumerate(targets):
        found = max((each for each in answered if each.object == index), key=lambda each: each.score, default=None)
        pointed.append(Pointed(thing, by, at, found, 0.0 if found is None else iou(found.mask, scene.mask(thing))))
    return pointed


def pointed_table(rooms: Sequence[tuple[Scene, Sequence[Pointed]]]) -> Table:
    """What was pointed at, the score that the model gives itself, and the IoU with the truth."""
    from rich.table import Table

    title = "by click and box: sam2"
    table = Table("room", "asked by", "score", "IoU with the truth", title=title, title_justify="left")
    for column in table.columns[2:]:
        column.justify = "right"
    for scene, pointed in rooms:
        for number, each in enumerate(pointed):
            asked = f"{each.by} {'on' if each.by == 'click' else 'around'} the {each.thing.phrase}"
            score = "not found" if each.score is None else f"{each.score:.2f}"
            table.add_row("" if number else str(scene.seed), asked, score, f"{each.iou:.3f}")
        table.add_section()
    return table


def pointed_overlay(image: Rgb, pointed: Sequence[Pointed]) -> Rgb:
    """The picture with the outlines, named after how they were asked for, and with the click and the box themselves."""
    import cv2
    import numpy as np

    from segserve.render import Drawing, overlay

    answered = [(each.by, each.found) for each in pointed if each.found is not None]
    drawings = [Drawing(by, found.score, found.box, found.mask) for by, found in answered]
    drawn = np.ascontiguousarray(overlay(image, drawings))
    size = max(3, round(max(image.shape[:2]) / 80))
    for each in pointed:
        if each.by == "click":
            x, y = each.at
            cv2.circle(drawn, (x, y), size + 2, _WHITE, -1, cv2.LINE_AA)
            cv2.circle(drawn, (x, y), size, _GREEN, -1, cv2.LINE_AA)
            arm = max(1, size // 2)
            cv2.line(drawn, (x - arm, y), (x + arm, y), _WHITE, 2)
            cv2.line(drawn, (x, y - arm), (x, y + arm), _WHITE, 2)
        else:
            x0, y0, x1, y1 = each.at
            cv2.rectangle(drawn, (x0, y0), (x1 - 1, y1 - 1), _BLACK, 3)
            cv2.rectangle(drawn, (x0, y0), (x1 - 1, y1 - 1), _WHITE, 1)
    return drawn
