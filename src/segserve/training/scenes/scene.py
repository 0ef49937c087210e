"""Procedurally generated interior scenes with exact ground truth, deterministic for a seed.

Training uses seeds 1,000,000 to 499,999,999; all others are kept for evaluation, tests and demonstrations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segserve.training.scenes.canvas import Canvas, PaintedObject
from segserve.training.scenes.fixtures import paint_door, paint_picture, paint_rug, paint_window
from segserve.training.scenes.furniture import paint_bed, paint_chair, paint_lamp, paint_plant, paint_sofa, paint_table
from segserve.training.scenes.layout import Placement, plan_layout
from segserve.training.scenes.light import expose
from segserve.training.scenes.room import build_room, paint_room

STUFF = ("wall", "floor", "ceiling")
THINGS = ("sofa", "chair", "table", "lamp", "rug", "window", "door", "picture", "plant", "bed")
CATEGORIES = STUFF + THINGS
COLORED = ("sofa", "chair", "table", "lamp", "rug", "door", "bed")
SIZES = ((480, 640), (480, 480), (426, 640), (640, 480), (512, 640))

_SMALLEST_THING = 0.0025
_SMALLEST_STUFF = 0.008
_SMALLEST_SIDE = 0.02
_LEAST_VISIBLE = 0.35
_PAINTERS: dict[str, Callable[[Canvas, Placement, np.random.Generator], None]] = {
    "sofa": paint_sofa,
    "chair": paint_chair,
    "table": paint_table,
    "lamp": paint_lamp,
    "rug": paint_rug,
    "window": paint_window,
    "door": paint_door,
    "picture": paint_picture,
    "plant": paint_plant,
    "bed": paint_bed,
}
_SHADOWS = {"sofa": 0.30, "chair": 0.30, "table": 0.26, "lamp": 0.24, "plant": 0.28, "bed": 0.30}


@dataclass(frozen=True)
class SceneObject:
    """One visible instance.

    Attributes:
        id: its value in `Scene.instances`.
        category: one of CATEGORIES.
        color: one of COLORS for the categories in COLORED, else None.
        box: x0, y0, x1, y1 in pixels around the visible part, ends exclusive.
        area: visible pixels.
        ignore: too small, or less than 35 % of it visible, to be asked for or scored.
    """

    id: int
    category: str
    color: str | None
    box: tuple[int, int, int, int]
    area: int
    ignore: bool

    @property
    def phrase(self) -> str:
        """What a person would call it: "red chair", "floor"."""
        return f"{self.color} {self.category}" if self.color else self.category


@dataclass(frozen=True)
class Scene:
    """A picture and its truth.

    Attributes:
        seed: what it was made from.
        image: (H, W, 3) uint8 RGB.
        instances: (H, W) uint8, the id of the object at each pixel, never 0.
        semantic: (H, W) uint8, the index in CATEGORIES at each pixel.
        objects: the visible instances, by ascending id.
    """

    seed: int
    image: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint8]
    semantic: npt.NDArray[np.uint8]
    objects: tuple[SceneObject, ...]

    def mask(self, obj: SceneObject) -> npt.NDArray[np.bool_]:
        """The visible pixels of one object, (H, W) bool."""
        return np.asarray(self.instances == obj.id)


def default_size(seed: int) -> tuple[int, int]:
    """The (height, width) that a seed gets when no size is asked for."""
    return SIZES[int(np.random.default_rng((seed, 1)).integers(len(SIZES)))]


def training_size(seed: int) -> tuple[int, int]:
    """Half the default (height, width): the models see 256 pixels, so larger pictures only cost time."""
    height, width = default_size(seed)
    return round(height / 2), round(width / 2)


def make_scene(seed: int, size: tuple[int, int] | None = None) -> Scene:
    """Builds the scene of a seed.

    Args:
        seed: any non-negative integer; equal seeds give equal bytes (with the same
            library versions and processor; elsewhere single pixels may round differently).
        size: (height, width) in pixels, at least 32 each. It changes the resolution only: at the
            default aspect ratio the same things stand in the same places.

    Raises:
        ValueError: the seed is negative or a side is shorter than 32 pixels.
    """
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {seed}")
    height, width = default_size(seed) if size is None else size
    if min(height, width) < 32:
        raise ValueError(f"size: expected sides of at least 32 pixels, got {height} x {width}")
    rng = np.random.default_rng(seed)
    canvas = Canvas(height, width)
    room = build_room(rng, height, width)
    paint_room(canvas, room, rng)
    for placement in plan_layout(room, rng):
        _cast_shadow(canvas, placement)
        _PAINTERS[placement.category](canvas, placement, rng)
    image = expose(canvas.image, rng)
    index_of = np.array([0] + [CATEGORIES.index(painted.category) for painted in canvas.painted], np.uint8)
    objects = tuple(visible_objects(canvas))
    return Scene(seed, image, canvas.instances, index_of[canvas.instances], objects)


def _cast_shadow(canvas: Canvas, placement: Placement) -> None:
    strength = _SHADOWS.get(placement.category)
    if strength is None:
        return
    patch = placement.patch
    x = float(patch.corners[:, 0].mean())
    foot = float(patch.corners[2, 1]) - 0.01 * patch.height
    canvas.shadow((x, foot), (0.62 * patch.width, 0.10 * patch.height + 0.04 * patch.width), strength)


def visible_objects(canvas: Canvas) -> list[SceneObject]:
    """What is left to see of each painted instance, by ascending id; those fully covered are left out."""
    counts = np.bincount(canvas.instances.ravel(), minlength=len(canvas.painted) + 1)
    found = []
    for painted in canvas.painted:
        area = int(counts[painted.id])
        if area:
            box = _box_of(canvas.instances == painted.id)
            ignore = _is_ignored(painted, area, box, canvas.height, canvas.width)
            found.append(SceneObject(painted.id, painted.category, painted.color, box, area, ignore))
    return found


def _box_of(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _is_ignored(painted: PaintedObject, area: int, box: tuple[int, int, int, int], height: int, width: int) -> bool:
    """Whether an object of `area` visible pixels is too small or too hidden to count.

    Walls, floor and ceiling are meant to be covered: they have no least visible share.
    """
    stuff = painted.category in STUFF
    if area < (_SMALLEST_STUFF if stuff else _SMALLEST_THING) * height * width:
        return True
    if min(box[2] - box[0], box[3] - box[1]) < _SMALLEST_SIDE * min(height, width):
        return True
    return not stuff and area < _LEAST_VISIBLE * painted.painted_area
