"""Images in whichever form a program has them, as RGB pictures: for use of a model as a library.

A service must not fetch addresses that strangers name with this: the gateway has its own, guarded way.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segserve.errors import FetchError, NotFoundError, UndecodableImageError
from segserve.imaging import ImageLimits, Rgb, decode, upright_rgb

_TIMEOUT_S = 10.0
_URL_STARTS = ("http://", "https://")


def as_rgb(source: object) -> Rgb:
    """The upright picture, H x W x 3 uint8 RGB, of an image in one of these forms.

    - ``str``: an http or https URL, which is fetched, or else a path; ``pathlib.Path``: a path.
    - ``bytes``, ``bytearray``, ``memoryview``: an image file's content.
    - ``PIL.Image.Image`` of any mode; EXIF orientation is applied, alpha is laid over white.
    - ``torch.Tensor`` or ``numpy.ndarray``: 3 x H x W or H x W x 3 (where both would fit, the latter for an array and
      the former for a tensor), uint8, or float within 0..1.

    Raises:
        TypeError: none of these, or an array of another type of numbers.
        ValueError: an array of another shape, an empty one, or floats outside of 0..1.
        NotFoundError: there is no file at the path.
        FetchError: the URL cannot be fetched.
        RequestError: the bytes are no image, a broken one, or over the limits of ImageLimits.
    """
    if isinstance(source, str) and source.lower().startswith(_URL_STARTS):
        return decode(_fetched(source))
    if isinstance(source, str | Path):
        return decode(_read(Path(source)))
    if isinstance(source, bytes | bytearray | memoryview):
        return decode(bytes(source))
    if isinstance(source, Image.Image):
        return _from_pil(source)
    if isinstance(source, Tensor):
        values = source.detach().cpu()
        # NumPy has no bfloat16.
        values = values.float() if values.is_floating_point() else values
        return _from_array(values.numpy(), channels_first=True)
    if isinstance(source, np.ndarray):
        return _from_array(source, channels_first=False)
    raise TypeError(
        "image: expected a path, URL, bytes, PIL image, torch tensor or NumPy array, "
        f"came {type(source).__module__}.{type(source).__qualname__}."
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"image: the file {path.name!r} cannot be read: {error.strerror}.") from error


def _fetched(url: str) -> bytes:
    limits = ImageLimits()
    request = urllib.request.Request(url, headers={"User-Agent": "segserve"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            # One byte more than is allowed: decode refuses it then.
            content: bytes = answer.read(limits.max_bytes + 1)
            return content
    except urllib.error.HTTPError as error:
        raise FetchError(f"image: the URL answers with status {error.code}.") from error
    except (OSError, ValueError) as error:
        raise FetchError(f"image: the URL cannot be fetched: {error}.") from error


def _from_pil(image: Image.Image) -> Rgb:
    if 0 in image.size:
        raise ValueError(f"image: it is empty ({image.size[0]} x {image.size[1]} pixels).")
    try:
        image.load()
    except OSError as error:
        raise UndecodableImageError(f"image: the file behind the PIL image cannot be decoded: {error}.") from error
    return upright_rgb(image)


def _from_array(array: NDArray[Any], *, channels_first: bool) -> Rgb:
    """Of 3 x H x W or H x W x 3; channels_first says which of the two where it could be either."""
    shape = " x ".join(map(str, array.shape))
    if array.ndim != 3 or 3 not in (array.shape[0], array.shape[2]) or 0 in array.shape:
        raise ValueError(f"image: expected an array of 3 x H x W or H x W x 3, came {shape or 'a single number'}.")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"image: expected an array of uint8, or of floats within 0..1, came {array.dtype}.")
    first = array.shape[0] == 3 and (channels_first or array.shape[2] != 3)
    pixels = array.transpose(1, 2, 0) if first else array
    if array.dtype != np.uint8:
        # Written so that NaN, which is in no range, is refused.
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(f"image: expected floats within 0..1, came {pixels.min():g} to {pixels.max():g}.")
        pixels = np.rint(pixels.astype(np.float32) * 255).astype(np.uint8)
    return np.array(pixels, dtype=np.uint8, order="C")
