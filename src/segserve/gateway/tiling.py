"""Product tiling (seed 000): find a category's surface in each image and lay a product image over it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segserve.errors import InvalidPromptError, InvalidRequestError, SegserveError
from segserve.gateway.drawing import InstanceMasks, base64_png
from segserve.gateway.images import ImageFetcher
from segserve.gateway.segmenting import Found, Job, Segmenter
from segserve.gateway.served_models import ServedModels
from segserve.gateway.tiling_catalog import Surface, TilingCatalog
from segserve.imaging import ImageLimits, Rgb, decode
from segserve.render import mask_image
from segserve.schema import MAX_IMAGES, ImageSource, Parameters, Prompt, SegmentRequest
from segserve.tiling import tile_product

_SHIPPED_LIMITS = ImageLimits()


class Lenient(BaseModel):
    """Fields that the seed's clients send beyond these are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class TilingImage(Lenient):
    """One image to work on; ``_id`` is the caller's name for it."""

    id: str | int | None = Field(default=None, alias="_id")
    url: str | None = None
    base64: str | None = None
    s3: str | None = None


class TilingRequest(Lenient):
    """Seed 000's request.

    Attributes:
        categoryname: of the catalog, in any case.
        roomName: picks the room's own product where the catalog has one.
        images: in the order in which they are answered.
        product_image: replaces the catalog's product: a URL, base64, or an object with url, base64 or s3.
        refine: smooth the masks (true), leave them as they are (false), or keep one outline of each ("polygon").
    """

    categoryname: str
    roomName: str | None = None  # noqa: N815 (the seed's name)
    images: Annotated[list[TilingImage], Field(min_length=1, max_length=MAX_IMAGES)]
    product_image: str | ImageSource | None = None
    refine: bool | Literal["polygon"] = True


class TilingFailure(BaseModel):
    """Why an image has no result."""

    id: str | int | None = Field(default=None, alias="_id")
    code: str
    message: str


class TilingAnswer(BaseModel):
    """Base64 PNGs in the order asked, null for an image that failed; errors only when there are some."""

    processed_images: list[str | None]
    errors: list[TilingFailure] | None = None


@dataclass(frozen=True)
class Tiler:
    """Tiles the images of requests. Collaborators are passed in."""

    catalog: TilingCatalog
    segmenter: Segmenter
    served_models: ServedModels
    fetcher: ImageFetcher
    limits: ImageLimits

    async def tile(self, request: TilingRequest, model: str) -> dict[str, Any]:
        """The answer (TilingAnswer) to a request. model: the served name of the grounded_sam that finds the surface.

        Raises:
            NotFoundError: unknown category, or no model that takes text is served.
            RequestError: the product image cannot be had or decoded.
            SegserveError: the model cannot be asked at all.
        """
        surface = self.catalog.surface(request.categoryname, request.roomName)
        product = await self._product(request.product_image, surface)

        async def finish(found: Found) -> str:
            return await asyncio.to_thread(tiled, found.data, found.result, product, surface, self.limits)

        results = await self.segmenter.run(self._job(request, surface, model), finish)
        return _answer(request.images, results)

    def _job(self, request: TilingRequest, surface: Surface, model: str) -> Job:
        sources = [
            ImageSource.model_construct(url=image.url, base64=image.base64, s3=image.s3) for image in request.images
        ]
        native = SegmentRequest(
            model=model,
            images=sources,
            prompt=Prompt(text=surface.text),
            parameters=Parameters(refine=request.refine),
        )
        return Job.from_request(native, self.served_models)

    async def _product(self, given: str | ImageSource | None, surface: Surface) -> Rgb:
        if given is None:
            return await asyncio.to_thread(_shipped_product, surface.product)
        source = given if isinstance(given, ImageSource) else _source(given)
        try:
            return await asyncio.to_thread(decode, await self.fetcher.get(source), self.limits)
        except SegserveError as error:
            raise type(error)(f"product_image: {error.message}", code=error.error_code) from error


def tiled(data: bytes, result: Mapping[str, Any], product: Rgb, surface: Surface, limits: ImageLimits) -> str:
    """One image with the product over the union of what was found, as base64 PNG. Blocks on pixels.

    Raises:
        InvalidPromptError: nothing was (code nothing_found).
        UndecodableImageError, InternalError: the image or the worker's masks are broken.
    """
    union = mask_image(InstanceMasks(result), result["height"], result["width"]) > 0
    if not union.any():
        message = f"Nothing that fits {surface.text!r} was found in the image."
        raise InvalidPromptError(message, code="nothing_found")
    image = decode(data, limits)
    done = tile_product(image, union, product, scale=surface.scale, perspective=surface.perspective)
    return base64_png(done)


def _answer(images: Sequence[TilingImage], results: Sequence[str | SegserveError]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "processed_images": [None if isinstance(result, SegserveError) else result for result in results]
    }
    errors = [
        {"_id": image.id, "code": result.error_code, "message": result.message}
        for image, result in zip(images, results, strict=True)
        if isinstance(result, SegserveError)
    ]
    return {**answer, "errors": errors} if errors else answer


def _source(text: str) -> ImageSource:
    """A product image given as plain text."""
    if text.startswith(("http://", "https://")):
        return ImageSource(url=text)
    if text.startswith("s3://"):
        return ImageSource(s3=text)
    if "://" in text[:64]:
        raise InvalidRequestError("product_image: expected an http(s) or s3 URL, or base64.")
    return ImageSource(base64=text)


@lru_cache(maxsize=32)
def _shipped_product(path: Path) -> Rgb:
    return decode(path.read_bytes(), _SHIPPED_LIMITS)
