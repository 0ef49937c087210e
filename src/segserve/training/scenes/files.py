"""Scenes on disk: PNG pictures with their exact truth as COCO annotations and semantic label maps.

OUT/images/000042.png         the picture of seed 42, RGB
OUT/instances.json            COCO: boxes, compressed RLE masks, and the phrase, color and ignore flag of each object
OUT/semantic/000042.png       8-bit label map
OUT/semantic/classes.json     what its values mean
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segserve.errors import InvalidRequestError
from segserve.masks import Mask, decode_rle, encode_rle
from segserve.training.scenes import CATEGORIES, STUFF, Scene, make_scene

GENERATOR = "segserve scenes"
GENERATOR_VERSION = 1
INSTANCES_FILE = "instances.json"
_IMAGES, _SEMANTIC, _CLASSES_FILE = "images", "semantic", "classes.json"
_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class StoredInstance:
    """One object as written.

    Attributes:
        category: one of CATEGORIES.
        phrase: what a person would call it, "red chair".
        color: its named color, or None.
        ignore: too small or too hidden to be asked for or scored.
        box: x0, y0, x1, y1 in pixels around the visible part, ends exclusive.
        mask: the visible pixels, (H, W) bool.
    """

    category: str
    phrase: str
    color: str | None
    ignore: bool
    box: tuple[int, int, int, int]
    mask: Mask


@dataclass(frozen=True)
class StoredScene:
    """One picture with its truth, read back: image (H, W, 3) uint8 RGB, semantic (H, W) uint8."""

    seed: int
    path: Path
    image: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    instances: tuple[StoredInstance, ...]


def write_scenes(
    out: Path,
    seed: int,
    count: int,
    size: tuple[int, int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes the scenes of `count` consecutive seeds.

    Args:
        out: a folder that is new, empty, or holds scenes written before, which are replaced.
        seed: the first seed, 0 or more.
        count: how many scenes, 1 or more.
        size: (height, width) in pixels, or None for each seed's own size.
        progress: called after each scene with the number done.

    Raises:
        InvalidRequestError: a number is out of range, or the folder holds something else; nothing was written.
        OSError: the folder cannot be written.
    """
    check_request(seed, count, size)
    _make_room(out)
    info = {
        "description": GENERATOR,
        "version": str(GENERATOR_VERSION),
        "seed": seed,
        "count": count,
        "size": None if size is None else list(size),
    }
    # Written before the pictures, so that what an interruption leaves behind is recognized and can be replaced.
    _write_json(out / INSTANCES_FILE, _coco(info, [], []))
    (out / _IMAGES).mkdir(exist_ok=True)
    (out / _SEMANTIC).mkdir(exist_ok=True)
    _write_json(out / _SEMANTIC / _CLASSES_FILE, {str(index): name for index, name in enumerate(CATEGORIES)})
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for done, scene in enumerate((make_scene(seed + offset, size) for offset in range(count)), 1):
        name = _file_name(scene.seed)
        _write_png(out / _IMAGES / name, scene.image[..., ::-1])
        _write_png(out / _SEMANTIC / name, scene.semantic)
        images.append(_image_entry(done, scene))
        annotations.extend(_annotations(scene, done, len(annotations) + 1))
        if progress is not None:
            progress(done)
    _write_json(out / INSTANCES_FILE, _coco(info, images, annotations))


def read_scenes(folder: Path) -> Iterator[StoredScene]:
    """The scenes of a folder in the order of their seeds, one at a time.

    Raises:
        InvalidRequestError: the folder holds no scenes, its writing was interrupted, or a file is missing or broken.
    """
    info, content = _read_index(folder)
    if len(content["images"]) != info["count"]:
        raise InvalidRequestError(f"{folder}: writing was interrupted; run segserve scenes again")
    names = {category["id"]: category["name"] for category in content["categories"]}
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    for entry in content["images"]:
        path = folder / entry["file_name"]
        yield StoredScene(
            seed=entry["seed"],
            path=path,
            image=_read_png(path, cv2.IMREAD_COLOR)[..., ::-1].copy(),
            semantic=_read_png(folder / _SEMANTIC / path.name, cv2.IMREAD_GRAYSCALE),
            instances=tuple(_instance(item, names) for item in by_image.get(entry["id"], [])),
        )


@dataclass(frozen=True)
class Origin:
    """What a folder of scenes was made from: seeds seed to seed + count - 1."""

    seed: int
    count: int


def read_origin(folder: Path) -> Origin:
    """What a folder of scenes was made from.

    Raises:
        InvalidRequestError: as read_scenes.
    """
    info, _ = _read_index(folder)
    return Origin(info["seed"], info["count"])


def check_request(seed: int, count: int, size: tuple[int, int] | None) -> None:
    """Raises InvalidRequestError when a number is out of the range that write_scenes documents."""
    if seed < 0:
        raise InvalidRequestError(f"seed: expected 0 or more, got {seed}")
    if count < 1:
        raise InvalidRequestError(f"count: expected 1 or more, got {count}")
    if size is not None and not all(32 <= side <= _LARGEST_SIDE for side in size):
        raise InvalidRequestError(f"size: expected sides of 32 to {_LARGEST_SIDE} pixels, got {size[1]}x{size[0]}")


def _make_room(out: Path) -> None:
    """Makes the folder; removes the scenes that it held; refuses it when it holds anything else of its own."""
    if out.exists() and not out.is_dir():
        raise InvalidRequestError(f"{out}: expected a folder, found a file")
    if not out.exists() or not any(out.iterdir()):
        out.mkdir(parents=True, exist_ok=True)
        return
    info, _ = _read_index(out, refusal="is not empty and holds no scenes of segserve; choose a new or empty folder")
    for seed in range(info["seed"], info["seed"] + info["count"]):
        for kind in (_IMAGES, _SEMANTIC):
            (out / kind / _file_name(seed)).unlink(missing_ok=True)


def _read_index(folder: Path, refusal: str = "holds no scenes of segserve") -> tuple[dict[str, Any], dict[str, Any]]:
    """The `info` of a folder's COCO file, and the whole of it."""
    try:
        content = json.loads((folder / INSTANCES_FILE).read_text("utf-8"))
        info = content["info"]
        if info["description"] == GENERATOR and isinstance(info["seed"], int) and isinstance(info["count"], int):
            return info, content
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        pass  # not ours, whatever it is
    raise InvalidRequestError(f"{folder}: {refusal}")


def _file_name(seed: int) -> str:
    return f"{seed:06d}.png"


def _coco(info: dict[str, Any], images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    categories = [
        {"id": number, "name": name, "supercategory": "stuff" if name in STUFF else "thing"}
        for number, name in enumerate(CATEGORIES, 1)
    ]
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def _image_entry(identifier: int, scene: Scene) -> dict[str, Any]:
    height, width = scene.instances.shape
    name = f"{_IMAGES}/{_file_name(scene.seed)}"
    return {"id": identifier, "file_name": name, "width": width, "height": height, "seed": scene.seed}


def _annotations(scene: Scene, image_id: int, first_id: int) -> Iterator[dict[str, Any]]:
    for offset, item in enumerate(scene.objects):
        left, top, right, bottom = item.box
        yield {
            "id": first_id + offset,
            "image_id": image_id,
            "category_id": CATEGORIES.index(item.category) + 1,
            "bbox": [left, top, right - left, bottom - top],
            "area": item.area,
            "iscrowd": 0,
            "segmentation": encode_rle(scene.mask(item)),
            "phrase": item.phrase,
            "color": item.color,
            "ignore": int(item.ignore),
        }


def _instance(annotation: dict[str, Any], names: dict[int, str]) -> StoredInstance:
    left, top, width, height = annotation["bbox"]
    return StoredInstance(
        category=names[annotation["category_id"]],
        phrase=annotation["phrase"],
        color=annotation["color"],
        ignore=bool(annotation["ignore"]),
        box=(left, top, left + width, top + height),
        mask=decode_rle(annotation["segmentation"]),
    )


def _write_json(path: Path, content: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content) + "\n", "utf-8")
    partial.replace(path)


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    _, encoded = cv2.imencode(".png", pixels)
    path.write_bytes(encoded.tobytes())


def _read_png(path: Path, mode: int) -> NDArray[np.uint8]:
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), mode)
    except (FileNotFoundError, cv2.error) as error:
        raise InvalidRequestError(f"{path}: missing or empty") from error
    if pixels is None:
        raise InvalidRequestError(f"{path}: not a readable PNG file")
    return np.asarray(pixels, np.uint8)
