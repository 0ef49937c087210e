"""VGG Image Annotator's annotations (versions 1 and 2): one JSON file for a folder of pictures.

The file is either an export, ``{key: {filename, size, regions, file_attributes}}``, or a project with the same under
``_via_img_metadata``. Polygons, rectangles, circles and ellipses are areas and become objects; points and polylines are
left out, with a count. https://www.robots.ox.ac.uk/~vgg/software/via/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segserve.errors import InvalidRequestError
from segserve.training.annotated_picture import (
    AnnotatedPicture,
    Annotation,
    LeftOut,
    PictureFolder,
    ellipse,
    flattened,
    pixels,
    rectangle,
)
from segserve.training.coco import is_near
from segserve.training.json_fields import JsonFields, are_numbers, checked_label, read_json

_USUAL_ATTRIBUTES = ("name", "class", "label", "category", "type")
_WITHOUT_AREA = ("point", "polyline")
_WITHOUT_REGIONS = "pictures without regions"
_NOT_VIA = "JSON files that are not of VGG Image Annotator"


@dataclass(frozen=True)
class Entry:
    """One picture of a VIA file."""

    file: Path
    fields: JsonFields
    regions: tuple[JsonFields, ...]


@dataclass(frozen=True)
class ClassNaming:
    """What names a region's class: an attribute of the regions, and the class of those that have none; or either."""

    attribute: str | None
    default: str | None

    def of(self, region: JsonFields) -> str:
        """The class of a region.

        Raises:
            InvalidRequestError: the attribute is not there and there is no default, or it is no single name.
        """
        attributes = region.values.get("region_attributes")
        value = attributes.get(self.attribute) if isinstance(attributes, dict) and self.attribute else None
        if isinstance(value, dict):  # a checkbox
            chosen = [name for name, checked in value.items() if checked]
            value = chosen[0] if len(chosen) == 1 else value
        if value is None or value == "":
            value = self.default
        field = f"region_attributes.{self.attribute}" if self.attribute else "class"
        if value is None:
            raise region.wrong(field, "the name of a class (or give a class for regions without one: --class)", value)
        return checked_label(region, field, value)


def read_entries(file: Path) -> list[Entry] | LeftOut:
    """The pictures of a VIA file.

    Raises:
        InvalidRequestError: damage, with the file, the picture and the field.
    """
    content = read_json(file)
    if isinstance(content, dict) and "_via_img_metadata" in content:
        content = content["_via_img_metadata"]
    if not isinstance(content, dict) or not any(_is_picture(value) for value in content.values()):
        return LeftOut(_NOT_VIA)
    entries = []
    for key, values in content.items():
        fields = JsonFields(f"{file}: {key}", values)
        regions = fields.values.get("regions")
        if not isinstance(regions, list | dict):
            raise fields.wrong("regions", "a list or an object", regions)
        listed: Any = regions.items() if isinstance(regions, dict) else enumerate(regions)
        checked = tuple(JsonFields(f"{file}: {key}: regions[{number}]", region) for number, region in listed)
        entries.append(Entry(file, fields, checked))
    return entries


def choose_naming(entries: Sequence[Entry], attribute: str | None, default: str | None) -> ClassNaming:
    """What names the classes: what the caller says, or else the one attribute that the regions have.

    Raises:
        InvalidRequestError: the regions have no attribute, or several and none with a usual name.
    """
    if attribute is not None or default is not None:
        return ClassNaming(attribute, default)
    used: Counter[str] = Counter()
    for entry in entries:
        for region in entry.regions:
            values = region.values.get("region_attributes")
            used.update(name for name, value in (values.items() if isinstance(values, dict) else ()) if value)
    usual = [name for name in _USUAL_ATTRIBUTES if name in used]
    if len(used) == 1 or usual:
        return ClassNaming(usual[0] if usual else next(iter(used)), None)
    if not used:
        raise InvalidRequestError(
            "The regions have no attribute that names a class: say which class all are of (--class)."
        )
    names = ", ".join(sorted(used))
    raise InvalidRequestError(f"The regions have the attributes {names}: say which one names the class (--attribute).")


def read_entry(entry: Entry, folder: PictureFolder, naming: ClassNaming) -> AnnotatedPicture | LeftOut:
    """The annotations of one picture.

    Raises:
        InvalidRequestError: damage, with the file, the region and the field; or the picture is missing.
    """
    if not entry.regions:
        return LeftOut(_WITHOUT_REGIONS)
    called = entry.fields.text("filename")
    try:
        name = folder.find(called, entry.file.parent)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{entry.fields.where}: filename: {error.message}") from error
    if name is None:
        raise InvalidRequestError(f"{entry.fields.where}: filename: there is no picture {called!r} in {folder.root}")
    height, width = folder.size(name)
    skipped: Counter[str] = Counter()
    annotations: list[Annotation] = []
    for region in entry.regions:
        outline = _outline(region)
        if isinstance(outline, LeftOut):
            skipped[outline.reason] += 1
            continue
        if not is_near(outline, height, width):
            raise region.wrong("shape_attributes", f"a shape in or near the {width} x {height} picture", outline)
        if not pixels([outline], height, width):
            skipped["without a pixel in the picture"] += 1
            continue
        annotations.append(Annotation(naming.of(region), [outline]))
    return AnnotatedPicture(entry.file, name, height, width, tuple(annotations), skipped)


def _is_picture(value: Any) -> bool:
    return isinstance(value, dict) and "filename" in value and "regions" in value


def _outline(region: JsonFields) -> list[float] | LeftOut:
    shape = JsonFields(f"{region.where}: shape_attributes", region.values.get("shape_attributes"))
    kind = shape.text("name")
    if kind in _WITHOUT_AREA:
        return LeftOut(f"{kind}: without an area")
    if kind == "polygon":
        xs, ys = shape.items("all_points_x"), shape.items("all_points_y")
        for field, values in (("all_points_x", xs), ("all_points_y", ys)):
            if not are_numbers(values) or len(values) != len(xs):
                raise shape.wrong(field, f"{len(xs)} numbers", values)
        if len(xs) < 3:
            return LeftOut("polygon of less than 3 corners")
        return flattened(zip(xs, ys, strict=True))
    if kind == "rect":
        x, y = shape.number("x"), shape.number("y")
        return rectangle(x, y, x + shape.number("width"), y + shape.number("height"))
    if kind == "circle":
        return ellipse(shape.number("cx"), shape.number("cy"), shape.number("r"), shape.number("r"))
    if kind == "ellipse":
        angle = shape.number("theta") if "theta" in shape.values else 0.0
        return ellipse(shape.number("cx"), shape.number("cy"), shape.number("rx"), shape.number("ry"), angle)
    raise shape.wrong("name", "one of polygon, rect, circle, ellipse, point, polyline", kind)
