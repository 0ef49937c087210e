"""Results in the form that was asked for: mask formats, rendered pictures, and the whole answer as PNG or NumPy.

Everything here blocks on pixels and belongs into a thread; an answer with run-length masks and no renders needs none
of it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segserve import render
from segserve.errors import InternalError
from segserve.gateway import numpy_files
from segserve.imaging import ImageLimits, Rgb, decode, encode
from segserve.masks import Mask, decode_rle, to_polygons
from segserve.schema import MaskFormat, RenderKind

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Drawn:
    """A picture with everything found drawn on it.

    Attributes:
        png: encoded.
        masked_percentage: of its pixels, how many at least one mask covers: 0..100, rounded to two decimals.
    """

    png: bytes
    masked_percentage: float

    @property
    def unmasked_percentage(self) -> float:
        """The rest: with masked_percentage, as both are shown, exactly 100."""
        return round(100.0 - self.masked_percentage, 2)


class InstanceMasks(Sequence[Mask]):
    """The H x W masks of a worker's result, in its order.

    Each is decoded when it is asked for, and not kept: a hundred of a 12-megapixel picture would take 1.2 GB.

    Raises:
        InternalError: when a mask is asked for that is no mask of the picture's size.
    """

    def __init__(self, result: Mapping[str, Any]) -> None:
        self._instances: Sequence[Mapping[str, Any]] = result["instances"]
        self._shape = (result["height"], result["width"])

    def __len__(self) -> int:
        return len(self._instances)

    def __getitem__(self, index: Any) -> Any:
        instance = self._instances[index]
        try:
            mask = decode_rle(instance["mask"])
        except (KeyError, ValueError) as error:
            raise InternalError("The worker answered a mask that cannot be decoded.") from error
        if mask.shape != self._shape:
            raise InternalError("The worker answered a mask of another size than its picture's.")
        return mask


@dataclass(frozen=True)
class InstanceDrawing:
    """What an overlay shows of one instance of a worker's result: the one at index."""

    label: str
    score: float
    box: Sequence[float]
    masks: InstanceMasks
    index: int

    @property
    def mask(self) -> Mask:
        """The instance's."""
        mask: Mask = self.masks[self.index]
        return mask


def decoded(data: bytes, result: Mapping[str, Any], limits: ImageLimits) -> Rgb:
    """The picture that a worker answered for.

    Raises:
        UndecodableImageError: it cannot be decoded here.
        InternalError: the worker saw it in another size.
    """
    image = decode(data, limits)
    if image.shape[:2] != (result["height"], result["width"]):
        raise InternalError("The worker saw the picture in another size.")
    return image


def drawings_of(result: Mapping[str, Any]) -> list[InstanceDrawing]:
    """What an overlay shows of a worker's result."""
    masks = InstanceMasks(result)
    return [
        InstanceDrawing(item["label"], item["score"], item["box"], masks, index)
        for index, item in enumerate(result["instances"])
    ]


def finished(
    data: bytes,
    result: dict[str, Any],
    mask_format: MaskFormat,
    kinds: Sequence[RenderKind],
    limits: ImageLimits,
    *,
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    """The answer for one image (schema.ImageResult): masks in their format, renders as base64 PNG.

    Args:
        data: the encoded image; decoded only when a render needs its pixels.
        result: the worker's, with run-length masks; not changed.
        labels: all that the model may give, where they are known; see render.overlay.

    Raises:
        UndecodableImageError: the image cannot be drawn on.
        InternalError: the worker's masks are broken.
    """
    masks = InstanceMasks(result)
    answer = {**result, "instances": _with_masks(result["instances"], masks, mask_format)}
    if kinds:
        needs_pixels = any(kind != "mask" for kind in kinds)
        image = decoded(data, result, limits) if needs_pixels else None
        answer["renders"] = {kind: _rendered(kind, image, result, masks, labels) for kind in kinds}
    return answer


def overlay_png(data: bytes, result: Mapping[str, Any], limits: ImageLimits, *, labels: Sequence[str] = ()) -> bytes:
    """The picture with everything found drawn on it, as PNG. labels: as in finished.

    Raises:
        UndecodableImageError, InternalError: as finished.
    """
    image = decoded(data, result, limits)
    return encode(render.overlay(image, drawings_of(result), labels=labels))


def drawn(
    data: bytes, result: Mapping[str, Any], limits: ImageLimits, *, labels: Sequence[str] = (), gray_rest: bool = False
) -> Drawn:
    """The picture with masks, boxes, labels and scores, and how much of it the masks cover.

    Args:
        data: the encoded image.
        result: the worker's, with run-length masks.
        limits: of the image.
        labels: as in finished.
        gray_rest: leave the colors to what is masked, untinted, and turn the rest gray. Outlines and labels are
            drawn then, boxes are not: they would put color where nothing was found.

    Raises:
        UndecodableImageError, InternalError: as finished.
    """
    image = decoded(data, result, limits)
    union = render.mask_image(InstanceMasks(result), result["height"], result["width"]) > 0
    drawings = drawings_of(result)
    if gray_rest:
        picture = render.overlay(render.gray_outside(image, union), drawings, opacity=0.0, labels=labels)
    else:
        picture = render.overlay(image, drawings, boxes=True, labels=labels)
    return Drawn(encode(picture), round(100.0 * np.count_nonzero(union) / union.size, 2))


def mask_stack(result: Mapping[str, Any]) -> bytes:
    """All masks as a NumPy file: N x H x W bool.

    Raises:
        InternalError: the worker's masks are broken.
    """
    masks = InstanceMasks(result)
    stack = np.zeros((len(masks), result["height"], result["width"]), dtype=bool)
    for index, mask in enumerate(masks):
        stack[index] = mask
    return numpy_files.to_npy(stack)


def base64_png(picture: Picture) -> str:
    """A picture as base64 PNG."""
    return base64_text(encode(picture))


def base64_text(data: bytes) -> str:
    """Bytes as base64 text."""
    return base64.b64encode(data).decode("ascii")


def _with_masks(
    instances: Sequence[Mapping[str, Any]], masks: Sequence[Mask], mask_format: MaskFormat
) -> list[dict[str, Any]]:
    if mask_format == "rle":
        return [dict(instance) for instance in instances]
    if mask_format == "none":
        return [{name: value for name, value in instance.items() if name != "mask"} for instance in instances]
    if mask_format == "polygon":
        return [{**instance, "mask": to_polygons(mask)} for instance, mask in zip(instances, masks, strict=True)]
    return [
        {**instance, "mask": base64_png(mask.astype(np.uint8) * 255)}
        for instance, mask in zip(instances, masks, strict=True)
    ]


def _rendered(
    kind: RenderKind, image: Rgb | None, result: Mapping[str, Any], masks: Sequence[Mask], labels: Sequence[str]
) -> str | list[str]:
    if image is not None and kind == "overlay":
        return base64_png(render.overlay(image, drawings_of(result), labels=labels))
    if image is None or kind != "crops":
        union = render.mask_image(masks, result["height"], result["width"])
        return base64_png(union) if image is None or kind == "mask" else base64_png(render.cutout(image, union > 0))
    return [base64_png(part) for part in render.crops(image, [item["box"] for item in result["instances"]])]
