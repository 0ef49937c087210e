"""Painting of what lies flat on a surface: windows, doors and pictures on walls, rugs on the floor."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from segserve.training.scenes.canvas import Canvas, Points
from segserve.training.scenes.layout import Placement
from segserve.training.scenes.palette import RGB, blended, scaled
from segserve.training.scenes.patch import Patch, oval, polygon, rectangle

_CREAM: RGB = (244.0, 236.0, 214.0)
_WOOD: RGB = (122.0, 82.0, 50.0)


def paint_window(canvas: Canvas, placement: Placement, rng: np.random.Generator) -> None:
    """A frame with one to three columns of bright sky panes and a sill."""
    patch = placement.patch
    wooden, columns, rows = rng.random() < 0.35, int(rng.integers(1, 4)), int(rng.integers(1, 3))
    frame = scaled(_WOOD, rng.uniform(0.9, 1.3)) if wooden else (246.0, 246.0, 242.0)
    zenith = (rng.uniform(104, 150), rng.uniform(176, 206), rng.uniform(236, 252))
    horizon = blended(zenith, (250.0, 252.0, 255.0), 0.62)
    with canvas.instance("window"):
        canvas.fill(patch.place(rectangle(0, 0, 1, 1)), frame)
        across, down = 0.055, 0.055 * patch.width / patch.height
        columns_at, rows_at = np.linspace(across / 2, 1 - across / 2, columns + 1), np.linspace(0, 0.94, rows + 1)
        for left, right in pairwise(columns_at):
            for top, bottom in pairwise(rows_at):
                pane = rectangle(left + across / 2, top + down * 0.7, right - across / 2, bottom - down * 0.3)
                _paint_pane(canvas, patch, pane, zenith, horizon)
        canvas.detail([patch.place(rectangle(0, 0.95, 1, 1))], scaled(frame, 0.88))


def _paint_pane(canvas: Canvas, patch: Patch, pane: Points, zenith: RGB, horizon: RGB) -> None:
    """Paints one pane, given as a unit rectangle: a sky that pales downwards and a slanting reflection."""
    (left, top), (right, bottom) = pane[0], pane[2]
    steps = np.linspace(top, bottom, 7)
    for upper, lower in pairwise(steps):
        canvas.detail([patch.place(rectangle(left, upper, right, lower))], blended(zenith, horizon, upper))
    width = right - left
    streak = polygon(
        (left + width * 0.62, top),
        (left + width * 0.80, top),
        (left + width * 0.34, bottom),
        (left + width * 0.16, bottom),
    )
    middle = blended(zenith, horizon, (top + bottom) / 2)
    canvas.detail([patch.place(streak)], blended(middle, (255.0, 255.0, 255.0), 0.45))


def paint_door(canvas: Canvas, placement: Placement, rng: np.random.Generator) -> None:
    """A casing, a leaf with sunk panels and a brass knob."""
    patch, paint = placement.patch, placement.named_paint
    columns, knob = int(rng.integers(1, 3)), 0.86 if rng.random() < 0.5 else 0.14
    split = rng.uniform(0.42, 0.52)
    with canvas.instance("door", paint.name):
        canvas.fill(patch.place(rectangle(0, 0, 1, 1)), paint.tone(-2))
        canvas.detail([patch.place(rectangle(0.08, 0.045, 0.92, 1))], paint.main)
        edges = ((0.24, 0.76),) if columns == 1 else ((0.22, 0.47), (0.53, 0.78))
        for top, bottom in ((0.12, split - 0.03), (split + 0.07, 0.90)):
            for left, right in edges:
                canvas.detail([patch.place(rectangle(left, top, right, bottom))], paint.seam)
                canvas.detail([patch.place(rectangle(left + 0.03, top + 0.018, right, bottom))], paint.tone(-1))
        size = 0.055
        canvas.detail([patch.place(oval(knob, 0.53, size, size * patch.width / patch.height))], (226.0, 196.0, 96.0))


def paint_picture(canvas: Canvas, placement: Placement, rng: np.random.Generator) -> None:
    """A dark or gilt frame, a pale mat and a small landscape or an abstract."""
    patch = placement.patch
    frames: tuple[RGB, ...] = ((62, 42, 28), (34, 32, 34), (196, 158, 78), (112, 74, 46))
    frame = scaled(frames[rng.integers(len(frames))], rng.uniform(0.9, 1.1))
    landscape = rng.random() < 0.55
    shares = rng.uniform(size=12)
    with canvas.instance("picture"):
        canvas.fill(patch.place(rectangle(0, 0, 1, 1)), frame)
        across = 0.10
        down = across * patch.width / patch.height
        canvas.detail([patch.place(rectangle(across, down, 1 - across, 1 - down))], _CREAM)
        inner = Patch(patch.place(rectangle(across * 1.7, down * 1.7, 1 - across * 1.7, 1 - down * 1.7)))
        paint_motif = _paint_landscape if landscape else _paint_abstract
        paint_motif(canvas, inner, shares)


def _paint_landscape(canvas: Canvas, patch: Patch, shares: Points) -> None:
    sky = blended((150, 196, 232), (246, 196, 140), float(shares[0]))
    near = blended((70, 120, 70), (190, 160, 90), float(shares[1]))
    ridge = 0.40 + 0.2 * float(shares[2])
    canvas.detail([patch.place(rectangle(0, 0, 1, 1))], sky)
    sun = oval(0.2 + 0.6 * float(shares[3]), 0.24, 0.10, 0.10 * patch.width / patch.height)
    canvas.detail([patch.place(sun)], (252, 232, 150))
    peak = 0.2 + 0.6 * float(shares[4])
    mountain = polygon((0, 0.8), (0, ridge + 0.2), (peak, ridge - 0.12), (1, ridge + 0.25), (1, 0.8))
    canvas.detail([patch.place(mountain)], scaled(near, 0.66))
    canvas.detail([patch.place(polygon((0, 1), (0, 0.72), (0.5, 0.62), (1, 0.74), (1, 1)))], near)


def _paint_abstract(canvas: Canvas, patch: Patch, shares: Points) -> None:
    canvas.detail([patch.place(rectangle(0, 0, 1, 1))], scaled((226, 216, 200), 0.8 + 0.2 * float(shares[0])))
    colors = ((190, 80, 60), (60, 90, 130), (222, 176, 84), (70, 110, 90))
    for index in range(3):
        x, y, size = (float(share) for share in shares[1 + 3 * index : 4 + 3 * index])
        color = colors[(index + int(4 * shares[10])) % 4]
        if index == 1:
            shape = oval(0.3 + 0.4 * x, 0.3 + 0.4 * y, 0.14 + 0.12 * size, 0.14 + 0.12 * size)
        else:
            shape = rectangle(0.08 + 0.3 * x, 0.1 + 0.3 * y, 0.42 + 0.4 * x, 0.5 + 0.4 * y)
        canvas.detail([patch.place(shape)], color)


def paint_rug(canvas: Canvas, placement: Placement, rng: np.random.Generator) -> None:
    """A rectangular or oval rug with a border and, sometimes, stripes."""
    patch, paint = placement.patch, placement.named_paint
    round_shape, striped, pale = rng.random() < 0.3, rng.random() < 0.4, rng.random() < 0.35
    stripes = int(rng.integers(3, 6))
    border = blended(paint.main, _CREAM, 0.6) if pale and paint.name != "white" else paint.seam
    with canvas.instance("rug", paint.name):
        if round_shape:
            canvas.fill(patch.place(oval(0.5, 0.5, 0.5, 0.5)), paint.main)
            canvas.detail([patch.place(oval(0.5, 0.5, 0.42, 0.42))], border)
            canvas.detail([patch.place(oval(0.5, 0.5, 0.385, 0.385))], paint.main)
            return
        canvas.fill(patch.place(rectangle(0, 0, 1, 1)), paint.main)
        canvas.detail([patch.place(rectangle(0.06, 0.08, 0.94, 0.92))], border)
        canvas.detail([patch.place(rectangle(0.09, 0.12, 0.91, 0.88))], paint.main)
        if striped:
            middles = np.linspace(0.09, 0.91, stripes + 2)[1:-1]
            canvas.detail([patch.place(rectangle(u - 0.02, 0.12, u + 0.02, 0.88)) for u in middles], border)
