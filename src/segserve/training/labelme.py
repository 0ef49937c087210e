"""labelme's annotations: a JSON file beside each picture (versions 3 to 6).

Polygons, rectangles, circles and masks are areas and become objects; shapes of one ``group_id`` and one label are
parts of one object. Points and lines have no area and are left out, with a count. A shape with the flag ``ignore`` is
neither to be learned nor to be scored. https://github.com/wkentaro/labelme
"""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segserve import imaging
from segserve.errors import InvalidRequestError, SegserveError
from segserve.masks import Mask
from segserve.training.annotated_picture import (
    AnnotatedPicture,
    Annotation,
    LeftOut,
    PictureFolder,
    ellipse,
    flattened,
    pixels,
    rectangle,
    size_of,
    united,
)
from segserve.training.coco import LIMITS, is_near
from segserve.training.json_fields import JsonFields, are_numbers, is_name, read_json

IGNORE_FLAG = "ignore"
_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_NOT_A_CLASS = ("__ignore__", "_background_")
_NOT_LABELME = "JSON files that are not labelme's"
_CORNERS = "a list of [x, y]"


def read_file(file: Path, source: Path, folder: PictureFolder) -> AnnotatedPicture | LeftOut:
    """The annotations of one picture. source: the folder that is being read; folder: the one that has the pictures.

    Raises:
        InvalidRequestError: damage, with the file, the shape and the field; the picture is neither there nor embedded,
            or not of the size that was annotated.
    """
    values = read_json(file)
    if not isinstance(values, dict) or ("shapes" not in values and "imagePath" not in values):
        return LeftOut(_NOT_LABELME)
    fields = JsonFields(str(file), values)
    name, (height, width), embedded = _picture(fields, file, source, folder)
    _check_size(fields, height, width)
    skipped: Counter[str] = Counter()
    parts: dict[Any, list[_Part]] = {}
    for position, shape in enumerate(fields.items("shapes")):
        part = _part(JsonFields(f"{file}: shapes[{position}]", shape), height, width)
        if isinstance(part, LeftOut):
            skipped[part.reason] += 1
            continue
        parts.setdefault((part.label, position if part.group is None else f"group {part.group}"), []).append(part)
    annotations = []
    for (label, _), members in parts.items():
        segmentation = united([member.area for member in members], height, width)
        if pixels(segmentation, height, width):
            annotations.append(Annotation(label, segmentation, any(member.ignore for member in members)))
        else:
            skipped["without a pixel in the picture"] += len(members)
    return AnnotatedPicture(file, name, height, width, tuple(annotations), skipped, embedded)


def embedded_picture(file: Path) -> bytes:
    """The encoded picture that a file carries in ``imageData``.

    Raises:
        InvalidRequestError: it carries none, or it is not base64.
    """
    return _from_base64(JsonFields(str(file), read_json(file)), "imageData")


@dataclass(frozen=True, eq=False)
class _Part:
    """One shape. area: a flattened polygon, or a mask of the picture's size."""

    label: str
    group: Any
    ignore: bool
    area: list[float] | Mask


def _picture(fields: JsonFields, file: Path, source: Path, folder: PictureFolder) -> tuple[str, tuple[int, int], bool]:
    """Name, (height, width), and whether the picture is to be taken out of the file."""
    name = fields.text("imagePath")
    try:
        found = folder.find(name, file.parent)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{file}: imagePath: {error.message}") from error
    if found is not None:
        return found, folder.size(found), False
    if not fields.values.get("imageData"):
        raise InvalidRequestError(f"{file}: imagePath: there is no picture {name!r}, nor is one embedded (imageData)")
    try:
        size = size_of(_from_base64(fields, "imageData"))
    except SegserveError as error:
        if error.message.startswith(str(file)):
            raise
        raise InvalidRequestError(f"{file}: imageData: {error.message}") from error
    last = name.replace("\\", "/").rpartition("/")[2]
    if last in (".", "..") or not is_name(last):
        raise fields.wrong("imagePath", "the path of a picture", name)
    place = file.parent.relative_to(source) if source.is_dir() else Path()
    return (place / last).as_posix(), size, True


def _check_size(fields: JsonFields, height: int, width: int) -> None:
    """Old versions write no size, which is no fault; one that is not the picture's would misplace everything."""
    for field, side in (("imageHeight", height), ("imageWidth", width)):
        value = fields.values.get(field)
        if value is not None and value != side:
            raise fields.wrong(field, f"{side}, as the upright picture is {width} x {height}", value)


def _part(shape: JsonFields, height: int, width: int) -> _Part | LeftOut:
    label = shape.label("label")
    kind = shape.values.get("shape_type") or "polygon"
    if label in _NOT_A_CLASS:
        return LeftOut(f"labeled {label}")
    if kind in _WITHOUT_AREA:
        return LeftOut(f"{kind}: without an area")
    corners = _corners(shape)
    if kind == "polygon" and len(corners) < 3:
        return LeftOut("polygon of less than 3 corners")
    flags = shape.values.get("flags")
    ignore = isinstance(flags, dict) and flags.get(IGNORE_FLAG) is True
    if kind == "mask":
        area: list[float] | Mask = _mask(shape, corners, height, width)
    else:
        area = _outline(shape, kind, corners)
        if not is_near(area, height, width):
            raise shape.wrong("points", f"corners in or near the {width} x {height} picture", shape.values["points"])
    return _Part(label, shape.values.get("group_id"), ignore, area)


def _corners(shape: JsonFields) -> list[list[float]]:
    points = shape.items("points")
    if not points or not all(are_numbers(point) and len(point) == 2 for point in points):
        raise shape.wrong("points", _CORNERS, points)
    return points


def _outline(shape: JsonFields, kind: str, corners: list[list[float]]) -> list[float]:
    if kind == "polygon":
        return flattened(corners)
    if kind == "oriented_rectangle" and len(corners) == 4:
        return flattened(corners)
    if kind not in ("rectangle", "circle"):
        known = "polygon, rectangle, oriented_rectangle, circle, mask, " + ", ".join(_WITHOUT_AREA)
        raise shape.wrong("shape_type", f"one of {known}", kind)
    if kind == "rectangle" and len(corners) == 4:
        return flattened(corners)
    if len(corners) != 2:
        raise shape.wrong("points", f"two points of a {kind}", corners)
    (x0, y0), (x1, y1) = corners
    if kind == "rectangle":
        return rectangle(x0, y0, x1, y1)
    radius = math.hypot(x1 - x0, y1 - y0)
    return ellipse(x0, y0, radius, radius)


def _mask(shape: JsonFields, corners: list[list[float]], height: int, width: int) -> Mask:
    """A mask is drawn within its box, whose last corner is still a pixel of it."""
    encoded = _from_base64(shape, "mask")
    try:
        drawn = imaging.decode(encoded, LIMITS)[..., 0] > 0
    except SegserveError as error:
        raise InvalidRequestError(f"{shape.where}: mask: {error.message}") from error
    if len(corners) != 2:
        raise shape.wrong("points", "the two corners of the mask's box", corners)
    (left, top), (right, bottom) = ((round(x), round(y)) for x, y in corners)
    if drawn.shape != (bottom - top + 1, right - left + 1):
        expected = f"corners {drawn.shape[1] - 1} and {drawn.shape[0] - 1} pixels apart, as the mask is large"
        raise shape.wrong("points", expected, corners)
    mask = np.zeros((height, width), bool)
    rows, columns = slice(max(top, 0), max(bottom + 1, 0)), slice(max(left, 0), max(right + 1, 0))
    inside = drawn[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    mask[rows, columns][: inside.shape[0], : inside.shape[1]] = inside
    return mask


def _from_base64(fields: JsonFields, field: str) -> bytes:
    try:
        return base64.b64decode(fields.text(field).rpartition(",")[2].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise fields.wrong(field, "a picture in base64", fields.values[field]) from error
