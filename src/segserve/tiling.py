"""A product image repeated over a masked surface: floor boards over a floor, wallpaper over a wall.

The base is plain repetition. Two things make it look as if it belonged there: the surface's own light and shadows
are kept (its brightness, smoothed so that the old pattern vanishes), and a floor's pattern gets smaller with the
distance, in the perspective that the floor's outline shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segserve.imaging import Rgb
from segserve.masks import Mask, bounding_box

Floats = NDArray[np.float32]

_STRIP_ROWS = 256
_SHADING_SIDE = 384
_SHADE_RANGE = (0.35, 1.2)
_PATTERN_CONTRAST = 0.1


@dataclass(frozen=True)
class VanishingPoint:
    """Where a floor's depth lines meet, in pixels of the picture; y is the horizon. It may lie outside."""

    x: float
    y: float


def tile_product(
    image: Rgb,
    mask: Mask,
    product: Rgb,
    *,
    scale: float = 0.25,
    perspective: bool = False,
    shading: bool = True,
    feather: bool = True,
) -> Rgb:
    """The picture with the product repeated over the masked pixels; all others stay exactly as they were.

    Args:
        image: H x W x 3 RGB uint8.
        mask: H x W bool, the surface. An empty one gives a copy of the picture.
        product: the image to repeat, h x w x 3 RGB uint8.
        scale: width of one repetition as a part of the picture's longer side (with perspective: at the lower edge).
        perspective: lay the product on the ground, with the vanishing point that the mask's outline shows.
        shading: keep the light and the shadows that lie on the surface.
        feather: blend the outermost pixel inside the mask half and half with the picture.

    Raises:
        ValueError: mask and picture differ in size, the product has no pixels, or scale is not above 0.
    """
    if mask.shape != image.shape[:2]:
        raise ValueError(f"a mask of {mask.shape} does not fit a picture of {image.shape[:2]}")
    if product.ndim != 3 or product.shape[2] != 3 or 0 in product.shape:
        raise ValueError(f"the product must be an h x w x 3 picture, came shape {product.shape}")
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale must be above 0, came {scale}")
    box = bounding_box(mask)
    result = image.copy()
    if box is None:
        return result
    x0, y0, x1, y1 = box
    tile = _resized(product, max(1, round(scale * max(image.shape[:2]))))
    point = vanishing_point(mask) if perspective else None
    shade = _Shading(image[y0:y1, x0:x1], mask[y0:y1, x0:x1], _exposure(image)) if shading else None
    levels = _pyramid(tile) if point else []
    edge = _edge(mask) if feather else np.zeros_like(mask)
    for top in range(y0, y1, _STRIP_ROWS):
        bottom = min(y1, top + _STRIP_ROWS)
        if point:
            laid = _on_ground(levels, point, (x0, top, x1, bottom), y1, max(image.shape[:2]))
        else:
            laid = _repeated(tile, (x0, top, x1, bottom))
        if shade is not None:
            laid = laid * shade.rows(top - y0, bottom - y0)[..., None]
        _blend(result[top:bottom, x0:x1], laid, mask[top:bottom, x0:x1], edge[top:bottom, x0:x1])
    return result


def vanishing_point(mask: Mask) -> VanishingPoint | None:
    """The vanishing point of a floor from its outline, or None when the mask is no ground seen from above.

    Where the left and the right edge are seen (not cut off by the picture's border) they are lines into the depth,
    and meet in it. Otherwise the horizon is taken at 40 % of the picture's height, where the one edge that is seen
    points, or above the middle of floor and picture: that is how rooms are mostly photographed.
    """
    box = bounding_box(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    height, width = mask.shape
    rows = np.flatnonzero(mask.any(axis=1))
    left = _edge_line(rows, mask[rows].argmax(axis=1), 1, height)
    right = _edge_line(rows, width - 1 - mask[rows, ::-1].argmax(axis=1), width - 2, height)
    if left and right and right[0] - left[0] > 0.2:
        y = (left[1] - right[1]) / (right[0] - left[0])
        if y < y0 - 0.03 * (y1 - y0):
            return VanishingPoint(left[0] * y + left[1], max(y, y0 - 2.0 * height))
    horizon = min(0.4 * height, y0 - 0.25 * (y1 - y0))
    seen = [line[0] * horizon + line[1] for line, inwards in ((left, -1), (right, 1)) if line and line[0] * inwards > 0]
    x = float(np.mean(seen)) if seen else 0.25 * (x0 + x1 + width)
    return VanishingPoint(float(np.clip(x, 0.25 * width, 0.75 * width)), horizon)


def _edge_line(
    rows: NDArray[np.intp], columns: NDArray[np.intp], border: int, height: int
) -> tuple[float, float] | None:
    """(slope, offset) of x = slope * y + offset through an edge's pixels that do not lie on the picture's border.

    The median of slopes between distant points (Theil-Sen) ignores furniture that covers a part of the edge.
    """
    seen = columns > border if border <= 1 else columns < border
    y, x = rows[seen].astype(np.float64), columns[seen].astype(np.float64)
    if len(y) < max(8, 0.05 * height):
        return None
    step = max(1, len(y) // 60)
    y, x = y[::step], x[::step]
    first, second = np.triu_indices(len(y), max(1, len(y) // 4))
    slope = float(np.median((x[second] - x[first]) / (y[second] - y[first])))
    return slope, float(np.median(x - slope * y))


def _resized(product: Rgb, width: int) -> Floats:
    """The product at the given width in pixels, its aspect kept."""
    height = max(1, round(width * product.shape[0] / product.shape[1]))
    method = cv2.INTER_AREA if width < product.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(product, (width, height), interpolation=method), dtype=np.float32)


def _repeated(tile: Floats, part: tuple[int, int, int, int]) -> Floats:
    """Plain repetition, counted from the picture's corner so that neighboring surfaces join."""
    x0, y0, x1, y1 = part
    rows, columns = np.arange(y0, y1) % tile.shape[0], np.arange(x0, x1) % tile.shape[1]
    return np.asarray(tile[rows[:, None], columns[None]])


def _pyramid(tile: Floats) -> list[Floats]:
    """The tile and its halvings down to 2 pixels: what is far is read from a small one, so that it does not flicker."""
    levels = [tile]
    while min(levels[-1].shape[:2]) > 2:
        height, width = levels[-1].shape[:2]
        levels.append(cv2.resize(levels[-1], ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA))
    return levels


def _on_ground(
    levels: list[Floats], point: VanishingPoint, part: tuple[int, int, int, int], lower_edge: int, side: int
) -> Floats:
    """The tile on the ground plane, seen by a pinhole camera with a focal length of the picture's longer side.

    A row d pixels below the horizon is 1/d deep and its pixels are 1/d wide on the ground, in units that make one
    tile pixel one picture pixel at lower_edge.
    """
    x0, y0, x1, y1 = part
    nearest = lower_edge - point.y
    depth = np.maximum(np.arange(y0, y1, dtype=np.float64) + 0.5 - point.y, 1e-3 * nearest)
    across = (np.arange(x0, x1, dtype=np.float64) + 0.5 - point.x)[None] * (nearest / depth)[:, None]
    per_row = side * nearest / depth**2
    along = -side * nearest / depth
    # Rows are squeezed more than columns: three samples a row carry some of the difference.
    coarse = np.log2(np.maximum(np.maximum(nearest / depth, per_row / 3), 1))
    coarse = np.minimum(coarse, len(levels) - 1)
    laid = np.zeros((y1 - y0, x1 - x0, 3), dtype=np.float32)
    for level in range(int(coarse.min()), int(np.ceil(coarse.max())) + 1):
        weight = np.clip(1 - np.abs(coarse - level), 0, None).astype(np.float32)
        rows = np.flatnonzero(weight)
        if not len(rows):
            continue
        for shift in (-1 / 3, 0.0, 1 / 3):
            sample = _sampled(levels, level, across[rows], along[rows] + shift * per_row[rows])
            laid[rows] += sample * (weight[rows] / 3)[:, None, None]
    return laid


def _sampled(levels: list[Floats], level: int, across: NDArray[np.float64], along: NDArray[np.float64]) -> Floats:
    """One level of the pyramid at ground coordinates in pixels of the full tile, repeated without end."""
    tile = levels[level]
    height, width = tile.shape[:2]
    full_height, full_width = levels[0].shape[:2]
    # Wrapped here: cv2.remap holds coordinates in 16 bits. Its own wrapping serves the last half pixel.
    x = (np.mod(across, full_width) * (width / full_width) - 0.5).astype(np.float32)
    y = np.broadcast_to((np.mod(along, full_height) * (height / full_height) - 0.5)[:, None], x.shape)
    return np.asarray(cv2.remap(tile, x, y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))


def _exposure(image: Rgb) -> float:
    """How bright the picture's white is, 0.6..1: a product photographed in the sun would glare in a dim room."""
    step = max(1, max(image.shape[:2]) // 256)
    gray = cv2.cvtColor(np.ascontiguousarray(image[::step, ::step]), cv2.COLOR_RGB2GRAY)
    return float(np.clip(np.percentile(gray, 95) / 225, 0.6, 1))


class _Shading:
    """How bright each pixel of a surface is against its median, times the exposure: the old surface's light.

    A guided filter (He, Sun and Tang, ECCV 2010) with the surface's own brightness as its guide: it smooths the old
    pattern away but keeps what differs more, the corner of a room and the shadow under a sofa. Every mean is taken
    over the mask only, so that nothing of what stands outside of the surface leaks in.
    """

    def __init__(self, part: Rgb, mask: Mask, exposure: float) -> None:
        self.shape = mask.shape
        factor = min(1.0, _SHADING_SIDE / max(mask.shape))
        size = (max(1, round(mask.shape[1] * factor)), max(1, round(mask.shape[0] * factor)))
        inside = mask.astype(np.float32)
        gray = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float32)
        weight = cv2.resize(inside, size, interpolation=cv2.INTER_AREA)
        light = cv2.resize(gray * inside, size, interpolation=cv2.INTER_AREA) / np.maximum(weight, 1e-4)
        # Joints and grain are thinner than corners and shadows: they go first.
        light = _mean_inside(light, weight, max(0.8, 0.006 * max(size)))
        usual = max(1.0, float(np.median(light[weight > 0.5])) if np.any(weight > 0.5) else float(light.max()))
        wide = max(1.0, 0.025 * max(size))
        mean = _mean_inside(light, weight, wide)
        variance = np.maximum(_mean_inside(light**2, weight, wide) - mean**2, 0)
        kept = variance / (variance + (_PATTERN_CONTRAST * usual) ** 2)
        smooth = _mean_inside(kept, weight, wide) * light + _mean_inside((1 - kept) * mean, weight, wide)
        self.small = (exposure * np.clip(smooth / usual, *_SHADE_RANGE)).astype(np.float32)

    def rows(self, top: int, bottom: int) -> Floats:
        """The shade of some rows at full size."""
        height, width = self.shape
        ratio_y, ratio_x = self.small.shape[0] / height, self.small.shape[1] / width
        y = (np.arange(top, bottom, dtype=np.float32) + 0.5) * ratio_y - 0.5
        x = (np.arange(width, dtype=np.float32) + 0.5) * ratio_x - 0.5
        grid = np.broadcast_to(x[None], (bottom - top, width)), np.broadcast_to(y[:, None], (bottom - top, width))
        grid_x, grid_y = (np.ascontiguousarray(axis, dtype=np.float32) for axis in grid)
        return np.asarray(cv2.remap(self.small, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _mean_inside(values: Floats, weight: Floats, sigma: float) -> Floats:
    """The Gaussian mean of the values, weighted: 1 inside the mask, 0 outside. Far outside it is 0."""
    total = cv2.GaussianBlur(values * weight, (0, 0), sigma)
    return np.asarray(total / np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-4))


def _edge(mask: Mask) -> Mask:
    """The pixels of the mask that touch its outside; the picture's border is no outside."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), dtype=np.uint8), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(mask & (inner == 0))


def _blend(part: Rgb, laid: Floats, mask: Mask, edge: Mask) -> None:
    """Write what was laid into the part of the picture, in place."""
    mixed = np.where(edge[..., None], 0.5 * laid + 0.5 * part, laid)
    part[mask] = np.clip(np.rint(mixed[mask]), 0, 255).astype(np.uint8)
