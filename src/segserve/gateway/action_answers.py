"""Seed 002's requests and answers: a picture at a URL with a text or a click, and three pictures back."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from segserve import render
from segserve.errors import InvalidPromptError
from segserve.gateway.drawing import InstanceMasks, base64_png, decoded, drawings_of
from segserve.gateway.prompt_rewriting import Tag, TagSource
from segserve.gateway.segmenting import Found
from segserve.imaging import ImageInfo, ImageLimits, Rgb
from segserve.json_values import number_of_text

Pixels = Annotated[float, BeforeValidator(number_of_text), Field(allow_inf_nan=False)]


class Lenient(BaseModel):
    """Fields that the seed's clients send beyond these are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class TextAction(Lenient):
    """Look for what a text names.

    Attributes:
        image_url: http or https.
        text_prompt: phrases, or the name of a product.
    """

    image_url: str
    text_prompt: str


class ClickAction(Lenient):
    """Outline what is at a point; x and y in pixels of the upright picture, also as text."""

    image_url: str
    x: Pixels
    y: Pixels

    def point_within(self, info: ImageInfo) -> tuple[float, float]:
        """The point. One on the right or lower edge, as rounded clicks may be, counts for the last pixel.

        Raises:
            InvalidPromptError: it is outside the picture.
        """
        if not (0 <= self.x <= info.width and 0 <= self.y <= info.height):
            raise InvalidPromptError(
                f"x, y: expected a point within the picture of {info.width} x {info.height} pixels, "
                f"came {self.x:g}, {self.y:g}."
            )
        return min(self.x, info.width - 1), min(self.y, info.height - 1)


class NamedAction(BaseModel):
    """Of ``/invocations``: one of three actions; with langsam text_prompt, with sam2 x and y."""

    action: str = Field(description="langsam, sam2 or ping")
    image_url: str | None = Field(None, description="of langsam and sam2: http or https")
    text_prompt: str | None = Field(None, description="of langsam")
    x: float | None = Field(None, description="of sam2: pixels of the upright picture")
    y: float | None = Field(None, description="of sam2")


class PicturesAnswer(BaseModel):
    """Base64 PNGs as large as the upright picture. Where nothing was found, only original and error."""

    original: str
    overlay: str | None = Field(None, description="everything found, drawn on the picture")
    mask_only: str | None = Field(None, description="the picture where something was found, black elsewhere")
    error: str | None = Field(None, description="instead: that nothing was found")


class TextActionAnswer(PicturesAnswer):
    """What a text was found to name, by falling score."""

    boxes: list[tuple[float, float, float, float]] | None = None
    scores: list[float] | None = None
    labels: list[str] | None = None
    tag: str = Field(description="what was looked for")
    tag_source: TagSource
    product_tag: str | None = Field(None, description="of /segment/langsam: as tag")


class ClickActionAnswer(PicturesAnswer):
    """The best of the masks that the click may mean."""

    score: float | None = Field(None, ge=0, le=1, description="the model's estimate of the mask's IoU")


def text_answer(found: Found, tag: Tag, limits: ImageLimits) -> dict[str, Any]:
    """The answer (TextActionAnswer) to a text. Blocks on pixels.

    Raises:
        UndecodableImageError, InternalError: the picture or the worker's masks are broken.
    """
    answer = _pictures(found, found.result["instances"], f"Nothing that fits {tag.text!r} was found.", limits)
    if "error" not in answer:
        instances = found.result["instances"]
        for plural, name in (("boxes", "box"), ("scores", "score"), ("labels", "label")):
            answer[plural] = [instance[name] for instance in instances]
    return {**answer, "tag": tag.text, "tag_source": tag.source}


def click_answer(found: Found, limits: ImageLimits) -> dict[str, Any]:
    """The answer (ClickActionAnswer) to a click. Blocks on pixels.

    Raises:
        UndecodableImageError, InternalError: the picture or the worker's masks are broken.
    """
    masks = [instance for instance in found.result["instances"] if instance["area"] > 0]
    best = max(masks, key=lambda instance: float(instance["score"]), default=None)
    answer = _pictures(found, [] if best is None else [best], "Nothing was found at the point.", limits)
    return answer if best is None else {**answer, "score": best["score"]}


def _pictures(found: Found, instances: list[dict[str, Any]], otherwise: str, limits: ImageLimits) -> dict[str, Any]:
    """PicturesAnswer for some of the instances that were found; otherwise: the error when there are none."""
    picture = decoded(found.data, found.result, limits)
    original = base64_png(picture)
    if not instances:
        return {"original": original, "error": otherwise}
    chosen = {**found.result, "instances": instances}
    overlay = render.overlay(picture, drawings_of(chosen))
    return {
        "original": original,
        "overlay": base64_png(overlay),
        "mask_only": base64_png(_black_outside(picture, InstanceMasks(chosen))),
    }


def _black_outside(picture: Rgb, masks: InstanceMasks) -> Rgb:
    height, width = picture.shape[:2]
    inside = render.mask_image(masks, height, width) > 0
    return np.where(inside[..., None], picture, np.uint8(0))
