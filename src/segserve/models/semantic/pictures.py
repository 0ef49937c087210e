"""From pictures to what a semantic network takes: resized and normalized, 3 x H x W float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segserve.errors import TooLargeError
from segserve.imaging import Rgb
from segserve.models.semantic.architecture import SemanticConfig
from segserve.models.thin_picture import thicken

Size = tuple[int, int]
"""Height and width in pixels."""

MAX_INPUT_PIXELS = 2**22
"""Of one network input; a processor that does not resize, or keeps the aspect, could otherwise ask for any memory."""


class Preprocessing(Protocol):
    """Makes a picture the network's input."""

    @property
    def input_size(self) -> Size | None:
        """(height, width) of every input; None where it depends on the picture."""

    def __call__(self, image: Rgb) -> Tensor:
        """The input of a picture (H x W x 3 uint8), 3 x h x w float32, on the CPU."""


class FixedSize:
    """torchvision's own preprocessing: bilinear with antialiasing to one size, 0..1, mean and deviation.

    Args:
        config: has the size, the mean and the deviation.
    """

    def __init__(self, config: SemanticConfig) -> None:
        self.input_size: Size = config.input_size
        self._mean = torch.tensor(config.mean).view(3, 1, 1)
        self._std = torch.tensor(config.std).view(3, 1, 1)

    def __call__(self, image: Rgb) -> Tensor:
        """See Preprocessing."""
        height, width = self.input_size
        picture = Image.fromarray(np.ascontiguousarray(image))
        resized = np.array(picture.resize((width, height), Image.Resampling.BILINEAR))
        return (torch.from_numpy(resized).permute(2, 0, 1).float().div_(255) - self._mean) / self._std


class ProcessorPictures:
    """The preprocessing of a checkpoint of transformers: its own image processor.

    Center crops and padding are left out: cropped borders would have no answer, and padding would be stretched into
    the picture's own.

    Args:
        processor: of transformers.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self.input_size: Size | None = _fixed_size(processor)
        self._options = {name: False for name in ("do_center_crop", "do_pad") if hasattr(processor, name)}

    def __call__(self, image: Rgb) -> Tensor:
        """See Preprocessing.

        Raises:
            TooLargeError: the processor makes more pixels of the picture than MAX_INPUT_PIXELS.
        """
        # Thin pictures are made thicker, since their shorter side may be what is resized to a fixed length.
        shown = image if self.input_size else thicken(image).image
        # Without the format said, a picture of one or three rows would be taken for one whose channels come first.
        inputs = self._processor(
            np.ascontiguousarray(shown), return_tensors="pt", input_data_format="channels_last", **self._options
        )
        pixels: Tensor = inputs["pixel_values"][0]
        if pixels.shape[1] * pixels.shape[2] > MAX_INPUT_PIXELS:
            raise TooLargeError(
                f"The image becomes an input of {pixels.shape[2]} x {pixels.shape[1]} pixels for this model; at most "
                f"{MAX_INPUT_PIXELS:,} pixels are possible. Scale it down or cut it into parts.",
                code="image_too_large",
            )
        return pixels.float()


def _fixed_size(processor: Any) -> Size | None:
    """(height, width) of every input of a processor, or None."""
    size = processor.to_dict().get("size") or {}
    height, width = size.get("height"), size.get("width")
    if not height or not width or not getattr(processor, "do_resize", True):
        return None
    # DPT's processor keeps the aspect where it is told so, and rounds to multiples.
    multiple = getattr(processor, "ensure_multiple_of", 1) or 1
    if getattr(processor, "keep_aspect_ratio", False) or height % multiple or width % multiple:
        return None
    return int(height), int(width)


def grouped(inputs: Sequence[Tensor]) -> list[list[int]]:
    """The indices of inputs that run together: those of one size. Padding would change a network's answer."""
    together: dict[tuple[int, ...], list[int]] = {}
    for index, pixels in enumerate(inputs):
        together.setdefault(tuple(pixels.shape), []).append(index)
    return list(together.values())
