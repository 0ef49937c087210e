"""A semantic model's results in the form that was asked for: label maps, rendered pictures, PNG or NumPy.

Everything here blocks on pixels and belongs into a thread; an answer without renders needs none of it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segserve import label_render
from segserve.errors import InternalError
from segserve.gateway import numpy_files
from segserve.gateway.drawing import base64_png, decoded
from segserve.imaging import ImageLimits, Rgb, encode
from segserve.label_maps import Labels, decode_png
from segserve.schema import MaskFormat, RenderKind


def label_map_of(result: Mapping[str, Any]) -> Labels:
    """The label map of a worker's result (schema.WorkerLabelMap), h x w.

    Raises:
        InternalError: it cannot be decoded, or holds an index that is no class's.
    """
    try:
        labels = decode_png(base64.b64decode(result["label_map"], validate=True))
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InternalError("The worker answered a label map that cannot be decoded.") from error
    if labels.size == 0 or int(np.max(labels)) >= len(result["classes"]):
        raise InternalError("The worker answered a label map with an index that is no class's.")
    return labels


def finished(
    data: bytes,
    result: dict[str, Any],
    mask_format: MaskFormat,
    kinds: Sequence[RenderKind],
    limits: ImageLimits,
) -> dict[str, Any]:
    """The answer for one image (schema.ImageResult): renders as base64 PNG; with mask_format "none" no label map.

    Args:
        data: the encoded image; decoded only when a render needs its pixels.
        result: the worker's; not changed.

    Raises:
        UndecodableImageError: the image cannot be drawn on.
        InternalError: the worker's label map is broken.
    """
    answer = {name: value for name, value in result.items() if name != "label_map" or mask_format != "none"}
    if kinds:
        labels = label_map_of(result)
        needs_pixels = any(kind != "mask" for kind in kinds)
        image = decoded(data, result, limits) if needs_pixels else None
        answer["renders"] = {kind: _rendered(kind, image, result, labels) for kind in kinds}
    return answer


def overlay_png(data: bytes, result: Mapping[str, Any], limits: ImageLimits) -> bytes:
    """The picture with the classes blended over it and the legend below, as PNG.

    Raises:
        UndecodableImageError, InternalError: as finished.
    """
    labels = label_map_of(result)
    return encode(label_render.overlay(decoded(data, result, limits), labels, result["classes"]))


def label_map_npy(result: Mapping[str, Any]) -> bytes:
    """The label map as a NumPy file: h x w, uint8 or uint16.

    Raises:
        InternalError: it is broken.
    """
    return numpy_files.to_npy(label_map_of(result))


def _rendered(kind: RenderKind, image: Rgb | None, result: Mapping[str, Any], labels: Labels) -> str:
    classes = result["classes"]
    if image is None or kind == "mask":
        return base64_png(label_render.color_map(labels, classes, result["height"], result["width"]))
    if kind == "cutout":
        return base64_png(label_render.cutout(image, labels, classes))
    return base64_png(label_render.overlay(image, labels, classes))
