"""Painting of what stands on the floor: sofas, chairs, tables, lamps, plants and beds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from segserve.training.scenes.canvas import Canvas, Points
from segserve.training.scenes.layout import Placement
from segserve.training.scenes.palette import RGB, Paint, blended, scaled
from segserve.training.scenes.patch import Patch, oval, polygon, rectangle, rounded

_WOOD: RGB = (116.0, 78.0, 48.0)
_LINEN: RGB = (244.0, 242.0, 236.0)
# Outer leaves first, for each number of leaves. Mirrored leaves tie, and NumPy may sort ties differently from one
# processor to the next; a table does not.
_LEAF_ORDER = {
    9: (0, 8, 1, 7, 6, 2, 5, 3, 4),
    10: (0, 9, 8, 1, 2, 7, 3, 6, 4, 5),
    11: (0, 10, 9, 1, 2, 8, 7, 3, 4, 6, 5),
    12: (0, 11, 10, 1, 2, 9, 8, 3, 7, 4, 6, 5),
    13: (0, 12, 11, 1, 2, 10, 9, 3, 8, 4, 5, 7, 6),
}


def paint_sofa(canvas: Canvas, placement: Placement, rng: np.random.Generator) -> None:
    """Back, two or three cushions above and below, rounded arms, short feet."""
    patch, paint = placement.patch, placement.named_paint
    seats, arm = int(rng.integers(2, 4)), rng.uniform(0.12, 0.16)
    edges = np.linspace(arm - 0.005, 1.005 - arm, seats + 1)
    pairs = list(pairwise(edges))
    with canvas.instance("sofa", paint.name):
        for left in (0.05, 0.87):
            canvas.fill(patch.place(rectangle(left, 0.86, left + 0.08, 1.0)), scaled(_WOOD, 0.6))
        canvas.fill(patch.place(rounded(0.05, 0.0, 0.95, 0.80, across=0.05, down=0.14)), paint.tone(-2))
        backs = [patch.place(rounded(a + 0.008, 0.06, b - 0.008, 0.62, across=0.035, down=0.10)) for a, b in pairs]
        canvas.detail(backs, paint.tone(-1))
        canvas.fill(patch.place(rectangle(0.04, 0.58, 0.96, 0.93)), paint.tone(-1))
        canvas.detail([patch.place(rectangle(arm, 0.52, 1 - arm, 0.74))], paint.seam)
        seat = [patch.place(rounded(a + 0.006, 0.52, b - 0.006, 0.72, across=0.025, down=0.08)) for a, b in pairs]
        canvas.detail(seat, paint.main)
        for left in (0.0, 1.0 - arm):
            canvas.fill(patch.place(rounded(left, 0.30, left + arm, 0.94, across=0.06, down=0.16)), paint.main)
            front = rounded(left + 0.02, 0.35, left + arm - 0.02, 0.90, across=0.045, down=0.12)
            canvas.detail([patch.place(front)], paint.tone(1))


def paint_chair(canvas: Canvas, placement: Placement, rng: np.random.Generator) -> None:
    """Four stout legs, a seat and a tall back: one panel or two broad slats."""
    patch, paint = placement.patch, placement.named_paint
    slatted, leg = rng.random() < 0.3, rng.uniform(0.14, 0.17)
    with canvas.instance("chair", paint.name):
        for left in (0.16, 0.84 - leg):
            canvas.fill(patch.place(rectangle(left, 0.55, left + leg, 0.93)), paint.tone(-2))
        if slatted:
            for left in (0.10, 0.90 - leg):
                canvas.fill(patch.place(rounded(left, 0.0, left + leg, 0.62, across=0.05, down=0.03)), paint.tone(-1))
            for top in (0.03, 0.27):
                canvas.fill(patch.place(rectangle(0.12, top, 0.88, top + 0.15)), paint.tone(-1))
        else:
            canvas.fill(patch.place(rounded(0.09, 0.0, 0.91, 0.56, across=0.14, down=0.07)), paint.tone(-1))
            canvas.detail([patch.place(rounded(0.19, 0.05, 0.81, 0.44, across=0.10, down=0.05))], paint.main)
        for left in (0.01, 0.99 - leg):
            canvas.fill(patch.place(rectangle(left, 0.62, left + leg, 1.0)), paint.tone(-1))
        canvas.fill(patch.place(polygon((0.10, 0.49), (0.90, 0.49), (1.0, 0.61), (0.0, 0.61))), paint.tone(1))
        canvas.fill(patch.place(rectangle(0.0, 0.605, 1.0, 0.70)), paint.tone(-1))


def paint_table(canvas: Canvas, placement: Placement, rng: np.random.Generator) -> None:
    """A rectangular top on four legs or a round one on a column."""
    patch, paint = placement.patch, placement.named_paint
    leg, round_top = rng.uniform(0.09, 0.12), rng.random() < 0.35
    with canvas.instance("table", paint.name):
        if round_top:
            canvas.fill(patch.place(oval(0.5, 0.92, 0.28, 0.08)), paint.tone(-2))
            canvas.fill(patch.place(rectangle(0.5 - leg * 0.7, 0.3, 0.5 + leg * 0.7, 0.93)), paint.tone(-1))
            canvas.fill(patch.place(oval(0.5, 0.27, 0.5, 0.20)), paint.tone(-2))
            canvas.fill(patch.place(oval(0.5, 0.20, 0.5, 0.20)), paint.main)
            return
        for left in (0.15, 0.85 - leg * 0.85):
            canvas.fill(patch.place(rectangle(left, 0.3, left + leg * 0.85, 0.84)), paint.tone(-2))
        for left in (0.02, 0.98 - leg):
            canvas.fill(patch.place(rectangle(left, 0.3, left + leg, 1.0)), paint.tone(-1))
        canvas.fill(patch.place(rectangle(0.0, 0.265, 1.0, 0.42)), paint.tone(-1))
        canvas.fill(patch.place(polygon((0.10, 0.0), (0.90, 0.0), (1.0, 0.27), (0.0, 0.27))), paint.main)
        canvas.detail([patch.place(rectangle(0.0, 0.255, 1.0, 0.285))], paint.tone(1))


def paint_lamp(canvas: Canvas, placement: Placement, rng: np.random.Generator) -> None:
    """A floor lamp: a colored shade, a thick pole and a broad foot."""
    patch, paint = placement.patch, placement.named_paint
    metals: tuple[RGB, ...] = ((96, 92, 88), (58, 54, 54), (150, 122, 74))
    metal = scaled(metals[rng.integers(len(metals))], rng.uniform(0.9, 1.1))
    pole, narrow = rng.uniform(0.15, 0.19), rng.uniform(0.16, 0.26)
    deep = rng.uniform(0.32, 0.40)
    with canvas.instance("lamp", paint.name):
        canvas.fill(patch.place(oval(0.5, 0.955, 0.38, 0.045)), scaled(metal, 0.8))
        canvas.fill(patch.place(rectangle(0.5 - pole / 2, deep - 0.04, 0.5 + pole / 2, 0.95)), metal)
        lit = rectangle(0.5 - pole * 0.35, deep, 0.5 - pole * 0.1, 0.94)
        canvas.detail([patch.place(lit)], blended(metal, (255, 255, 255), 0.25))
        canvas.fill(patch.place(polygon((narrow, 0), (1 - narrow, 0), (1, deep), (0, deep))), paint.main)
        glow = polygon((narrow + 0.14, 0.02), (0.86 - narrow, 0.02), (0.80, deep - 0.02), (0.20, deep - 0.02))
        canvas.detail([patch.place(glow)], paint.tone(1))
        hem = polygon((0.01, deep - 0.025), (0.99, deep - 0.025), (1, deep), (0, deep))
        canvas.detail([patch.place(hem)], paint.tone(-1))


def paint_plant(canvas: Canvas, placement: Placement, rng: np.random.Generator) -> None:
    """A bushy plant in a pot."""
    patch = placement.patch
    pots: tuple[RGB, ...] = ((178, 98, 62), (206, 200, 190), (104, 104, 110), (150, 112, 74))
    pot, deep, half = pots[rng.integers(len(pots))], rng.uniform(0.28, 0.36), rng.uniform(0.26, 0.34)
    leaf_color = (rng.uniform(40, 76), rng.uniform(112, 146), rng.uniform(44, 76))
    count = int(rng.integers(9, 14))
    lean, reach, tint = rng.uniform(-0.06, 0.06, 13), rng.uniform(0.84, 1.0, 13), rng.uniform(0.74, 1.22, 13)
    stem = 1.0 - deep
    angles = np.linspace(-1.15, 1.15, count)
    with canvas.instance("plant"):
        canvas.fill(patch.place(oval(0.5, stem * 0.62, 0.26, stem * 0.34)), scaled(leaf_color, 0.7))
        for index in _LEAF_ORDER[count]:
            angle = float(angles[index] + lean[index])
            canvas.fill(patch.place(_leaf(angle, float(reach[index]), stem)), scaled(leaf_color, float(tint[index])))
        body = polygon((0.5 - half, stem), (0.5 + half, stem), (0.5 + half * 0.72, 1), (0.5 - half * 0.72, 1))
        canvas.fill(patch.place(body), pot)
        rim = rectangle(0.48 - half, stem - 0.01, 0.52 + half, stem + 0.065)
        canvas.fill(patch.place(rim), scaled(pot, 0.86))


def _leaf(angle: float, reach: float, stem: float) -> Points:
    """A pointed leaf from the pot's middle; `angle` in radians from upright."""
    along = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25])
    aside = np.array([0.0, 0.07, 0.11, 0.085, 0.0, -0.085, -0.11, -0.07])
    bend = angle + 0.35 * angle * along
    across = 0.5 + 0.50 * reach * along * np.sin(bend) + aside * np.cos(bend)
    rise = reach * along * np.cos(bend * 0.9) - aside * np.sin(bend)
    return np.stack([np.clip(across, 0.0, 1.0), stem * np.clip(1.0 - rise, 0.0, 1.0) + 0.02], axis=1)


def paint_bed(canvas: Canvas, placement: Placement, rng: np.random.Generator) -> None:
    """A bed from its side: headboard, pillow, white sheet and a colored blanket."""
    flipped, wood = rng.random() < 0.5, scaled(_WOOD, rng.uniform(0.8, 1.35))
    fold = rng.uniform(0.30, 0.38)
    patch = placement.patch.mirrored() if flipped else placement.patch
    paint = placement.named_paint
    with canvas.instance("bed", paint.name):
        for left in (0.08, 0.86):
            canvas.fill(patch.place(rectangle(left, 0.80, left + 0.06, 1.0)), scaled(wood, 0.6))
        canvas.fill(patch.place(rounded(0.0, 0.0, 0.085, 1.0, across=0.03, down=0.06)), wood)
        canvas.fill(patch.place(rectangle(0.04, 0.72, 0.98, 0.90)), scaled(wood, 0.88))
        _paint_bedding(canvas, patch, paint, fold)
        canvas.fill(patch.place(rounded(0.945, 0.42, 1.0, 1.0, across=0.02, down=0.05)), wood)


def _paint_bedding(canvas: Canvas, patch: Patch, paint: Paint, fold: float) -> None:
    canvas.fill(patch.place(polygon((0.07, 0.48), (0.13, 0.28), (0.93, 0.28), (0.965, 0.48))), _LINEN)
    canvas.fill(patch.place(rectangle(0.07, 0.475, 0.965, 0.74)), scaled(_LINEN, 0.9))
    canvas.fill(patch.place(rounded(0.10, 0.18, 0.28, 0.42, across=0.05, down=0.10)), (253.0, 252.0, 249.0))
    canvas.detail([patch.place(rounded(0.12, 0.36, 0.27, 0.42, across=0.03, down=0.03))], scaled(_LINEN, 0.9))
    canvas.fill(patch.place(polygon((fold, 0.48), (fold + 0.05, 0.255), (0.935, 0.255), (0.975, 0.48))), paint.tone(1))
    canvas.fill(patch.place(rectangle(fold, 0.475, 0.975, 0.82)), paint.main)
    canvas.detail([patch.place(rectangle(fold, 0.475, fold + 0.035, 0.82))], paint.tone(-1))
