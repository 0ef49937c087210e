"""What people drew on a picture, whichever tool they drew it with: objects of shapes, before it becomes COCO.

Coordinates are pixels with the origin at the picture's top left corner, so that pixel (0, 0) reaches from 0 to 1.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segserve import imaging
from segserve.errors import InvalidRequestError, SegserveError
from segserve.masks import Mask, Rle, area, decode_rle, encode_rle
from segserve.training.coco import LIMITS, Polygons, rasterized
from segserve.training.json_fields import is_there

_FLATNESS = 0.1
_MOST_CORNERS = 720


@dataclass(frozen=True)
class Annotation:
    """One object: its class by name, its pixels, and whether it is not to be learned or scored."""

    label: str
    segmentation: Rle | Polygons
    ignore: bool = False


@dataclass(frozen=True)
class AnnotatedPicture:
    """One picture with its objects.

    Attributes:
        source: the file that the annotations are from.
        name: of the picture, relative to the folder of pictures, with forward slashes.
        height, width: of the upright picture, in pixels.
        annotations: its objects.
        skipped: why shapes were left out, by reason.
        embedded: the picture is not there as a file but in `source`.
    """

    source: Path
    name: str
    height: int
    width: int
    annotations: tuple[Annotation, ...]
    skipped: Counter[str]
    embedded: bool = False


@dataclass(frozen=True)
class LeftOut:
    """Something that is no annotated picture, and why."""

    reason: str


@dataclass(frozen=True)
class PictureFolder:
    """The folder that all pictures are in, at any depth."""

    root: Path

    def find(self, name: str, beside: Path) -> str | None:
        """The name, relative to the root, of a picture that an annotation file in the folder `beside` calls `name`.

        It is looked for where the name leads from the file and from the root, and then, as the file may have moved
        with its pictures, by its last part only. None when there is no such picture.

        Raises:
            InvalidRequestError: there is one, but outside of the root.
        """
        plain = name.replace("\\", "/")
        last = plain.rpartition("/")[2]
        outside = None
        root = Path(os.path.normpath(self.root.absolute()))
        for candidate in (beside / plain, root / plain, beside / last, root / last):
            path = Path(os.path.normpath(candidate.absolute()))
            if not is_there(path):
                continue
            if path.is_relative_to(root):
                return path.relative_to(root).as_posix()
            outside = outside or path
        if outside is not None:
            raise InvalidRequestError(
                f"the picture {outside} is outside of {self.root}; "
                "name a folder that holds all pictures (segserve convert: --images)"
            )
        return None

    def size(self, name: str) -> tuple[int, int]:
        """Height and width of the upright picture, from its header.

        Raises:
            InvalidRequestError: it cannot be read, or is no image.
        """
        try:
            return size_of((self.root / name).read_bytes())
        except OSError as error:
            raise InvalidRequestError(f"{self.root / name}: cannot be read ({error.strerror or error})") from error
        except SegserveError as error:
            raise InvalidRequestError(f"{self.root / name}: {error.message}") from error


def size_of(picture: bytes) -> tuple[int, int]:
    """Height and width of an encoded picture, upright. Raises as imaging.read_info."""
    info = imaging.read_info(picture, LIMITS)
    return info.height, info.width


def united(parts: Sequence[Mask | list[float]], height: int, width: int) -> Rle | Polygons:
    """One object's segmentation from its parts: polygons as long as all parts are, else the RLE of their union."""
    polygons = [part for part in parts if isinstance(part, list)]
    if len(polygons) == len(parts):
        return polygons
    together = np.zeros((height, width), bool)
    for part in parts:
        together |= decode_rle(rasterized([part], height, width)) if isinstance(part, list) else part
    return encode_rle(together)


def pixels(segmentation: Rle | Polygons, height: int, width: int) -> int:
    """How many pixels of the picture a segmentation covers."""
    rle = rasterized(segmentation, height, width) if isinstance(segmentation, list) else segmentation
    return area(rle)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    """The outline of a rectangle, flattened, from two opposite corners."""
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> list[float]:
    """The outline of an ellipse, flattened; up to a radius of 10,000, nowhere more than 0.1 pixels from the true one.

    x, y: its center; rx, ry: its radii; angle: of the rx axis, in radians from x towards y.
    """
    radius = max(rx, ry, 1.0)
    count = min(max(8, math.ceil(math.pi / math.acos(1 - _FLATNESS / radius))), _MOST_CORNERS)
    turns = (2 * math.pi * step / count for step in range(count))
    corners = ((rx * math.cos(turn), ry * math.sin(turn)) for turn in turns)
    cos, sin = math.cos(angle), math.sin(angle)
    return flattened((x + a * cos - b * sin, y + a * sin + b * cos) for a, b in corners)


def flattened(corners: Iterable[Sequence[float]]) -> list[float]:
    """Corners (x, y) as COCO writes them, x0, y0, x1, y1, …"""
    return [float(value) for corner in corners for value in corner]
