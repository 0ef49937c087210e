"""The shell of a scene: back wall, side walls, floor and ceiling in one-point perspective."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from segserve.training.scenes.canvas import Canvas, Points
from segserve.training.scenes.palette import RGB, blended, contrast, scaled
from segserve.training.scenes.patch import polygon, rectangle

_FLOORS = ("plain", "planks", "tiles")


@dataclass(frozen=True)
class Room:
    """Geometry in pixels: the back wall's sides and the vanishing point; colors of the surfaces."""

    height: int
    width: int
    left: float
    right: float
    top: float
    bottom: float
    vanish_x: float
    vanish_y: float
    wall: RGB
    floor: RGB
    ceiling: RGB

    def magnification(self, y: float) -> float:
        """How much larger things look on the floor at row y than at the foot of the back wall."""
        return (y - self.vanish_y) / (self.bottom - self.vanish_y)

    def wall_height(self, y: float) -> float:
        """The room's height in pixels for things that stand on the floor at row y."""
        return (self.bottom - self.top) * self.magnification(y)

    def floor_span(self, y: float) -> tuple[float, float]:
        """The visible part of the floor at row y: its leftmost and rightmost x."""
        scale = self.magnification(y)
        left = self.vanish_x + (self.left - self.vanish_x) * scale
        right = self.vanish_x + (self.right - self.vanish_x) * scale
        return max(0.0, left), min(float(self.width), right)

    def toward_viewer(self, x: float, y: float, scale: float) -> tuple[float, float]:
        """A point of the back wall's plane, moved toward the viewer until it looks `scale` times as far out."""
        return self.vanish_x + (x - self.vanish_x) * scale, self.vanish_y + (y - self.vanish_y) * scale


def build_room(rng: np.random.Generator, height: int, width: int) -> Room:
    """Draws the proportions and the muted colors of a room."""
    left, right = width * rng.uniform(-0.04, 0.24), width * rng.uniform(0.76, 1.04)
    top, bottom = height * rng.uniform(0.0, 0.20), height * rng.uniform(0.52, 0.70)
    vanish_x = (left + right) / 2 + width * rng.uniform(-0.05, 0.05)
    vanish_y = top + (bottom - top) * rng.uniform(0.42, 0.60)
    wall = _muted(rng.uniform(), rng.uniform(0.02, 0.20), rng.uniform(0.60, 0.84))
    ceiling = _muted(rng.uniform(0.08, 0.16), rng.uniform(0.0, 0.05), rng.uniform(0.94, 0.99))
    floor = _floor_color(rng)
    if contrast(floor, wall) < 45:
        floor = scaled(floor, 0.72)
    return Room(height, width, left, right, top, bottom, vanish_x, vanish_y, wall, floor, ceiling)


def _muted(hue: float, saturation: float, value: float) -> RGB:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return red * 255, green * 255, blue * 255


def _floor_color(rng: np.random.Generator) -> RGB:
    material = rng.integers(3)
    hue, saturation, value = rng.uniform(), rng.uniform(), rng.uniform()
    if material == 0:  # wood
        return _muted(0.07 + 0.03 * hue, 0.28 + 0.16 * saturation, 0.46 + 0.26 * value)
    if material == 1:  # stone
        return _muted(0.08 + 0.06 * hue, 0.02 + 0.12 * saturation, 0.48 + 0.30 * value)
    return _muted(hue, 0.06 + 0.14 * saturation, 0.40 + 0.28 * value)  # carpet


def paint_room(canvas: Canvas, room: Room, rng: np.random.Generator) -> None:
    """Paints every surface as its own instance: the three walls, the floor, the ceiling."""
    corners = ((room.left, room.top), (room.right, room.top), (room.right, room.bottom), (room.left, room.bottom))
    top_left, top_right, bottom_right, bottom_left = corners
    far = [_far(room, *corner) for corner in corners]
    shade_left, shade_right = rng.uniform(0.80, 0.92, 2)
    with canvas.instance("wall"):
        canvas.fill(rectangle(-2, -2, room.width + 2, room.height + 2), room.wall)
    _paint_wallpaper(canvas, room, rng)
    with canvas.instance("floor"):
        canvas.fill(polygon(bottom_left, bottom_right, far[2], far[3]), room.floor)
        _paint_flooring(canvas, room, rng)
    _shade_depth(canvas, room)
    with canvas.instance("wall"):
        canvas.fill(polygon(top_left, far[0], far[3], bottom_left), scaled(room.wall, shade_left))
    with canvas.instance("wall"):
        canvas.fill(polygon(top_right, far[1], far[2], bottom_right), scaled(room.wall, shade_right))
    with canvas.instance("ceiling"):
        canvas.fill(polygon(top_left, top_right, far[1], far[0]), room.ceiling)
    _paint_trim(canvas, room, rng)


def _far(room: Room, x: float, y: float) -> tuple[float, float]:
    across, down = x - room.vanish_x, y - room.vanish_y
    return room.toward_viewer(x, y, 1.0 + 4.0 * max(room.height, room.width) / float(np.hypot(across, down)))


def _paint_wallpaper(canvas: Canvas, room: Room, rng: np.random.Generator) -> None:
    striped, count, depth = rng.random() < 0.3, int(rng.integers(5, 12)), rng.uniform(0.90, 0.95)
    if striped:
        edges = np.linspace(room.left, room.right, 2 * count + 2)
        bands = [rectangle(a, room.top, b, room.bottom) for a, b in zip(edges[1::2], edges[2::2], strict=False)]
        canvas.detail(bands, scaled(room.wall, depth))


def _paint_flooring(canvas: Canvas, room: Room, rng: np.random.Generator) -> None:
    kind = _FLOORS[rng.integers(len(_FLOORS))]
    columns, depth, first = int(rng.integers(14, 26)), rng.uniform(0.80, 0.90), rng.uniform()
    if kind == "plain":
        return
    joint = scaled(room.floor, depth)
    span = (room.right - room.left) / (columns / 3)
    near = room.magnification(room.height + 2.0)
    half = 0.0012 * room.width
    joints = []
    for index in range(-columns, 2 * columns):
        x = room.left + span * (index + first)
        low, _ = room.toward_viewer(x, room.bottom, near)
        if -span * near < low < room.width + span * near or 0 < x < room.width:
            upper, lower = (x - half, x + half), (low - half * near, low + half * near)
            foot = room.height + 2.0
            joints.append(polygon((upper[0], room.bottom), (upper[1], room.bottom), (lower[1], foot), (lower[0], foot)))
    canvas.detail(joints, joint)
    if kind == "tiles":
        canvas.detail(_tile_rows(room, span), joint)


def _tile_rows(room: Room, span: float) -> list[Points]:
    rows = []
    depth = room.bottom - room.vanish_y
    step = 1.32 * span / (room.right - room.left)
    distance = 1.0
    while distance > 0.25:
        distance -= step
        # A row of tiles lies where one over the distance to the viewer puts it.
        y = room.vanish_y + depth / max(distance, 0.05)
        half = 0.0012 * room.height * (y - room.vanish_y) / depth
        if y - half > room.height:
            break
        rows.append(rectangle(-2, y - half, room.width + 2, y + half))
    return rows


def _paint_trim(canvas: Canvas, room: Room, rng: np.random.Generator) -> None:
    height = (room.bottom - room.top) * rng.uniform(0.018, 0.035)
    white, present = rng.random() < 0.6, rng.random() < 0.7
    color = (238.0, 238.0, 233.0) if white else scaled(room.wall, 0.74)
    line = max(0.002 * room.height, 0.5)
    if present:
        canvas.detail([rectangle(room.left, room.bottom - height, room.right, room.bottom)], color)
        for x in (room.left, room.right):
            near = room.toward_viewer(x, room.bottom, 3.0)
            near_top = room.toward_viewer(x, room.bottom - height, 3.0)
            canvas.detail([polygon((x, room.bottom - height), near_top, near, (x, room.bottom))], scaled(color, 0.9))
    corner = scaled(room.wall, 0.72)
    canvas.detail([rectangle(x - line, room.top, x + line, room.bottom) for x in (room.left, room.right)], corner)
    canvas.detail(
        [rectangle(room.left, room.top - line, room.right, room.top + line)], blended(corner, room.ceiling, 0.3)
    )


def _shade_depth(canvas: Canvas, room: Room) -> None:
    """Rows near the back wall's foot get a little less light, as the corners of real rooms do."""
    rows = np.arange(room.height, dtype=np.float32) + 0.5
    floor = np.clip((rows - room.bottom) / max(1.0, room.height - room.bottom), 0.0, 1.0)
    wall = np.clip((rows - room.top) / (room.bottom - room.top), 0.0, 1.0)
    light = np.where(rows > room.bottom, 0.88 + 0.14 * np.sqrt(floor), 1.02 - 0.08 * wall**2).astype(np.float32)
    canvas.image[:] = np.clip(canvas.image * light[:, None, None], 0, 255).astype(np.uint8)
