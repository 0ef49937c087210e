"""The eight named colors of a scene and the tones in which one object's parts are painted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RGB = tuple[float, float, float]

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (204, 36, 40),
    "orange": (242, 132, 28),
    "yellow": (242, 212, 52),
    "green": (44, 150, 66),
    "blue": (40, 86, 204),
    "purple": (130, 58, 168),
    "white": (241, 241, 237),
    "black": (35, 35, 39),
}
_WHITE: RGB = (255.0, 253.0, 248.0)
_MINIMUM_CONTRAST = 70.0


def scaled(color: Sequence[float], factor: float) -> RGB:
    """The color times a factor, each channel limited to 0..255."""
    red, green, blue = (min(255.0, max(0.0, channel * factor)) for channel in color)
    return red, green, blue


def blended(first: Sequence[float], second: Sequence[float], share: float) -> RGB:
    """The color that lies `share` (0..1) of the way from the first to the second."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def contrast(first: Sequence[float], second: Sequence[float]) -> float:
    """Euclidean distance of two RGB colors (0..441)."""
    return float(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5)


@dataclass(frozen=True)
class Paint:
    """A named color and its tones; white barely darkens and black barely lightens, so both keep their name."""

    name: str
    main: RGB

    def tone(self, level: int) -> RGB:
        """Level -2 is the deepest shade, 0 the color itself, 2 the lightest tint."""
        if level > 0:
            return blended(self.main, _WHITE, (0.06 if self.name == "black" else 0.10) * level)
        step = {"white": 0.065, "black": 0.22}.get(self.name, 0.14)
        return scaled(self.main, 1.0 + step * level)

    @property
    def seam(self) -> RGB:
        """A thin line that stays visible on the color."""
        if self.name == "black":
            return blended(self.main, _WHITE, 0.16)
        return scaled(self.main, 0.84 if self.name == "white" else 0.64)


def choose_paint(rng: np.random.Generator, behind: Sequence[Sequence[float]]) -> Paint:
    """A random named color, slightly varied, that stands out from every color behind the object where possible."""
    names = [list(COLORS)[index] for index in rng.permutation(len(COLORS))]
    variation = rng.normal(0.0, 4.0, 3)
    brightness = rng.uniform(0.96, 1.03)
    name = next(
        (name for name in names if all(contrast(COLORS[name], other) >= _MINIMUM_CONTRAST for other in behind)),
        names[0],
    )
    base = [channel + shift for channel, shift in zip(COLORS[name], variation, strict=True)]
    return Paint(name, scaled(base, brightness))
