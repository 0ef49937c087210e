"""From annotation tools' files to COCO: reads all, then writes all, so that nothing is left half done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pycocotools import mask as coco_mask

from segserve.errors import InvalidRequestError
from segserve.training import labelme, via
from segserve.training.annotated_picture import AnnotatedPicture, Annotation, LeftOut, PictureFolder
from segserve.training.coco import rasterized
from segserve.training.json_fields import find_json, is_name

Progress = Callable[[int, int], None]
"""Called with how many of how many pictures are done."""

_Read = TypeVar("_Read")


@dataclass
class Conversion:
    """What was read.

    Attributes:
        folder: what the names of the pictures are relative to.
        pictures: in the order of the files.
        left_out: what was left out, by reason, shapes and files alike.
        broken: messages of the files and pictures that were skipped because they are damaged.
    """

    folder: PictureFolder
    pictures: list[AnnotatedPicture] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """The names of the classes, sorted."""
        return sorted({annotation.label for picture in self.pictures for annotation in picture.annotations})


def read_labelme(source: Path, images: Path | None, skip_broken: bool, progress: Progress | None = None) -> Conversion:
    """The labelme files of a folder and the folders in it.

    Args:
        source: the folder, or one JSON file.
        images: the folder that the pictures are in; None: the source.
        skip_broken: note damage and go on, instead of ending at the first.
        progress: called after each file.

    Raises:
        InvalidRequestError: damage, no annotated picture at all, or two files about one picture.
    """
    conversion = Conversion(_folder(source, images))
    jobs = [partial(labelme.read_file, file, source, conversion.folder) for file in find_json(source)]
    return _gathered(conversion, jobs, skip_broken, progress)


def read_via(
    source: Path,
    images: Path | None,
    skip_broken: bool,
    progress: Progress | None = None,
    *,
    attribute: str | None = None,
    default_class: str | None = None,
) -> Conversion:
    """A file of VGG Image Annotator, or all of them in a folder and the folders in it.

    Args:
        source, images, skip_broken, progress: as read_labelme.
        attribute: the region attribute that names the class; None: the one there is.
        default_class: of regions that name none; without `attribute`, of all.

    Raises:
        InvalidRequestError: as read_labelme; or nothing names the classes.
    """
    conversion = Conversion(_folder(source, images))
    entries: list[via.Entry] = []
    for file in find_json(source):
        found = _attempt(partial(via.read_entries, file), conversion, skip_broken)
        if isinstance(found, LeftOut):
            conversion.left_out[found.reason] += 1
        else:
            entries.extend(found or [])
    naming = (
        via.choose_naming(entries, attribute, default_class) if entries else via.ClassNaming(attribute, default_class)
    )
    jobs = [partial(via.read_entry, entry, conversion.folder, naming) for entry in entries]
    return _gathered(conversion, jobs, skip_broken, progress)


def only_classes(conversion: Conversion, labels: Sequence[str]) -> None:
    """Leaves out the objects of all other classes, with a count.

    Raises:
        InvalidRequestError: there are objects, and none is of these classes.
    """
    found = conversion.labels
    if found and not set(found) & set(labels):
        raise InvalidRequestError(
            f"--labels: no object is of these classes ({', '.join(labels[:5])}); there are {', '.join(found[:10])}."
        )
    for index, picture in enumerate(conversion.pictures):
        kept = tuple(annotation for annotation in picture.annotations if annotation.label in labels)
        for annotation in picture.annotations:
            if annotation.label not in labels:
                conversion.left_out[f"not a class that was asked for: {annotation.label}"] += 1
        conversion.pictures[index] = AnnotatedPicture(**{**vars(picture), "annotations": kept})


def coco_content(pictures: Iterable[AnnotatedPicture], labels: Sequence[str], description: str) -> dict[str, Any]:
    """The pictures as COCO; ids count from 1, categories in the order of the labels."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids = {label: number for number, label in enumerate(labels, 1)}
    for image_id, picture in enumerate(pictures, 1):
        size = {"width": picture.width, "height": picture.height}
        images.append({"id": image_id, "file_name": picture.name, **size})
        for annotation in picture.annotations:
            entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": ids[annotation.label]}
            annotations.append({**entry, **_shape(annotation, picture)})
    categories = [{"id": number, "name": label, "supercategory": ""} for label, number in ids.items()]
    info = {"description": description, "version": "1"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def write_embedded(conversion: Conversion, folder: Path) -> int:
    """Writes the pictures that are only inside of their annotation files. Returns how many there are.

    folder: where to. When it is not the folder of the other pictures, these are copied there, so that one folder has
    all; it becomes the conversion's folder.

    Raises:
        InvalidRequestError: a picture is in the way, and is another one.
        OSError: the folder cannot be written.
    """
    embedded = [picture for picture in conversion.pictures if picture.embedded]
    if not embedded:
        return 0
    pictures = embedded if folder == conversion.folder.root else conversion.pictures
    for picture in pictures:
        if picture.embedded:
            content = labelme.embedded_picture(picture.source)
        else:
            content = (conversion.folder.root / picture.name).read_bytes()
        place = folder / picture.name
        if place.exists():
            if place.read_bytes() != content:
                raise InvalidRequestError(f"{place}: is another picture than that of {picture.source}; move it away")
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        _write(place, content)
    conversion.folder = PictureFolder(folder)
    return len(embedded)


def write_files(contents: dict[Path, dict[str, Any]]) -> None:
    """Writes JSON files, each whole or not at all."""
    encoded = {path: (json.dumps(content, ensure_ascii=False) + "\n").encode() for path, content in contents.items()}
    for path, text in encoded.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, text)


def _folder(source: Path, images: Path | None) -> PictureFolder:
    if not source.exists():
        raise InvalidRequestError(f"{source}: there is no such file or folder")
    if images is not None and not images.is_dir():
        raise InvalidRequestError(f"{images}: expected a folder of pictures (--images), found none")
    return PictureFolder(images or (source if source.is_dir() else source.parent))


def _attempt(job: Callable[[], _Read], conversion: Conversion, skip_broken: bool) -> _Read | None:
    try:
        return job()
    except InvalidRequestError as error:
        if not skip_broken:
            raise
        conversion.broken.append(error.message)
        return None


def _gathered(
    conversion: Conversion,
    jobs: Sequence[Callable[[], AnnotatedPicture | LeftOut]],
    skip_broken: bool,
    progress: Progress | None,
) -> Conversion:
    sources: dict[str, Path] = {}
    for done, job in enumerate(jobs, 1):
        found = _attempt(partial(_checked, job, sources), conversion, skip_broken)
        if isinstance(found, LeftOut):
            conversion.left_out[found.reason] += 1
        elif found is not None:
            sources[found.name] = found.source
            conversion.pictures.append(found)
            conversion.left_out.update(found.skipped)
        if progress is not None:
            progress(done, len(jobs))
    if not conversion.pictures:
        reasons = "; ".join([*_counted(conversion.left_out), *conversion.broken[:1]])
        raise InvalidRequestError(f"No annotated picture was found ({reasons or 'no entries'}).")
    return conversion


def _checked(job: Callable[[], AnnotatedPicture | LeftOut], sources: dict[str, Path]) -> AnnotatedPicture | LeftOut:
    """A picture in two files would be in the data twice, and could be in both parts of a split."""
    found = job()
    if isinstance(found, AnnotatedPicture) and not all(map(is_name, found.name.split("/"))):
        raise InvalidRequestError(
            f"{found.source}: the picture's path {found.name!r} is not UTF-8, or too long; rename it"
        )
    if isinstance(found, AnnotatedPicture) and found.name in sources:
        raise InvalidRequestError(f"{found.source}: the picture {found.name} is annotated in {sources[found.name]} too")
    return found


def _counted(reasons: Counter[str]) -> Iterator[str]:
    return (f"{reason}: {count}" for reason, count in reasons.items())


def _shape(annotation: Annotation, picture: AnnotatedPicture) -> dict[str, Any]:
    """area and bbox are those of the pixels; crowds and ignored objects are marked."""
    segmentation = annotation.segmentation
    rle = rasterized(segmentation, picture.height, picture.width) if isinstance(segmentation, list) else segmentation
    encoded = {"size": rle["size"], "counts": rle["counts"].encode("ascii")}
    shape = {
        "segmentation": segmentation,
        "area": int(coco_mask.area(encoded)),
        "bbox": [float(value) for value in coco_mask.toBbox(encoded)],
        "iscrowd": 0,
    }
    return {**shape, "ignore": 1} if annotation.ignore else shape


def _write(path: Path, content: bytes) -> None:
    if path.is_dir():
        raise InvalidRequestError(f"{path}: expected a file to write, found a folder")
    partial_file = path.with_name(path.name + ".partial")
    partial_file.write_bytes(content)
    partial_file.replace(path)
