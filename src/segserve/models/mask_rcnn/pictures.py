"""From pictures to the network's input and back: resizing, normalizing, padding; boxes and masks in picture pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from segserve.imaging import Rgb
from segserve.masks import Mask
from segserve.models.mask_rcnn.architecture import InputShape
from segserve.models.mask_rcnn.pyramid import DIVISIBILITY

Size = tuple[int, int]
"""Height and width in pixels."""


def input_size(height: int, width: int, shape: InputShape) -> Size:
    """Height and width of a picture once resized: the shorter side min_size, the longer at most max_size."""
    if shape.min_size == 0:
        return height, width
    scale = shape.min_size / min(height, width)
    high: float = height * scale if height > width else shape.min_size
    wide: float = width * scale if width > height else shape.min_size
    if max(high, wide) > shape.max_size:
        # On what was scaled already: detectron2 rounds the same halves.
        scale = shape.max_size / max(high, wide)
        high, wide = high * scale, wide * scale
    return max(1, int(high + 0.5)), max(1, int(wide + 0.5))


def padded_size(size: Size) -> Size:
    """The size with both sides rounded up to what the pyramid needs."""
    return (-(-size[0] // DIVISIBILITY) * DIVISIBILITY, -(-size[1] // DIVISIBILITY) * DIVISIBILITY)


def resize(image: Rgb, size: Size) -> Rgb:
    """The picture at (height, width), by Pillow's bilinear filter, which is what detectron2 was trained with."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def as_batch(pictures: Sequence[Rgb], shape: InputShape, device: torch.device | str = "cpu") -> Tensor:
    """Resized pictures normalized and padded to the largest, (N, 3, H, W) float32. pictures: H x W x 3 uint8 RGB."""
    sizes = [picture.shape[:2] for picture in pictures]
    height, width = padded_size((max(size[0] for size in sizes), max(size[1] for size in sizes)))
    mean = torch.tensor(shape.pixel_mean, device=device).view(3, 1, 1)
    deviation = torch.tensor(shape.pixel_std, device=device).view(3, 1, 1)
    batch = torch.zeros((len(pictures), 3, height, width), device=device)
    for index, picture in enumerate(pictures):
        ordered = picture[..., ::-1] if shape.channel_order == "BGR" else picture
        pixels = torch.from_numpy(ordered.copy()).to(device).permute(2, 0, 1).float()
        batch[index, :, : pixels.shape[1], : pixels.shape[2]] = (pixels - mean) / deviation
    return batch.contiguous(memory_format=torch.channels_last)


def paste_mask(mask: Tensor, box: tuple[float, float, float, float], size: Size, threshold: float = 0.5) -> Mask:
    """The mask of a box in its picture, height x width bool.

    The box's probabilities are sampled at the centers of the picture's pixels, as detectron2 pastes masks. Only the
    pixels around the box are looked at: elsewhere the probability is 0.

    Args:
        mask: (M, M) probabilities over the box.
        box: in pixels of the picture, not empty.
        size: (height, width) of the picture.
        threshold: of the probability, 0..1.
    """
    height, width = size
    x0, y0, x1, y1 = box
    left, top = max(0, math.floor(x0) - 1), max(0, math.floor(y0) - 1)
    right, bottom = min(width, math.ceil(x1) + 1), min(height, math.ceil(y1) + 1)
    across = (torch.arange(left, right, dtype=torch.float32) + 0.5 - x0) / (x1 - x0) * 2 - 1
    down = (torch.arange(top, bottom, dtype=torch.float32) + 0.5 - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack(torch.meshgrid(down, across, indexing="ij")[::-1], dim=-1)
    sampled = F.grid_sample(mask[None, None].float(), grid[None], align_corners=False)[0, 0]
    result = np.zeros((height, width), dtype=bool)
    result[top:bottom, left:right] = (sampled >= threshold).numpy()
    return result
