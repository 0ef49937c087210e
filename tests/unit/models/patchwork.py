"""Pictures to feed to models with random weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def picture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """A noisy picture of flat patches, H x W x 3 uint8."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (max(1, height // 9), max(1, width // 9), 3))
    rows = np.linspace(0, len(coarse) - 1e-6, height).astype(int)
    columns = np.linspace(0, coarse.shape[1] - 1e-6, width).astype(int)
    noise = random.integers(-12, 12, (height, width, 3))
    return np.clip(coarse[rows][:, columns] + noise, 0, 255).astype(np.uint8)
