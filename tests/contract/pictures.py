"""Encoded pictures of every kind that callers send."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from segserve.imaging import Rgb

WIDTH, HEIGHT = 64, 48


def noise(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> Rgb:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def png(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> bytes:
    return saved(Image.fromarray(noise(width, height, seed)), "PNG")


def truncated_png() -> bytes:
    return png()[:300]


def animated_gif() -> bytes:
    frames = [Image.fromarray(noise(seed=seed)) for seed in range(3)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def cmyk_jpeg() -> bytes:
    return saved(Image.fromarray(noise()).convert("CMYK"), "JPEG")


def deep_png() -> bytes:
    return saved(Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 16), "PNG")


def rotated_jpeg() -> bytes:
    """Stored lying on its side: upright it is WIDTH x HEIGHT."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.fromarray(noise(HEIGHT, WIDTH)), "JPEG", exif=exif)


def bomb() -> bytes:
    """60 megapixels in less than 100 KB."""
    data = saved(Image.new("L", (10_000, 6_000)), "PNG", compress_level=9)
    assert len(data) < 100_000
    return data


def text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def source(data: bytes) -> dict[str, str]:
    return {"base64": text(data)}


def opened(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded)))
