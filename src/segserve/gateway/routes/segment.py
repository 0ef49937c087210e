"""``POST /v1/segment``: the native API, as JSON, as a form, or as a raw image body with query parameters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from segserve.errors import InvalidRequestError, SegserveError
from segserve.gateway import documentation, drawing, incoming, label_drawing
from segserve.gateway.accept import preferred
from segserve.gateway.answers import json_bytes
from segserve.gateway.segmenting import Found, Job, Spent, check_answer
from segserve.gateway.services import Services, services_of
from segserve.gateway.trace import trace_of
from segserve.schema import SegmentRequest

Form = Literal["application/json", "image/png", "application/x-npy"]
FORMS: tuple[Form, ...] = ("application/json", "image/png", "application/x-npy")

_WAY_OUT = "Ask for fewer renders (render), a smaller mask_format (rle, polygon or none), or fewer images at a time."
_SMALLER_FILE = "Ask for application/json instead, or, of a semantic model, for output label_map or size model."


def router() -> APIRouter:
    """The native route."""
    routes = APIRouter(tags=["native"])
    routes.add_api_route("/v1/segment", segment, methods=["POST"], **documentation.SEGMENT)
    return routes


async def segment(request: Request) -> Response:
    """Segment images by a prompt.

    Send JSON (images by URL, base64 or S3), a form (`image` files and `request` JSON), or one raw image body with
    query parameters (`model`, `text`, `mask_format`, `render` and the parameters by name).
    With `Accept: image/png` a single image is answered with its overlay, with `Accept: application/x-npy` with a
    NumPy file: its masks (N x H x W bool), or of a semantic model its label map (h x w), or its logits or
    probabilities (C x h x w float32) when the parameter `output` asks for them.
    """
    body = await request.body()
    content_type = request.headers.get("content-type", "")
    if incoming.media_type(content_type) == "multipart/form-data":
        native, images = incoming.from_multipart(content_type, body)
        return await respond(request, native, images)
    if incoming.is_raw_image(content_type):
        native = incoming.from_raw(body, request.query_params.multi_items(), "query parameter")
        return await respond(request, native, [body])
    if incoming.is_json(content_type) or not body or incoming.looks_like_json(body):
        return await respond(request, incoming.from_json(body))
    raise InvalidRequestError(
        f"Content-Type: expected application/json, multipart/form-data or image/*; came {content_type[:80]!r}."
    )


async def respond(request: Request, native: SegmentRequest, images: Sequence[bytes] | None = None) -> Response:
    """The answer to a native request, in the form that Accept names.

    Args:
        native: the request.
        images: the images' bytes, where they came with the request.

    Raises:
        SegserveError: the request is at fault, or its only image.
    """
    services = services_of(request)
    job = Job.from_request(native, services.served_models, images)
    trace = trace_of(request.scope)
    trace.model, trace.images = job.model, len(job.images)
    services.metrics.count_images(job.model, len(job.images))
    form = preferred(request.headers.get("accept", ""), FORMS)
    output = native.parameters.output
    if output in ("logits", "probabilities") and form != "application/x-npy":
        raise _only_as_npy(output, form)
    if form == "application/json":
        return await _as_json(services, native, job)
    if len(job.images) != 1:
        raise InvalidRequestError(f"Accept: {form} answers one image; came {len(job.images)}. Ask for JSON instead.")
    return await _as_file(services, job, form)


async def _as_json(services: Services, native: SegmentRequest, job: Job) -> Response:
    started = time.perf_counter()
    limits = services.settings.limits
    draws = bool(native.render) or native.mask_format in ("polygon", "png")
    rendered_bytes = 0

    async def finish(found: Found) -> dict[str, Any]:
        nonlocal rendered_bytes
        if not draws:
            return _finished(found, native, services)
        answer = await asyncio.to_thread(_finished, found, native, services)
        # Counted on the way, so that an answer that cannot be sent does not pile up in memory first.
        renders = answer.get("renders", {}).values()
        rendered_bytes += sum(len(made) if isinstance(made, str) else sum(map(len, made)) for made in renders)
        check_answer(rendered_bytes, limits.max_answer_bytes, _WAY_OUT)
        return answer

    spent = Spent()
    results = await services.segmenter.run(job, finish, spent)
    if len(results) == 1 and isinstance(results[0], SegserveError):
        raise results[0]
    answer = {
        "model": job.model,
        "version": services.readiness.version(job.model),
        "results": [_item(result) for result in results],
        "timings_ms": {
            "fetch": round(spent.fetch, 2),
            "model": round(spent.model, 2),
            "render": round(spent.render, 2),
            "total": round((time.perf_counter() - started) * 1e3, 2),
        },
    }
    data = json_bytes(answer) if not draws else await asyncio.to_thread(json_bytes, answer)
    check_answer(len(data), limits.max_answer_bytes, _WAY_OUT)
    return Response(data, media_type="application/json")


async def _as_file(services: Services, job: Job, form: Form) -> Response:
    async def finish(found: Found) -> bytes:
        return await asyncio.to_thread(_file, found, form, services)

    result = (await services.segmenter.run(job, finish))[0]
    if isinstance(result, SegserveError):
        raise result
    check_answer(len(result), services.settings.limits.max_answer_bytes, _SMALLER_FILE)
    return Response(result, media_type=form)


def _finished(found: Found, native: SegmentRequest, services: Services) -> dict[str, Any]:
    """The answer for one image; blocks on pixels where something is drawn."""
    work = (found.data, found.result, native.mask_format, native.render, services.settings.image_limits)
    if found.npy is not None:
        raise _only_as_npy("logits or probabilities, the archive's default,", "application/json")
    if "label_map" in found.result:
        return label_drawing.finished(*work)
    return drawing.finished(*work, labels=found.classes)


def _file(found: Found, form: Form, services: Services) -> bytes:
    """The answer for one image as a file; blocks on pixels."""
    if found.npy is not None:
        if form != "application/x-npy":
            raise _only_as_npy("logits or probabilities, the archive's default,", form)
        return found.npy
    limits, semantic = services.settings.image_limits, "label_map" in found.result
    if form == "image/png":
        if semantic:
            return label_drawing.overlay_png(found.data, found.result, limits)
        return drawing.overlay_png(found.data, found.result, limits, labels=found.classes)
    return label_drawing.label_map_npy(found.result) if semantic else drawing.mask_stack(found.result)


def _only_as_npy(output: str, form: Form) -> InvalidRequestError:
    return InvalidRequestError(
        f"parameters.output: {output} are answered as a NumPy file only, one image at a time: send the header "
        f"Accept: application/x-npy (the answer would be {form}), or ask for output label_map."
    )


def _item(result: dict[str, Any] | SegserveError) -> dict[str, Any]:
    return {"error": result.to_dict()} if isinstance(result, SegserveError) else result
