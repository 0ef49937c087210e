"""Light, grain and softness laid over a finished painting to bring it closer to a photograph."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
_REFERENCE_SIDE = 480.0  # grain and blur are drawn for this shorter side and scale with the picture
_GRAIN_SIDE = 1024


@cache
def _grain() -> npt.NDArray[np.float32]:
    return np.random.default_rng(12345).normal(0.0, 1.0, (_GRAIN_SIDE, _GRAIN_SIDE)).astype(np.float32)


def expose(image: Image, rng: np.random.Generator) -> Image:
    """Applies a light gradient, a vignette, mottling, grain and now and then a slight blur.

    Args:
        image: the painting, (H, W, 3) uint8 RGB.
        rng: the scene's own generator; the number of draws does not depend on the picture's size.

    Returns:
        A new image of the same shape. Brightness stays within about 0.88 to 1.08 of the painting's.
    """
    height, width = image.shape[:2]
    light = cv2.resize(_light_map(rng), (width, height), interpolation=cv2.INTER_LINEAR)
    strength, row, column = rng.uniform(0.5, 4.0), rng.uniform(), rng.uniform()
    blurred, sigma = rng.random() < 0.3, rng.uniform(0.5, 1.0)
    scale = min(height, width) / _REFERENCE_SIDE
    lit = cv2.multiply(image, light, dtype=cv2.CV_32F)
    lit += _grain_part(height, width, row, column)[..., None] * np.float32(strength * min(1.0, scale))
    exposed = np.clip(lit, 0, 255).astype(np.uint8)
    if blurred and sigma * scale > 0.3:
        exposed = cv2.GaussianBlur(exposed, (3, 3), sigma * scale)
    return np.asarray(exposed, np.uint8)


def _light_map(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """(48, 64, 3) factors around 1; low resolution, so that every picture size gets the same light."""
    rows = np.linspace(-1.0, 1.0, 48)[:, None]
    columns = np.linspace(-1.0, 1.0, 64)[None]
    angle, slope, vignette = rng.uniform(0.0, 2 * np.pi), rng.uniform(0.0, 0.06), rng.uniform(0.0, 0.025)
    level, tint = rng.uniform(0.97, 1.03), rng.normal(0.0, 0.008, 3)
    mottling = cv2.resize(rng.normal(0.0, 1.0, (9, 12)), (64, 48), interpolation=cv2.INTER_CUBIC)
    light = 1.0 + slope * (np.cos(angle) * columns + np.sin(angle) * rows) - vignette * (rows**2 + columns**2)
    light = level * light + rng.uniform(0.0, 0.012) * mottling
    return np.asarray(light[..., None] * (1.0 + tint), np.float32)


def _grain_part(height: int, width: int, row: float, column: float) -> npt.NDArray[np.float32]:
    grain = _grain()
    if height > _GRAIN_SIDE or width > _GRAIN_SIDE:
        grain = np.tile(grain, (-(-height // _GRAIN_SIDE) + 1, -(-width // _GRAIN_SIDE) + 1))
    top = int(row * (grain.shape[0] - height))
    left = int(column * (grain.shape[1] - width))
    return grain[top : top + height, left : left + width]
