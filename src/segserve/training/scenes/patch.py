"""Shapes in the unit square and the four-cornered patches of a picture onto which they are mapped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segserve.training.scenes.canvas import Points


def _on_circle(count: int, first: float) -> Points:
    angles = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False) + first
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


_CIRCLE = _on_circle(36, 0.0)
# Four points a quarter, none of them on an axis: each belongs to exactly one corner.
_QUARTERS = _on_circle(16, np.pi / 16)


def rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    """The corners of a rectangle, clockwise from the top left."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def oval(x: float, y: float, across: float, down: float) -> Points:
    """An ellipse by its center and radii, as a polygon."""
    return _CIRCLE * (across, down) + (x, y)


def rounded(left: float, top: float, right: float, bottom: float, *, across: float, down: float) -> Points:
    """A rectangle whose corners are quarter ellipses of the given radii, half its sides at most."""
    across, down = min(across, (right - left) / 2), min(down, (bottom - top) / 2)
    middles = np.where(_QUARTERS > 0.0, (right - across, bottom - down), (left + across, top + down))
    return middles + _QUARTERS * (across, down)


def polygon(*corners: tuple[float, float]) -> Points:
    """Corners as an array of points."""
    return np.array(corners, np.float64)


class Patch:
    """A quadrilateral of the picture: unit coordinates (u right, v down, 0..1) map onto it bilinearly."""

    def __init__(self, corners: Sequence[tuple[float, float]] | Points) -> None:
        self.corners = np.asarray(corners, np.float64)
        top_left, top_right, bottom_right, bottom_left = self.corners
        self._origin = top_left
        self._across = top_right - top_left
        self._down = bottom_left - top_left
        self._twist = bottom_right - bottom_left - self._across

    @classmethod
    def upright(cls, left: float, top: float, right: float, bottom: float) -> Patch:
        """A patch with sides parallel to the picture's."""
        return cls(rectangle(left, top, right, bottom))

    def mirrored(self) -> Patch:
        """The same patch with u running from right to left."""
        return Patch(self.corners[[1, 0, 3, 2]])

    def place(self, shape: Points) -> Points:
        """Unit points (N, 2) as points of the picture (N, 2)."""
        u, v = shape[:, :1], shape[:, 1:]
        return np.asarray(self._origin + u * self._across + v * self._down + (u * v) * self._twist, np.float64)

    @property
    def width(self) -> float:
        """Distance between the leftmost and the rightmost corner, in pixels."""
        return float(np.ptp(self.corners[:, 0]))

    @property
    def height(self) -> float:
        """Distance between the highest and the lowest corner, in pixels."""
        return float(np.ptp(self.corners[:, 1]))
