"""From logits to label maps and scores of any size, without ever holding all classes at the size of a large picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from segserve.errors import TooLargeError
from segserve.models.semantic.parameters import Output

MAX_SCORES_BYTES = 32 * 2**20
"""Of logits or probabilities at the size of the picture: 4 bytes times classes, height and width."""

_STRIP_FLOATS = 2**20

Labels = NDArray[np.uint8] | NDArray[np.uint16]


def label_map(logits: Tensor, size: tuple[int, int]) -> Labels:
    """The best class of every pixel, as of logits interpolated bilinearly (align_corners=False) to a size.

    A pixel lies between four logits. Where all four have one best class, it is the pixel's as well, for bilinear
    weights are not negative: only the other pixels, along the borders of segments, are interpolated. The answer is
    that of interpolating everything, but for pixels whose best two classes are equal within float rounding.

    Args:
        logits: C x h x w float.
        size: (height, width) in pixels.

    Returns:
        height x width, uint8, from 257 classes on uint16.
    """
    classes, high, wide = logits.shape
    logits = logits.float()
    kind = torch.uint8 if classes <= 256 else torch.int32
    if (high, wide) == tuple(size):
        return _as_labels(logits.argmax(dim=0), classes)
    # Channels last: the classes of one place lie together, so that gathering them is one read.
    table = logits.permute(1, 2, 0).reshape(high * wide, classes).contiguous()
    winners = table.argmax(dim=1).to(kind).view(high, wide)
    up, down, weight_down = _neighbors(high, size[0], logits.device)
    left, right, weight_right = _neighbors(wide, size[1], logits.device)
    labels = winners[up][:, left]
    mixed_columns = winners[:, left] != winners[:, right]
    rows_a_strip = max(1, _STRIP_FLOATS // (classes * size[1]))
    for start in range(0, size[0], rows_a_strip):
        strip = slice(start, start + rows_a_strip)
        above, below = up[strip], down[strip]
        mixed = mixed_columns[above] | mixed_columns[below] | (winners[above] != winners[below])[:, left]
        rows, columns = mixed.nonzero(as_tuple=True)
        if not len(rows):
            continue
        top, bottom = above[rows] * wide, below[rows] * wide
        across = weight_right[columns].unsqueeze(1)
        upper = table[top + left[columns]] * (1 - across) + table[top + right[columns]] * across
        lower = table[bottom + left[columns]] * (1 - across) + table[bottom + right[columns]] * across
        vertical = weight_down[strip][rows].unsqueeze(1)
        best = (upper * (1 - vertical) + lower * vertical).argmax(dim=1)
        labels[rows + start, columns] = best.to(kind)
    return _as_labels(labels, classes)


def check_scores(classes: int, size: tuple[int, int], kind: Output) -> None:
    """Whether scores of that size may be asked for.

    Raises:
        TooLargeError: they have more than MAX_SCORES_BYTES.
    """
    count = classes * size[0] * size[1] * 4
    if count > MAX_SCORES_BYTES:
        raise TooLargeError(
            f"parameters.output: the {kind} of {classes} classes for {size[1]} x {size[0]} pixels have {count:,} "
            f'bytes; at most {MAX_SCORES_BYTES:,} are possible. Ask with size="model", or for output="label_map".',
            code="answer_too_large",
        )


def scores(logits: Tensor, size: tuple[int, int], kind: Output) -> NDArray[np.float32]:
    """Logits (C x h x w) interpolated bilinearly to (height, width), or their softmax over the classes."""
    values = resized(logits, size)
    if kind == "probabilities":
        values = values.softmax(dim=0)
    return np.ascontiguousarray(values.cpu().numpy())


def resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (C x h x w) interpolated bilinearly to (height, width), float32."""
    values = logits.float()
    if tuple(values.shape[1:]) == tuple(size):
        return values
    return F.interpolate(values[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def _neighbors(count: int, wanted: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of ``wanted`` places: the index before it among ``count``, the one behind it, and the latter's weight.

    In float32 as torch.nn.functional.interpolate computes them, so that the weights are the same.
    """
    places = (torch.arange(wanted, dtype=torch.float32, device=device) + 0.5) * (count / wanted) - 0.5
    places = places.clamp(min=0)
    before = places.long().clamp(max=count - 1)
    return before, (before + 1).clamp(max=count - 1), (places - before).clamp(0, 1)


def _as_labels(labels: Tensor, classes: int) -> Labels:
    found = labels.cpu().numpy()
    if classes <= 256:
        return found.astype(np.uint8, copy=False)
    return found.astype(np.uint16)
