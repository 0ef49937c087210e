"""Seed 001's routes: ``/api`` and ``/api/detect-area-…``, with the bodies that its clients know, failures included."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from html import escape
from typing import Any, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from segserve.errors import InvalidRequestError, SegserveError
from segserve.gateway import documentation, incoming
from segserve.gateway.accept import preferred
from segserve.gateway.answers import json_bytes, json_response
from segserve.gateway.area_detection import (
    DetectAllRequest,
    DetectBase64Request,
    DetectByNameRequest,
    check_fields,
)
from segserve.gateway.failures import error_response
from segserve.gateway.segmenting import Job, check_answer
from segserve.gateway.services import Services, services_of
from segserve.gateway.trace import trace_of
from segserve.schema import MAX_IMAGES, parse

_SMALLER = "Send a smaller image, or give output_image_name the ending .jpg."
_FEWER = "Name fewer images at a time with /api/detect-area-by-name; output/images has the files all the same."
_MISSING_STATUS = 500
"""What the seed's body says of a payload without one of its fields. The answer's own status is 400."""

Payload = TypeVar("Payload", bound=BaseModel)
Route = Callable[[Request], Awaitable[Response]]


def router() -> APIRouter:
    """Seed 001's routes."""
    routes = APIRouter(tags=["detect-area"])
    routes.add_api_route("/api", up, methods=["GET"], **documentation.API)
    for path, route, docs in (
        ("base64", detect_base64, documentation.DETECT_BASE64),
        ("all", detect_all, documentation.DETECT_ALL),
        ("by-name", detect_by_name, documentation.DETECT_BY_NAME),
    ):
        routes.add_api_route(f"/api/detect-area-{path}", route, methods=["POST"], **docs)
    return routes


def failing_like_the_seed(route: Route) -> Route:
    """The route with its failures in the seed's shape (area_detection.DetectFailure, DetectMessage)."""

    @functools.wraps(route)
    async def answered(request: Request) -> Response:
        try:
            return await route(request)
        except SegserveError as error:
            trace = trace_of(request.scope)
            trace.error = error.error_code
            if error.error_code == "image_not_found":
                return json_response({"message": error.message}, status=error.status)
            seed: dict[str, Any] = {"data": "Wrong payload"} if error.status == 400 else {}
            missing = error.error_code == "missing_field"
            return error_response(
                error, trace.request_id, {**seed, "status_code": _MISSING_STATUS if missing else error.status}
            )

    return answered


async def up(request: Request) -> Response:
    """A page that says that the service is up; JSON with Accept: application/json."""
    services = services_of(request)
    missing = services.readiness.missing()
    folder = services.areas.folder is not None
    headers = {"Vary": "Accept"}
    if preferred(request.headers.get("accept", ""), ("text/html", "application/json")) == "application/json":
        return json_response({"status": "up", "ready": not missing, "folder": folder}, headers=headers)
    return HTMLResponse(_page(missing, folder), headers=headers)


@failing_like_the_seed
async def detect_base64(request: Request) -> Response:
    """Find the instances in a picture that comes in base64.

    With a folder of detections, the picture goes to input/images, and what was found to output/.
    """
    services, wanted = services_of(request), await _payload(request, DetectBase64Request)
    job = services.areas.job([services.areas.sent(wanted.image_string)], wanted.threshold_value)
    _note(request, services, job)
    (result,) = await services.areas.detect(job, [wanted.output_image_name], _SMALLER, wanted.input_image_name)
    if isinstance(result, SegserveError):
        raise result
    return await _sent(services, {"data": result, "status_code": 200}, _SMALLER)


@failing_like_the_seed
async def detect_all(request: Request) -> Response:
    """Find the instances in every picture of input/images.

    A file that is no picture, or a broken one, has its error in its entry. At most 32 pictures: name them with
    /api/detect-area-by-name when there are more.
    """
    services, wanted = services_of(request), await _payload(request, DetectAllRequest)
    listing = await asyncio.to_thread(services.areas.opened_folder().inputs)
    skipped = [{"name": name, "reason": reason} for name, reason in listing.skipped]
    told = {"skipped": skipped} if skipped else {}
    if not listing.names:
        return json_response({"message": "no input files", **told})
    if len(listing.names) > MAX_IMAGES:
        raise InvalidRequestError(
            f"input/images has {len(listing.names)} pictures; at most {MAX_IMAGES} are worked on in a request. "
            f"Name up to {MAX_IMAGES} at a time with /api/detect-area-by-name."
        )
    return await _of_files(request, services, listing.names, wanted.threshold_value, told)


@failing_like_the_seed
async def detect_by_name(request: Request) -> Response:
    """Find the instances in the pictures of input/images that are named.

    When one of them is not there, nothing is done. A file that is no picture, or a broken one, has its error in its
    entry.
    """
    services, wanted = services_of(request), await _payload(request, DetectByNameRequest)
    folder = services.areas.opened_folder()
    names = list(dict.fromkeys(wanted.image_names))
    for name in names:
        await asyncio.to_thread(folder.check, name)
    return await _of_files(request, services, names, wanted.threshold_value, {})


async def _payload(request: Request, kind: type[Payload]) -> Payload:
    body = incoming.json_object(await request.body())
    check_fields(kind, body)
    return parse(kind, body)


async def _of_files(
    request: Request, services: Services, names: Sequence[str], threshold: float, told: dict[str, Any]
) -> Response:
    """The answer for files of input/images; their output has their own names. told: fields to add."""
    job = services.areas.job([services.areas.filed(name) for name in names], threshold)
    _note(request, services, job)
    results = await services.areas.detect(job, names, _FEWER)
    entries = [
        {"input_image_name": name, **({"error": result.to_dict()} if isinstance(result, SegserveError) else result)}
        for name, result in zip(names, results, strict=True)
    ]
    return await _sent(services, {"data": entries, "status_code": 200, **told}, _FEWER)


def _note(request: Request, services: Services, job: Job) -> None:
    trace = trace_of(request.scope)
    trace.model, trace.images = job.model, len(job.images)
    services.metrics.count_images(job.model, len(job.images))


async def _sent(services: Services, answer: dict[str, Any], way_out: str) -> Response:
    data = await asyncio.to_thread(json_bytes, answer)
    check_answer(len(data), services.settings.limits.max_answer_bytes, way_out)
    return Response(data, media_type="application/json")


def _page(missing: Sequence[str], folder: bool) -> str:
    """The page for people; missing: what keeps the models from being ready."""
    state = f"Not ready yet: {escape('; '.join(missing))}." if missing else "Its models are ready."
    files = "input/images and output/ are in use" if folder else "off (SEGSERVE_DETECTION_DIR turns it on)"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>segserve is up</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem;"
        "color-scheme:light dark}</style></head><body>"
        f"<h1>segserve is up</h1><p>{state} Folder of pictures: {files}.</p><ul>"
        "<li><code>POST /api/detect-area-base64</code>: a picture in base64</li>"
        "<li><code>POST /api/detect-area-all</code>: every picture of input/images</li>"
        "<li><code>POST /api/detect-area-by-name</code>: some of them</li></ul>"
        '<p><a href="/docs">All routes</a></p></body></html>'
    )
