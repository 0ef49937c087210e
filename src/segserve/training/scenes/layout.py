"""What stands where: categories, patches and colors of a scene's things, before anything is painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segserve.training.scenes.palette import Paint, choose_paint
from segserve.training.scenes.patch import Patch
from segserve.training.scenes.room import Room

Box = tuple[float, float, float, float]
_FIXTURES = ("window", "door", "picture")
_FURNITURE = ("sofa", "chair", "table", "lamp", "plant", "bed")
_KINDS = ("sofa", "chair", "table", "lamp", "rug", "window", "door", "picture", "plant", "bed")
_AT_MOST = {"rug": 1, "bed": 1, "door": 1, "chair": 3}
_USUALLY_AT_MOST = 2
_FALLBACK = ("plant", "chair", "picture")
# Width and height of standing furniture, relative to the room's height where it stands.
_PROPORTIONS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "sofa": ((0.74, 1.10), (0.32, 0.42)),
    "chair": ((0.25, 0.34), (0.44, 0.56)),
    "table": ((0.48, 0.82), (0.27, 0.36)),
    "lamp": ((0.22, 0.30), (0.62, 0.80)),
    "plant": ((0.30, 0.42), (0.46, 0.64)),
    "bed": ((0.90, 1.25), (0.36, 0.46)),
}
_FURNITURE_OVERLAP = 0.32
_SAME_KIND_OVERLAP = 0.10


@dataclass(frozen=True)
class Placement:
    """One thing to paint: its category, its patch of the picture and, where it has a named color, its paint."""

    category: str
    patch: Patch
    paint: Paint | None

    @property
    def named_paint(self) -> Paint:
        """The paint of a thing that cannot do without.

        Raises:
            ValueError: it was placed without one.
        """
        if self.paint is None:
            raise ValueError(f"a {self.category} needs a named color")
        return self.paint


def plan_layout(room: Room, rng: np.random.Generator) -> list[Placement]:
    """Chooses two to six things and places them, in painting order: wall fixtures, rug, furniture far to near."""
    return _Planner(room, rng).plan()


class _Planner:
    """Places things one after the other, each where it covers the earlier ones only a little."""

    def __init__(self, room: Room, rng: np.random.Generator) -> None:
        self.room = room
        self.rng = rng
        self.fixtures: list[Placement] = []
        self.standing: list[Placement] = []
        self._taken: list[tuple[str, Box]] = []

    def plan(self) -> list[Placement]:
        wanted = self._choose_categories()
        for kind in (*_only(_FIXTURES, wanted), *_only(_FURNITURE, wanted)):
            self._add(kind)
        if len(self.fixtures) + len(self.standing) + wanted.count("rug") < 2:
            for kind in _FALLBACK:
                self._add(kind)
        rugs = [self._lay_rug() for _ in _only(("rug",), wanted)]
        self.standing.sort(key=lambda placement: float(placement.patch.corners[2, 1]))
        return self.fixtures + rugs + self.standing

    def _choose_categories(self) -> list[str]:
        count = int(self.rng.integers(2, 7))
        wanted: list[str] = []
        for index in self.rng.integers(0, len(_KINDS), 12):
            kind = _KINDS[index]
            if len(wanted) < count and wanted.count(kind) < _AT_MOST.get(kind, _USUALLY_AT_MOST):
                wanted.append(kind)
        return wanted

    def _add(self, kind: str) -> None:
        """Places a thing if there is room for it."""
        if kind in _FIXTURES:
            placement = self._hang(kind)
            self.fixtures += [placement] if placement else []
        else:
            placement = self._stand(kind)
            self.standing += [placement] if placement else []

    def _hang(self, kind: str) -> Placement | None:
        """A fixture on the back wall or, where one is broad enough, on a side wall."""
        room, rng = self.room, self.rng
        wall = room.bottom - room.top
        width, top, bottom = _fixture_size(rng, kind, wall)
        on_side, left_side = rng.random() < 0.25, bool(rng.random() < 0.5)
        reach = (rng.uniform(0.08, 0.20), rng.uniform(0.78, 0.95))
        tries = rng.uniform(size=8)
        paint = choose_paint(rng, [room.wall]) if kind == "door" else None
        margin = 0.02 * room.width
        if on_side and (room.left if left_side else room.width - room.right) > 0.16 * room.width:
            patch = _side_patch(room, left_side, reach, (top, bottom))
            box = _bounds(patch)
            if self._take(kind, box, box, 0.0):
                return Placement(kind, patch, paint)
        first, last = max(0.0, room.left) + margin, min(room.width, room.right) - margin
        width = min(width, 0.8 * (last - first))
        for share in tries:
            x = first + (last - first - width) * float(share)
            box = (x, room.top + wall * top, x + width, room.top + wall * bottom)
            if self._take(kind, box, (box[0] - margin, box[1], box[2] + margin, box[3]), 0.0):
                return Placement(kind, Patch.upright(*box), paint)
        return None

    def _lay_rug(self) -> Placement:
        """A rug between the side walls, in the floor's perspective; furniture may stand on it."""
        room, rng = self.room, self.rng
        depth = room.height - room.bottom
        far = room.bottom + depth * rng.uniform(0.12, 0.42)
        near = min(room.height - 0.01 * room.height, far + depth * rng.uniform(0.36, 0.56))
        half = room.width * rng.uniform(0.20, 0.34)
        middle = room.width * rng.uniform(0.32, 0.68)
        paint = choose_paint(rng, [room.floor])
        mean = (room.magnification(far) + room.magnification(near)) / 2
        first = room.vanish_x + (room.left - room.vanish_x) * mean
        last = room.vanish_x + (room.right - room.vanish_x) * mean
        half = min(half, 0.48 * (last - first))
        middle = min(max(middle, first + half), last - half)
        corners = []
        for y, side in ((far, -1), (far, 1), (near, 1), (near, -1)):
            scale = room.magnification(y) / mean
            corners.append((room.vanish_x + (middle - room.vanish_x + side * half) * scale, y))
        return Placement("rug", Patch(corners), paint)

    def _stand(self, kind: str) -> Placement | None:
        """Furniture on the floor, its size that of the depth where it stands."""
        room, rng = self.room, self.rng
        paint = choose_paint(rng, [room.wall, room.floor])
        widths, heights = _PROPORTIONS[kind]
        width_share, height_share = rng.uniform(*widths), rng.uniform(*heights)
        for down, across in rng.uniform(size=(10, 2)):
            foot = room.bottom + (room.height - room.bottom) * (0.06 + 0.86 * float(down))
            tall = room.wall_height(foot)
            width, height = tall * width_share, tall * height_share
            shrink = min(1.0, 0.66 * room.width / width, 0.68 * room.height / height)
            width, height = width * shrink, height * shrink
            left, right = room.floor_span(foot)
            first, last = left - 0.08 * width, right - 0.92 * width
            if first > last:
                continue
            x = first + (last - first) * float(across)
            box = (x, foot - height, x + width, foot)
            if self._take(kind, box, box, _FURNITURE_OVERLAP):
                return Placement(kind, Patch.upright(*box), None if kind == "plant" else paint)
        return None

    def _take(self, kind: str, box: Box, with_margin: Box, limit: float) -> bool:
        """Reserves a box unless, with its margin, it overlaps an earlier one by more than the limit."""
        same_kind = min(limit, _SAME_KIND_OVERLAP)
        for name, other in self._taken:
            if _overlap(with_margin, other) > (same_kind if name == kind else limit):
                return False
        self._taken.append((kind, box))
        return True


def _only(kinds: tuple[str, ...], wanted: list[str]) -> list[str]:
    return [kind for kind in wanted if kind in kinds]


def _overlap(first: Box, second: Box) -> float:
    """Shared area of two boxes relative to the smaller one (0..1)."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return width * height / smaller


def _fixture_size(rng: np.random.Generator, kind: str, wall: float) -> tuple[float, float, float]:
    """Width in pixels; top and bottom in shares of the wall's height."""
    if kind == "window":
        return wall * rng.uniform(0.36, 0.72), rng.uniform(0.10, 0.18), rng.uniform(0.56, 0.70)
    if kind == "door":
        return wall * rng.uniform(0.34, 0.44), rng.uniform(0.14, 0.24), 1.0
    return wall * rng.uniform(0.24, 0.46), rng.uniform(0.12, 0.22), rng.uniform(0.44, 0.58)


def _side_patch(room: Room, left: bool, reach: tuple[float, float], rise: tuple[float, float]) -> Patch:
    """A patch of a side wall, upright in the room: `reach` from back to front, `rise` from top to bottom (0..1)."""
    x = room.left if left else room.right
    edge = 0.0 if left else float(room.width)
    outermost = (edge - room.vanish_x) / (x - room.vanish_x)
    back, front = (1.0 + (outermost - 1.0) * share for share in reach)
    heights = [room.top + (room.bottom - room.top) * share for share in rise]
    first, second = (front, back) if left else (back, front)
    corners = [(first, heights[0]), (second, heights[0]), (second, heights[1]), (first, heights[1])]
    return Patch([room.toward_viewer(x, y, scale) for scale, y in corners])


def _bounds(patch: Patch) -> Box:
    (left, top), (right, bottom) = patch.corners.min(axis=0), patch.corners.max(axis=0)
    return float(left), float(top), float(right), float(bottom)
