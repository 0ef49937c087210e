"""Seed 003's route: one picture in, the picture with everything found drawn on it out, and how much of it is masked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from segserve.catalog import MASK_RCNN
from segserve.errors import InvalidRequestError, SegserveError
from segserve.gateway import documentation, drawing, incoming, multipart
from segserve.gateway.accept import preferred
from segserve.gateway.answers import json_bytes
from segserve.gateway.segmenting import Found, Job, check_answer
from segserve.gateway.services import Services, services_of
from segserve.gateway.trace import trace_of
from segserve.imaging import ImageLimits
from segserve.schema import ImageSource, Parameters, SegmentRequest, Strict, Unit, parse

_IMAGE_FIELDS = ("image", "file")
_MOST_FIELDS = 8
_WAY_OUT = "Send a smaller picture, or ask /v1/segment for the masks without a picture."


class PredictOptions(Strict):
    """What may be said beside the image.

    Attributes:
        remove_colors: gray out what is not masked.
        threshold: least score of an instance, 0..1.
        model: the served Mask R-CNN to ask; None: the first.
    """

    remove_colors: bool = False
    threshold: Unit = 0.5
    model: str | None = None


def router() -> APIRouter:
    """Seed 003's route."""
    routes = APIRouter(tags=["mask_rcnn"])
    routes.add_api_route("/predict", predict, methods=["POST"], **documentation.PREDICT)
    return routes


async def predict(request: Request) -> Response:
    """Draw what a Mask R-CNN finds in a picture, and tell how much of the picture it covers.

    Send a form with one file `image` (or `file`), or the image as the body. The options are fields of the form or
    query parameters. The answer is a PNG with the percentages in its headers `X-Masked-Percentage` and
    `X-Unmasked-Percentage`, or with `Accept: application/json` a JSON object that holds the PNG. The percentage is
    that of the pixels that at least one mask covers, rounded to two decimals; the two add up to 100.
    """
    image, options = await _read(request)
    services = services_of(request)
    job = _job(services, image, options)
    trace = trace_of(request.scope)
    trace.model, trace.images = job.model, 1
    services.metrics.count_images(job.model, 1)
    as_json = preferred(request.headers.get("accept", ""), ("image/png", "application/json")) == "application/json"
    limits = services.settings.image_limits

    async def finish(found: Found) -> tuple[bytes, drawing.Drawn]:
        return await asyncio.to_thread(_answer, found, options, as_json, limits)

    result = (await services.segmenter.run(job, finish))[0]
    if isinstance(result, SegserveError):
        raise result
    body, drawn = result
    check_answer(len(body), services.settings.limits.max_answer_bytes, _WAY_OUT)
    headers = {
        "X-Masked-Percentage": f"{drawn.masked_percentage:.2f}",
        "X-Unmasked-Percentage": f"{drawn.unmasked_percentage:.2f}",
    }
    return Response(body, headers=headers, media_type="application/json" if as_json else "image/png")


async def _read(request: Request) -> tuple[bytes, PredictOptions]:
    """The image and the options, however they came.

    Raises:
        InvalidRequestError: no image or several, an unknown field, one given twice, or a value out of its range.
    """
    body = await request.body()
    content_type = request.headers.get("content-type", "")
    fields = request.query_params.multi_items()
    if incoming.media_type(content_type) == "multipart/form-data":
        images: list[bytes] = []
        for part in multipart.decode(content_type, body, max_parts=_MOST_FIELDS):
            if part.name in _IMAGE_FIELDS:
                images.append(part.data)
            else:
                fields.append((part.name, part.data.decode("utf-8", "replace")))
    elif incoming.is_raw_image(content_type) and body:
        images = [body]
    else:
        came = f"came Content-Type {content_type[:80]!r}" if body else "the body is empty (0 bytes)"
        raise InvalidRequestError(f"/predict takes a form with one file in the field image; {came}.")
    if len(images) != 1:
        raise InvalidRequestError(f"image: expected one file in the field image (or file), came {len(images)}.")
    return images[0], _options(fields)


def _options(fields: Iterable[tuple[str, str]]) -> PredictOptions:
    values: dict[str, str] = {}
    for name, value in fields:
        if name not in PredictOptions.model_fields:
            known = ", ".join(PredictOptions.model_fields)
            raise InvalidRequestError(f"The field {name[:40]!r} is unknown: expected image (one file), {known}.")
        if name in values:
            raise InvalidRequestError(f"{name}: given more than once.")
        values[name] = value.strip()
    return parse(PredictOptions, values, as_text=True)


def _job(services: Services, image: bytes, options: PredictOptions) -> Job:
    model = options.model or services.served_models.named(MASK_RCNN.name)
    kind = services.served_models.entry(model).name
    if kind != MASK_RCNN.name:
        raise InvalidRequestError(
            f"model: /predict asks a {MASK_RCNN.name} model, and {model} is of the kind {kind}: leave model out, or "
            "ask /v1/segment."
        )
    native = SegmentRequest(
        model=model,
        images=[ImageSource()],
        parameters=Parameters(score_threshold=options.threshold),
    )
    return Job.from_request(native, services.served_models, [image])


def _answer(found: Found, options: PredictOptions, as_json: bool, limits: ImageLimits) -> tuple[bytes, drawing.Drawn]:
    """The body of the answer, and what was drawn; blocks on pixels."""
    drawn = drawing.drawn(found.data, found.result, limits, labels=found.classes, gray_rest=options.remove_colors)
    if not as_json:
        return drawn.png, drawn
    answer = {
        "masked_percentage": drawn.masked_percentage,
        "unmasked_percentage": drawn.unmasked_percentage,
        "instances": found.result["instances"],
        "image": drawing.base64_text(drawn.png),
    }
    return json_bytes(answer), drawn
