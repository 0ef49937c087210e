"""Scenes as somebody would have annotated them with labelme: photographs of rooms with a JSON file beside each.

OUT/000042.png                the picture of seed 42, RGB
OUT/000042.json               its objects: polygons along the edges of the pixels, or a mask for an object with holes

The parts of an object that something hides in the middle share a ``group_id``. The truth loses nothing on the way:
pycocotools fills the polygons to the very pixels they were traced from.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segserve import imaging
from segserve.errors import InvalidRequestError
from segserve.masks import Mask, bounding_box
from segserve.training.labelme import IGNORE_FLAG
from segserve.training.scenes import CATEGORIES, Scene, SceneObject, make_scene
from segserve.training.scenes.files import GENERATOR, check_request

_LABELME_VERSION = "5.5.0"
_TOLERANCE = 0.5


def write_labelme_scenes(
    out: Path,
    seed: int,
    count: int,
    size: tuple[int, int] | None = None,
    *,
    categories: Collection[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes the scenes of `count` consecutive seeds in labelme's form.

    Args:
        out: a folder that is new, empty, or holds such scenes written before, which are replaced.
        seed, count, size, progress: as scenes.files.write_scenes.
        categories: the only ones to be annotated; None: all.

    Raises:
        InvalidRequestError: a number is out of range, a category is unknown, or the folder holds something else;
            nothing was written.
        OSError: the folder cannot be written.
    """
    check_request(seed, count, size)
    unknown = sorted(set(categories or ()) - set(CATEGORIES))
    if unknown:
        raise InvalidRequestError(f"categories: expected some of {', '.join(CATEGORIES)}, got {', '.join(unknown)}")
    for path in _earlier(out):
        path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    for done in range(1, count + 1):
        scene = make_scene(seed + done - 1, size)
        # The annotations first: they say whose the picture is when writing is interrupted.
        name = f"{scene.seed:06d}"
        (out / f"{name}.json").write_text(json.dumps(_content(scene, f"{name}.png", categories), indent=1), "utf-8")
        (out / f"{name}.png").write_bytes(imaging.encode(scene.image))
        if progress is not None:
            progress(done)


def _earlier(out: Path) -> list[Path]:
    """The files of scenes written before; refuses a folder that holds anything else."""
    if out.exists() and not out.is_dir():
        raise InvalidRequestError(f"{out}: expected a folder, found a file")
    paths = sorted(out.iterdir()) if out.exists() else []
    ours = {path.stem for path in paths if path.suffix == ".json" and _is_ours(path)}
    if any(path.stem not in ours or path.suffix not in (".json", ".png") for path in paths):
        raise InvalidRequestError(
            f"{out}: is not empty and holds other things than labelme scenes of segserve; choose a new or empty folder"
        )
    return paths


def _is_ours(path: Path) -> bool:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("generator") == GENERATOR


def _content(scene: Scene, picture: str, categories: Collection[str] | None) -> dict[str, Any]:
    height, width = scene.instances.shape
    shapes = [
        shape
        for item in scene.objects
        if categories is None or item.category in categories
        for shape in _shapes(scene, item)
    ]
    return {
        "version": _LABELME_VERSION,
        "generator": GENERATOR,
        "flags": {},
        "shapes": shapes,
        "imagePath": picture,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def _shapes(scene: Scene, item: SceneObject) -> Iterator[dict[str, Any]]:
    mask = scene.mask(item)
    outlines = pixel_outlines(mask)
    group = item.id if outlines is not None and len(outlines) > 1 else None
    common = {
        "label": item.category,
        "group_id": group,
        "description": item.phrase,
        "flags": {IGNORE_FLAG: True} if item.ignore else {},
    }
    if outlines is None:
        yield {**common, "shape_type": "mask", **_cut_out(mask)}
        return
    for outline in outlines:
        yield {**common, "shape_type": "polygon", "points": outline, "mask": None}


def _cut_out(mask: Mask) -> dict[str, Any]:
    """The mask within its box; labelme counts the last row and column in."""
    box = bounding_box(mask)
    assert box is not None, "an object of a scene has a pixel"
    left, top, right, bottom = box
    png = imaging.encode(mask[top:bottom, left:right].astype(np.uint8))
    return {"points": [[left, top], [right - 1, bottom - 1]], "mask": base64.b64encode(png).decode("ascii")}


def pixel_outlines(mask: Mask) -> list[list[list[float]]] | None:
    """Polygons ``[[x, y], …]`` along the edges of a mask's pixels, one a part; None when a part has a hole.

    Contours go through the centers of pixels. In the doubled picture each pixel has a center in every quarter, and the
    corner of the pixel that the quarter lies at is where the contour of edges turns.
    """
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if hierarchy is None or (hierarchy.reshape(-1, 4)[:, 3] >= 0).any():
        return None
    outlines = []
    for contour in contours:
        corners = (contour + 1) // 2
        simple = cv2.approxPolyDP(corners.astype(np.int32), _TOLERANCE, closed=True)
        outlines.append([[float(x), float(y)] for x, y in simple[:, 0]])
    return outlines
