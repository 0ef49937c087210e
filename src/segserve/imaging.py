"""Decoding of images from strangers: every limit is checked from the header, before any pixel is decoded.

What comes out is always RGB uint8, H x W x 3, upright (EXIF orientation applied). Alpha is laid over white, 16-bit
samples are scaled to 8, CMYK is converted, and of an animation the first frame is taken.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from segserve.errors import InvalidRequestError, NotAnImageError, TooLargeError, UndecodableImageError

Rgb = NDArray[np.uint8]

Format = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
FORMATS: tuple[Format, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is read. Formats that run an interpreter (EPS) or fetch (none of Pillow's) stay out."""

SUFFIXES: dict[str, Format] = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP",
    ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
"""File name endings, in lower case, and the formats that they name."""

_ENCODING: dict[Format, dict[str, Any]] = {
    "PNG": {"compress_level": 1},
    "JPEG": {"quality": 90},
    "WEBP": {"quality": 90},
}
_LONGEST_SIDE: dict[Format, int] = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535}
_ORIENTATION_TAG = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


@dataclass(frozen=True)
class ImageLimits:
    """What one image may cost. max_bytes: encoded bytes; max_pixels: width x height."""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000


@dataclass(frozen=True)
class ImageInfo:
    """An image's header. width and height are those of the upright picture, in pixels."""

    format: str
    width: int
    height: int


def read_info(data: bytes, limits: ImageLimits | None = None) -> ImageInfo:
    """The header of an encoded image; decodes no pixels.

    Raises:
        InvalidRequestError: no bytes at all.
        NotAnImageError: no image format of FORMATS.
        TooLargeError: over limits.
        UndecodableImageError: the header itself is broken.
    """
    with _open(data, limits or ImageLimits()) as image:
        width, height = image.size
        # Pillow decodes a PNG's pixels to look for EXIF behind them; writers put it in front.
        has_exif = image.format != "PNG" or "exif" in image.info
        with _decoding():
            sideways = has_exif and image.getexif().get(_ORIENTATION_TAG) in _SIDEWAYS
        if sideways:
            width, height = height, width
        return ImageInfo(str(image.format), width, height)


def decode(data: bytes, limits: ImageLimits | None = None) -> Rgb:
    """The upright RGB picture, H x W x 3 uint8, of an encoded image.

    Raises:
        InvalidRequestError, NotAnImageError, TooLargeError: as read_info.
        UndecodableImageError: truncated or corrupt.
    """
    with _open(data, limits or ImageLimits()) as image, _decoding():
        image.seek(0)
        image.load()
        return upright_rgb(image)


def upright_rgb(image: Image.Image) -> Rgb:
    """The upright RGB picture, H x W x 3 uint8, of an image of Pillow in any mode."""
    # Each step would copy the pixels even where there is nothing to do.
    turned = image.getexif().get(_ORIENTATION_TAG, 1) != 1
    upright = ImageOps.exif_transpose(image) if turned else image
    return np.array(_to_rgb(upright))


def encode(image: NDArray[np.uint8], format: Format = "PNG") -> bytes:
    """Encoded bytes of an H x W x 3 (RGB), H x W x 4 (RGBA) or H x W (gray) uint8 picture.

    PNG is written at a fast compression level; JPEG (no alpha) and WebP at quality 90; GIF in 256 colors.

    Raises:
        TooLargeError: a side is longer than the format can hold.
    """
    height, width = image.shape[:2]
    longest = _LONGEST_SIDE.get(format)
    if longest is not None and max(height, width) > longest:
        raise TooLargeError(
            f"A picture of {width} x {height} pixels does not fit into {format}: at most {longest:,} a side.",
            code="image_too_large",
        )
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format, **_ENCODING.get(format, {}))
    return buffer.getvalue()


@contextmanager
def _open(data: bytes, limits: ImageLimits) -> Iterator[ImageFile.ImageFile]:
    if not data:
        raise InvalidRequestError("The image is empty (0 bytes): send the bytes of an image file.")
    if len(data) > limits.max_bytes:
        raise TooLargeError(
            f"The image has {len(data):,} bytes; at most {limits.max_bytes:,} are allowed. Send a smaller file.",
            code="image_too_large",
        )
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise TooLargeError(_too_many_pixels(limits), code="image_too_large") from error
    except UnidentifiedImageError as error:
        raise NotAnImageError(
            f"The bytes are not an image that segserve reads. Expected one of {', '.join(FORMATS)}; "
            f"they begin with {data[:8]!r}."
        ) from error
    except Exception as error:
        # Pillow's plugins raise many types (OSError, SyntaxError, struct.error, ...) on a broken header.
        raise UndecodableImageError(_BROKEN) from error
    with image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise TooLargeError(_too_many_pixels(limits, width, height), code="image_too_large")
        yield image


_BROKEN = "The image cannot be decoded: the file is truncated or corrupt. Send the whole, undamaged file."


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise UndecodableImageError(_BROKEN) from error


def _too_many_pixels(limits: ImageLimits, width: int | None = None, height: int | None = None) -> str:
    size = f"{width} x {height} pixels" if width and height else "far too many pixels"
    allowed = f"{limits.max_pixels / 1e6:g} megapixels"
    return f"The image has {size}; at most {allowed} are allowed. Scale it down and send it again."


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _from_deep_gray(image)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_deep_gray(image: Image.Image) -> Image.Image:
    """Gray of 16 bits or more, scaled to 8: Pillow's own conversion clips at 255 instead."""
    samples = np.asarray(image, dtype=np.float64)
    top = 65535.0 if samples.max(initial=0) > 255 or image.mode.startswith("I;16") else 255.0
    gray = np.clip(np.rint(samples * (255.0 / top)), 0, 255).astype(np.uint8)
    return Image.fromarray(gray).convert("RGB")
