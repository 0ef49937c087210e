"""What a client gets back: typed results, with the masks and pictures decoded when first asked for."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segserve import label_render, mask_logits
from segserve.errors import InternalError, RequestError, SegserveError, error_classes
from segserve.imaging import ImageLimits, Rgb, decode, encode
from segserve.label_maps import Labels, decode_png
from segserve.masks import Mask, Rle, decode_rle
from segserve.render import overlay

_OWN_FILES = ImageLimits(max_bytes=2**31, max_pixels=2**30)


@dataclass(frozen=True)
class Instance:
    """One object: label, score 0..1, box (x0, y0, x1, y1) in pixels of the upright picture, area in pixels.

    Attributes:
        object: of a model that is told where to look, the index of the prompt's object that this answers.
        low_res: the mask's low-resolution logits, where ``low_res=True`` asked for them: to be sent with a correction
            as an object's ``mask``. A NumPy file in base64, see ``logits``.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    area: int
    rle: Rle = field(repr=False)
    object: int | None = None
    low_res: str | None = field(default=None, repr=False)

    @cached_property
    def mask(self) -> Mask:
        """H x W bool, decoded when first asked for."""
        return decode_rle(self.rle)

    @cached_property
    def logits(self) -> NDArray[np.float32] | None:
        """low_res as an array, h x w, positive where the mask is; None where it was not asked for."""
        return None if self.low_res is None else mask_logits.from_text(self.low_res, "low_res")


@dataclass(frozen=True)
class Result:
    """The answer for one image. width and height are those of the upright picture, in pixels.

    Attributes:
        instances: best score first; none of a semantic model.
        renders: pictures that were asked for with ``render``, by kind; PNG bytes (crops: a list of them).
        timings_ms: milliseconds the server spent on the request, by stage.
        source: the encoded picture, where the client has it.
        label_map: of a semantic model: for every pixel the index of its class, h x w; as large as the picture, or as
            the model's input with size="model". None otherwise.
        classes: the names of a semantic model's classes, by index; empty otherwise.
        pixel_fraction: the share, 0..1, of each class that the label map shows.
    """

    width: int
    height: int
    instances: list[Instance]
    renders: dict[str, bytes | list[bytes]] = field(default_factory=dict, repr=False)
    timings_ms: dict[str, float] = field(default_factory=dict, repr=False)
    source: bytes | None = field(default=None, repr=False)
    label_map: Labels | None = field(default=None, repr=False, compare=False)
    classes: tuple[str, ...] = ()
    pixel_fraction: dict[str, float] = field(default_factory=dict)

    @cached_property
    def image(self) -> Rgb:
        """The upright picture, H x W x 3.

        Raises:
            ValueError: it was sent by address, so that the client never had it.
        """
        if self.source is None:
            raise ValueError("the image was fetched by the server; ask for render=['overlay'] to get pictures back")
        return decode(self.source, _OWN_FILES)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """All masks, N x H x W bool."""
        if not self.instances:
            return np.zeros((0, self.height, self.width), dtype=bool)
        return np.stack([instance.mask for instance in self.instances])

    def save_overlay(self, path: str | Path) -> None:
        """Write the picture with the instances drawn on it, or with the classes blended over it and their legend below.

        PNG, or JPEG when path ends so.

        Raises:
            ValueError: the image was sent by address, and its overlay was not asked for.
        """
        rendered = self.renders.get("overlay")
        if self.source is None and isinstance(rendered, bytes):
            picture = decode(rendered, _OWN_FILES)
        elif self.label_map is not None:
            picture = label_render.overlay(self.image, self.label_map, self.classes)
        else:
            picture = overlay(self.image, self.instances)
        _write(picture, Path(path))


@dataclass(frozen=True)
class Tiled:
    """A picture that came back with a product laid over it. data: the encoded picture as the server sent it."""

    data: bytes = field(repr=False)

    @cached_property
    def image(self) -> Rgb:
        """H x W x 3."""
        return decode(self.data, _OWN_FILES)

    def save(self, path: str | Path) -> None:
        """Write the picture; PNG, or JPEG when path ends so."""
        _write(self.image, Path(path))


def outcome_of(item: dict[str, Any], source: bytes | None, timings: dict[str, float]) -> Result | SegserveError:
    """One entry of an answer's ``results``; source: the image's bytes, where the client has them."""
    if item.get("error"):
        return error_of(item["error"])
    instances = [
        Instance(
            found["label"],
            found["score"],
            tuple(found["box"]),
            found["area"],
            found["mask"],
            found.get("object"),
            found.get("low_res"),
        )
        for found in item.get("instances") or ()
    ]
    renders = {
        kind: [base64.b64decode(one) for one in value] if isinstance(value, list) else base64.b64decode(value)
        for kind, value in (item.get("renders") or {}).items()
    }
    return Result(
        item["width"],
        item["height"],
        instances,
        renders,
        timings,
        source,
        label_map=_label_map(item.get("label_map")),
        classes=tuple(item.get("classes") or ()),
        pixel_fraction=item.get("pixel_fraction") or {},
    )


def error_of(body: Mapping[str, Any]) -> SegserveError:
    """The error of one image among several, which comes with a code but no status."""
    code, message = str(body.get("code", "error")), str(body.get("message", "the server gave no reason"))
    kinds = [kind for kind in error_classes() if "code" in vars(kind)]
    exact = [kind for kind in kinds if kind.code == code]
    near = [kind for kind in kinds if code.endswith(kind.code)]
    error: SegserveError = [*exact, *near, RequestError][0](message, code=code)
    error.request_id = body.get("request_id")
    return error


def _label_map(text: str | None) -> Labels | None:
    if text is None:
        return None
    try:
        return decode_png(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise InternalError("The server answered a label map that cannot be decoded.") from error


def _write(picture: Rgb, path: Path) -> None:
    path.write_bytes(encode(picture, "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"))
