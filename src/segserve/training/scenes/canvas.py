"""A picture and its instance map, painted together so that the ground truth is exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class PaintedObject:
    """One object as it was painted: its id, names and how many pixels it had before others covered it."""

    id: int
    category: str
    color: str | None
    painted_area: int


class Canvas:
    """Fills shapes into an RGB image (anti-aliased) and an instance map (the same polygons, aliased).

    Points are (x, y) in pixels with the origin at the outer corner of the first pixel, so that a
    drawing scaled by one half covers the same part of a picture of half the size.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height = height
        self.width = width
        self.image = np.zeros((height, width, 3), np.uint8)
        self.instances = np.zeros((height, width), np.uint8)
        self.painted: list[PaintedObject] = []
        self._silhouette = np.zeros((height, width), np.uint8)

    @contextmanager
    def instance(self, category: str, color: str | None = None) -> Iterator[int]:
        """Collects what is filled inside the block into one new instance, whose id is yielded."""
        identifier = len(self.painted) + 1
        self._silhouette[:] = 0
        yield identifier
        area = int(cv2.countNonZero(self._silhouette))
        np.copyto(self.instances, np.uint8(identifier), where=self._silhouette.view(np.bool_))
        self.painted.append(PaintedObject(identifier, category, color, area))

    def fill(self, points: Points, color: Sequence[float]) -> None:
        """Fills a polygon that belongs to the silhouette of the current instance."""
        corners = _fixed_point(points)
        cv2.fillPoly(self.image, [corners], color, cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.fillPoly(self._silhouette, [corners], 1.0, cv2.LINE_8, _SUBPIXEL_BITS)

    def detail(self, polygons: Sequence[Points], color: Sequence[float]) -> None:
        """Fills polygons that do not overlap each other into the image only: decoration inside a silhouette."""
        if polygons:
            corners = [_fixed_point(points) for points in polygons]
            cv2.fillPoly(self.image, corners, color, cv2.LINE_AA, _SUBPIXEL_BITS)

    def shadow(self, center: tuple[float, float], radii: tuple[float, float], strength: float) -> None:
        """Darkens an ellipse of the image with a soft edge; `strength` is the share of light taken at its middle."""
        (x, y), (across, down) = center, radii
        left, right = max(0, int(x - across)), min(self.width, int(x + across) + 1)
        top, bottom = max(0, int(y - down)), min(self.height, int(y + down) + 1)
        if left >= right or top >= bottom:
            return
        columns = ((np.arange(left, right, dtype=np.float32) + 0.5 - x) / across) ** 2
        rows = ((np.arange(top, bottom, dtype=np.float32) + 0.5 - y) / down) ** 2
        cover = np.clip(1.0 - (rows[:, None] + columns[None]), 0.0, 1.0)
        light = 1.0 - np.float32(strength) * np.minimum(1.0, 1.6 * cover)
        region = self.image[top:bottom, left:right]
        region[:] = (region * light[..., None]).astype(np.uint8)


def _fixed_point(points: Points) -> npt.NDArray[np.int32]:
    # OpenCV counts from the middle of the first pixel, the canvas from its corner.
    return np.rint((points - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
