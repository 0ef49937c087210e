"""COCO instance annotations: reading them with every claim checked, and the masks that COCO's own tools make of them.

Format: https://cocodataset.org/#format-data, "Object Detection". Beyond it, an object may carry ``"ignore": 1``, as
generated scenes do: it is not to be scored.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from pycocotools import mask as coco_mask

from segserve import imaging
from segserve.errors import InvalidRequestError, SegserveError
from segserve.imaging import ImageLimits, Rgb
from segserve.masks import Mask, Rle, decode_rle
from segserve.training.json_fields import JsonFields, are_numbers, is_there, read_json

Polygons = list[list[float]]
"""Parts of one object, each as COCO flattens it: ``[x0, y0, x1, y1, …]`` in pixels, six numbers or more."""

LIMITS = ImageLimits(max_bytes=2**30, max_pixels=150_000_000)
"""Pictures of one's own disk: the bounds keep a broken header from filling the memory."""

_NAMED_MISSING = 3


@dataclass(frozen=True)
class LabeledObject:
    """One annotation.

    Attributes:
        class_index: its class, 0-based, in Dataset.classes.
        box: x0, y0, x1, y1 in pixels, ends exclusive, within the picture.
        segmentation: compressed RLE of the picture's size, or polygons.
        crowd: a group that nobody counted (COCO's ``iscrowd``): neither learned nor missed.
        ignore: too small or too hidden to be scored; training shows it all the same.
    """

    class_index: int
    box: tuple[float, float, float, float]
    segmentation: Rle | Polygons
    crowd: bool
    ignore: bool

    def mask(self, height: int, width: int) -> Mask:
        """The object's pixels as pycocotools fills them, (height, width) bool, of a picture of that size.

        Raises:
            ValueError: the RLE is one of another size.
        """
        if isinstance(self.segmentation, list):
            return decode_rle(rasterized(self.segmentation, height, width))
        if self.segmentation["size"] != [height, width]:
            raise ValueError(f"the RLE is of size {self.segmentation['size']}, not [{height}, {width}]")
        return decode_rle(self.segmentation)


@dataclass(frozen=True)
class LabeledPicture:
    """One picture and what is in it. width and height are those of the upright picture, in pixels."""

    id: int
    path: Path
    width: int
    height: int
    objects: tuple[LabeledObject, ...]


@dataclass(frozen=True)
class Dataset:
    """Annotated pictures, in the order of the file. classes: names by rising category id; category_ids: those ids."""

    classes: tuple[str, ...]
    pictures: tuple[LabeledPicture, ...]
    category_ids: tuple[int, ...]


def read_dataset(file: Path, images: Path) -> Dataset:
    """The annotations of a COCO file whose pictures lie in the folder `images`.

    No picture is opened. A box that reaches over the picture's edge is clipped to it; an object without a box gets
    that of its mask; a crowd without a segmentation gets its box as one.

    Raises:
        InvalidRequestError: the file cannot be read, a field is missing or wrong (named, with the annotation's id),
            ids repeat or lead nowhere, a picture lies outside of `images`, or picture files are missing.
    """
    content = JsonFields(str(file), read_json(file))
    categories = _by_id(content, "categories")
    indices = {number: index for index, number in enumerate(sorted(categories))}
    names = [categories[number].label("name") for number in indices]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequestError(f"{file}: categories: the name {name!r} is given to {names.count(name)} of them")
    entries = _by_id(content, "images")
    objects: dict[int, list[LabeledObject]] = {number: [] for number in entries}
    sizes = {number: (entry.side("height"), entry.side("width")) for number, entry in entries.items()}
    for annotation in _by_id(content, "annotations", may_be_empty=True).values():
        picture = annotation.one_of("image_id", sizes, "images")
        category = annotation.one_of("category_id", indices, "categories")
        objects[picture].append(_object(annotation, indices[category], *sizes[picture]))
    paths = {number: _inside(images, entry) for number, entry in entries.items()}
    _check_files(file, images, list(paths.values()))
    return Dataset(
        classes=tuple(names),
        pictures=tuple(
            LabeledPicture(number, paths[number], width, height, tuple(objects[number]))
            for number, (height, width) in sizes.items()
        ),
        category_ids=tuple(indices),
    )


def read_picture(picture: LabeledPicture) -> Rgb:
    """The upright picture, (height, width, 3) uint8 RGB.

    Raises:
        InvalidRequestError: the file is missing, no image, broken, or not of the annotated size.
    """
    try:
        image = imaging.decode(picture.path.read_bytes(), LIMITS)
    except OSError as error:
        raise InvalidRequestError(f"{picture.path}: cannot be read ({error.strerror or error})") from error
    except SegserveError as error:
        raise InvalidRequestError(f"{picture.path}: {error.message}") from error
    height, width = image.shape[:2]
    if (height, width) == (picture.height, picture.width):
        return image
    message = (
        f"{picture.path}: the picture is {width} x {height}, its annotations say {picture.width} x {picture.height}."
    )
    if (width, height) == (picture.height, picture.width):
        message += (
            " Its EXIF orientation turns it by 90 degrees, as every viewer does, but the annotations are of the "
            "picture that was not turned. Annotate the upright picture, or write it again without the orientation tag."
        )
    raise InvalidRequestError(message)


def rasterized(polygons: Polygons, height: int, width: int) -> Rle:
    """The union of polygons as COCO's own tools fill them, compressed."""
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return {"size": [height, width], "counts": merged["counts"].decode("ascii")}


def is_near(polygon: Sequence[float], height: int, width: int) -> bool:
    """Whether all corners of a flattened polygon are in or near a picture: within twice its sides.

    pycocotools walks an outline pixel by pixel, however long it is, so others must not get there.
    """
    return max(map(abs, polygon[0::2])) <= 2 * width and max(map(abs, polygon[1::2])) <= 2 * height


def _by_id(content: JsonFields, field: str, *, may_be_empty: bool = False) -> dict[int, JsonFields]:
    """The objects of a list by their ids, in the list's order."""
    found: dict[int, JsonFields] = {}
    for position, values in enumerate(content.items(field)):
        entry = JsonFields(f"{content.where}: {field}[{position}]", values)
        number = entry.whole("id", 0)
        if number in found:
            raise InvalidRequestError(f"{entry.where}: id: {number} is also the id of an earlier one of the {field}")
        entry.where = f"{content.where}: {_SINGULAR[field]} {number}"
        found[number] = entry
    if not found and not may_be_empty:
        raise content.wrong(field, "at least one", [])
    return found


_SINGULAR = {"images": "image", "categories": "category", "annotations": "annotation"}


def _inside(images: Path, entry: JsonFields) -> Path:
    """The path of a picture, which must lie in the folder by its name alone."""
    name = entry.text("file_name").replace("\\", "/")
    plain = posixpath.normpath(name)
    if "\0" in name or plain.startswith(("/", "../")) or plain in ("..", "."):
        raise entry.wrong("file_name", "a path within the folder of images", entry.values["file_name"])
    return images / plain


def _check_files(file: Path, images: Path, paths: Sequence[Path]) -> None:
    missing = [path for path in paths if not is_there(path)]
    if missing:
        named = ", ".join(str(path) for path in missing[:_NAMED_MISSING])
        more = f" and {len(missing) - _NAMED_MISSING} more" if len(missing) > _NAMED_MISSING else ""
        raise InvalidRequestError(
            f"{file}: {len(missing)} of its {len(paths)} pictures are missing: {named}{more}. "
            f"Its file names are taken relative to {images}."
        )


def _object(annotation: JsonFields, class_index: int, height: int, width: int) -> LabeledObject:
    crowd = annotation.flag("iscrowd")
    box = _box(annotation, height, width)
    segmentation = annotation.values.get("segmentation")
    if crowd and box is not None and segmentation in (None, [], {}):
        x0, y0, x1, y1 = box
        checked: Rle | Polygons = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    elif isinstance(segmentation, dict):
        checked = _rle(annotation, segmentation, height, width)
    else:
        checked = _polygons(annotation, segmentation, height, width)
    if box is None:
        x, y, w, h = _box_of(checked, height, width)
        if w <= 0 or h <= 0:
            raise annotation.wrong("segmentation", "at least one pixel within the picture", segmentation)
        box = (x, y, x + w, y + h)
    return LabeledObject(class_index, box, checked, crowd, annotation.flag("ignore"))


def _box(annotation: JsonFields, height: int, width: int) -> tuple[float, float, float, float] | None:
    values = annotation.values.get("bbox")
    if values is None or values == []:
        return None
    if not are_numbers(values) or len(values) != 4:
        raise annotation.wrong("bbox", "four numbers [x, y, width, height]", values)
    x, y, w, h = (float(value) for value in values)
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if x1 <= x0 or y1 <= y0:
        raise annotation.wrong(
            "bbox", f"[x, y, width, height] with an area within the {width} x {height} picture", values
        )
    return x0, y0, x1, y1


def _box_of(segmentation: Rle | Polygons, height: int, width: int) -> tuple[float, float, float, float]:
    """x, y, width, height of a segmentation's pixels; width and height are 0 where it has none."""
    rle = rasterized(segmentation, height, width) if isinstance(segmentation, list) else segmentation
    x, y, w, h = coco_mask.toBbox({"size": rle["size"], "counts": rle["counts"].encode("ascii")})
    return float(x), float(y), float(w), float(h)


def _polygons(annotation: JsonFields, segmentation: Any, height: int, width: int) -> Polygons:
    if not isinstance(segmentation, list) or not segmentation:
        raise annotation.wrong("segmentation", "polygons or an RLE", segmentation)
    for position, polygon in enumerate(segmentation):
        if not are_numbers(polygon) or len(polygon) < 6 or len(polygon) % 2:
            raise annotation.wrong(f"segmentation[{position}]", "an even count of 6 or more numbers", polygon)
        if not is_near(polygon, height, width):
            expected = f"corners in or near the {width} x {height} picture"
            raise annotation.wrong(f"segmentation[{position}]", expected, polygon)
    return cast(Polygons, segmentation)


def _rle(annotation: JsonFields, segmentation: dict[str, Any], height: int, width: int) -> Rle:
    if segmentation.get("size") != [height, width]:
        raise annotation.wrong("segmentation.size", f"[{height}, {width}] as of its picture", segmentation.get("size"))
    counts = segmentation.get("counts")
    runs = _runs(counts)
    # pycocotools trusts the runs: of short ones it returns whatever was in its memory.
    if runs is None or (runs < 0).any() or runs.sum() != height * width:
        expected = f"the runs of {height} x {width} pixels, as a list of numbers or compressed"
        raise annotation.wrong("segmentation.counts", expected, counts)
    if not annotation.flag("iscrowd") and not runs[1::2].any():
        raise annotation.wrong("segmentation.counts", "at least one pixel of the object", counts)
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts}
    compressed = coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return {"size": [height, width], "counts": compressed["counts"].decode("ascii")}


def _runs(counts: Any) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """The lengths of an RLE's runs, whichever way they are written; None when they are not readable.

    Compressed, a run is a little-endian number of base 32, one character per digit from ``"0"`` on, with 32 added when
    more follow and 16 in the last one meaning a negative; from the fourth run on it is the difference to the run two
    before it.
    """
    if isinstance(counts, list):
        whole = all(isinstance(run, int) and not isinstance(run, bool) and 0 <= run < 2**32 for run in counts)
        return np.asarray(counts, np.int64) if whole else None
    if not isinstance(counts, str) or not counts.isascii():
        return None
    digits = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((digits & 32) == 0)
    if not len(last) or (digits < 0).any() or (digits > 63).any() or last[-1] != len(digits) - 1:
        return None
    starts = np.concatenate(([0], last[:-1] + 1))
    lengths = last - starts + 1
    if lengths.max() > 7:
        return None
    places = np.arange(len(digits)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits & 31) << (5 * places), starts)
    runs -= np.where(digits[last] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return cast("np.ndarray[Any, np.dtype[np.int64]]", runs)
