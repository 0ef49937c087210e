"""Product textures of the demo catalog, drawn by program: seamless in both directions, the same every time.

python -m segserve.training.products src/segserve/gateway/data/products
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segserve.imaging import Rgb, encode

Floats = NDArray[np.float64]
SIDE = 512


def noise(rng: np.random.Generator, blur: tuple[float, float], size: tuple[int, int] = (SIDE, SIDE)) -> Floats:
    """Seamless smooth noise of mean 0 and deviation 1, height x width; blur is the Gaussian sigma (y, x) in pixels."""
    height, width = size
    spectrum = np.fft.rfft2(rng.standard_normal(size))
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    spectrum *= np.exp(-2 * np.pi**2 * ((blur[0] * y) ** 2 + (blur[1] * x) ** 2))
    spectrum[0, 0] = 0
    values = np.fft.irfft2(spectrum, s=size)
    return np.asarray(values / values.std())


def oak_planks() -> Rgb:
    """Six boards side by side, two lengths each, their joints staggered; the grain runs along them."""
    rng = np.random.default_rng(11)
    boards = 6
    edges = np.rint(np.linspace(0, SIDE, boards + 1)).astype(int)
    picture = np.zeros((SIDE, SIDE, 3))
    for board in range(boards):
        width = int(edges[board + 1] - edges[board])
        start = int(rng.integers(0, SIDE))
        lengths = (int(SIDE * rng.uniform(0.42, 0.58)), SIDE)
        column = np.zeros((SIDE, width, 3))
        top = 0
        for bottom in lengths:
            column[top:bottom] = _board(rng, bottom - top, width)
            top = bottom
        picture[:, edges[board] : edges[board + 1]] = np.roll(column, start, axis=0)
    return _to_rgb(picture)


def _board(rng: np.random.Generator, length: int, width: int) -> Floats:
    """One oak board, length x width, with dark bevels on its left and upper edge."""
    size = (length, width)
    bend = noise(rng, (70, 30), size) * 5
    rings = np.sin((np.arange(width)[None] + bend) * rng.uniform(0.35, 0.55))
    grain = 0.4 * rings + 0.8 * noise(rng, (40, 0.8), size) + 0.35 * noise(rng, (9, 0.5), size)
    tone = np.asarray((186, 146, 102)) * rng.uniform(0.91, 1.07) + rng.normal(0, 1.2, 3)
    board = tone + grain[..., None] * np.asarray((6.5, 6.5, 6.0)) + rng.normal(0, 1.2, (*size, 1))
    board[:, :1] *= 0.55
    board[:, 1:2] *= 0.82
    board[:, -1:] *= 0.88
    board[:1] *= 0.55
    board[1:2] *= 0.82
    return np.asarray(board)


def gray_tiles() -> Rgb:
    """Two by two stone tiles with light grout."""
    rng = np.random.default_rng(12)
    cell, joint = SIDE // 2, 5
    picture = np.full((SIDE, SIDE, 3), (196.0, 193.0, 187.0)) + rng.normal(0, 4, (SIDE, SIDE, 1))
    for row in range(2):
        for column in range(2):
            size = (cell - joint, cell - joint)
            cloud = 5 * noise(rng, (34, 34), size) + 2.5 * noise(rng, (7, 7), size) + 2 * noise(rng, (0.8, 0.8), size)
            vein = -16 * np.exp(-((noise(rng, (22, 22), size) / 0.035) ** 2))
            tile = np.asarray((139, 141, 143)) * rng.uniform(0.96, 1.05) + (cloud + vein)[..., None]
            tile[:2] += 14
            tile[:, :2] += 9
            tile[-2:] -= 16
            tile[:, -2:] -= 12
            y, x = row * cell, column * cell
            picture[y : y + size[0], x : x + size[1]] = tile
    return _to_rgb(np.roll(picture, joint // 2, axis=(0, 1)))


def terrazzo() -> Rgb:
    """Chips of marble in a pale binder."""
    rng = np.random.default_rng(13)
    base = np.full((SIDE, SIDE, 3), (232.0, 227.0, 218.0)) + 2.5 * noise(rng, (1.2, 1.2))[..., None]
    canvas = np.clip(base, 0, 255).astype(np.uint8)
    shades = ((188, 160, 136), (120, 118, 116), (205, 198, 188), (164, 92, 72), (92, 110, 104), (219, 184, 140))
    for _ in range(520):
        center = rng.uniform(0, SIDE, 2)
        radius = float(np.clip(rng.lognormal(1.75, 0.5), 2.5, 19))
        turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 8))))
        reach = radius * rng.uniform(0.65, 1.15, len(turns))
        corners = center + np.stack([np.cos(turns) * reach, np.sin(turns) * reach], axis=1)
        shade = np.asarray(shades[rng.choice(len(shades), p=(0.26, 0.14, 0.24, 0.11, 0.11, 0.14))])
        _fill_wrapped(canvas, corners, shade * rng.uniform(0.9, 1.08))
    return _to_rgb(canvas + 2.0 * noise(rng, (0.7, 0.7))[..., None])


def wool_carpet() -> Rgb:
    """A looped carpet in muted blue: rows of small tufts, each with its own light."""
    rng = np.random.default_rng(14)
    pitch = 8
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(float)
    shift = noise(rng, (10, 10))
    along = (x + (y // pitch % 2) * pitch / 2 + 0.8 * shift) % pitch / pitch - 0.5
    down = y % pitch / pitch - 0.5
    tuft = np.clip(1 - 3.2 * (along**2 + down**2), 0, 1)
    lot = rng.normal(0, 1, (SIDE // pitch, SIDE // pitch)).repeat(pitch, axis=0).repeat(pitch, axis=1)
    light = 0.62 + 0.44 * tuft + 0.035 * lot + 0.03 * noise(rng, (26, 26)) + 0.025 * noise(rng, (0.7, 0.7))
    return _to_rgb(np.asarray((104, 126, 148)) * light[..., None])


def brick() -> Rgb:
    """Whitewashed bricks in running bond."""
    rng = np.random.default_rng(15)
    rows, columns, joint = 8, 4, 7
    height, width = SIDE // rows, SIDE // columns
    picture = np.full((SIDE, SIDE, 3), (190.0, 184.0, 176.0)) + 5 * noise(rng, (0.9, 0.9))[..., None]
    for row in range(rows):
        band = picture[row * height : (row + 1) * height - joint].copy()
        for column in range(columns):
            size = (height - joint, width - joint)
            tone = np.asarray((176, 104, 82)) * rng.uniform(0.84, 1.12) + rng.normal(0, 5, 3)
            rough = 8 * noise(rng, (5, 7), size) + 6 * noise(rng, (0.9, 0.9), size)
            face = tone + rough[..., None]
            wash = np.clip(0.3 + 0.1 * noise(rng, (9, 14), size), 0, 0.6)[..., None]
            face = face * (1 - wash) + 226 * wash
            face[:2] += 12
            face[-2:] -= 26
            face[:, -2:] -= 16
            band[:, column * width : column * width + size[1]] = face
        picture[row * height : (row + 1) * height - joint] = np.roll(band, (row % 2) * width // 2, axis=1)
    return _to_rgb(picture)


def wallpaper() -> Rgb:
    """Fans in overlapping rows, sage green with fine light lines."""
    rng = np.random.default_rng(16)
    scale, radius = 4, 64
    side = SIDE * scale
    canvas = np.full((side, side, 3), (156, 176, 160), dtype=np.uint8)
    tones = ((150, 172, 155), (162, 182, 166), (144, 166, 150))
    rows = SIDE // (radius // 2)
    for row in range(-2, rows + 3):
        for column in range(-1, SIDE // (2 * radius) + 2):
            x = (column * 2 * radius + (row % 2) * radius) * scale
            y = row * radius // 2 * scale
            # Rows repeat every SIDE pixels, and so do their tones: the pattern joins at its edges.
            tone = tones[(row % rows + 2 * (column % (SIDE // (2 * radius)))) % len(tones)]
            cv2.circle(canvas, (x, y), radius * scale, tone, -1, cv2.LINE_AA)
            for part in (1.0, 0.78, 0.56, 0.34):
                cv2.circle(canvas, (x, y), int(part * radius * scale), (226, 228, 210), 2 * scale, cv2.LINE_AA)
    small = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(float)
    return _to_rgb(small + 1.6 * noise(rng, (0.8, 0.8))[..., None] + 1.5 * noise(rng, (5, 0.7))[..., None])


def linen() -> Rgb:
    """Plain-woven linen in a warm gray: threads of uneven thickness over and under each other."""
    rng = np.random.default_rng(17)
    pitch = 8
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(float)
    over = (y // pitch + x // pitch) % 2 == 0
    warp = np.sin(np.pi * (x % pitch + 0.5) / pitch) * (0.75 + 0.25 * np.sin(np.pi * (y % pitch + 0.5) / pitch))
    weft = np.sin(np.pi * (y % pitch + 0.5) / pitch) * (0.75 + 0.25 * np.sin(np.pi * (x % pitch + 0.5) / pitch))
    slub = np.where(over, noise(rng, (60, 3)), noise(rng, (3, 60)))
    light = 0.72 + 0.27 * np.where(over, warp, weft) + 0.045 * slub + 0.02 * noise(rng, (0.6, 0.6))
    return _to_rgb(np.asarray((201, 186, 163)) * light[..., None])


PRODUCTS: dict[str, Callable[[], Rgb]] = {
    "oak_planks": oak_planks,
    "gray_tiles": gray_tiles,
    "terrazzo": terrazzo,
    "wool_carpet": wool_carpet,
    "brick": brick,
    "wallpaper": wallpaper,
    "linen": linen,
}
"""File stem -> the function that draws it, SIDE x SIDE pixels."""


def _fill_wrapped(canvas: Rgb, corners: Floats, color: Floats) -> None:
    """Fill a polygon on a canvas whose opposite edges join."""
    fixed_point = 4
    for down in (-SIDE, 0, SIDE):
        for across in (-SIDE, 0, SIDE):
            moved = np.rint((corners + np.asarray((across, down))) * 2**fixed_point).astype(np.int32)
            cv2.fillPoly(canvas, [moved], tuple(float(channel) for channel in color), cv2.LINE_AA, fixed_point)


def _to_rgb(picture: NDArray[np.generic]) -> Rgb:
    return np.clip(np.rint(picture.astype(np.float64)), 0, 255).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write every product as a JPEG into a folder."""
    parser = argparse.ArgumentParser(description="Draw the demo catalog's product textures.")
    parser.add_argument("out", type=Path, help="folder that gets one JPEG for each product")
    out: Path = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in PRODUCTS.items():
        (out / f"{name}.jpg").write_bytes(encode(draw(), "JPEG"))


if __name__ == "__main__":
    main()
