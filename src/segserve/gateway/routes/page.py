"""The web page at ``/``, its files, and the two routes that only a page needs: pictures by URL, tiling's categories."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from segserve.errors import NotFoundError, SegserveError
from segserve.gateway import documentation, incoming, page_files
from segserve.gateway.answers import json_response
from segserve.gateway.page_files import PageFile
from segserve.gateway.services import services_of
from segserve.imaging import ImageLimits, decode, encode, read_info
from segserve.schema import ImageSource, parse

OPEN_PATHS = frozenset(page_files.page_files())
"""The page's files: they hold no secret, and without them nobody could type in the key."""

_SHOWN = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}
"""Formats that browsers show."""


def router() -> APIRouter:
    """The page's routes."""
    routes = APIRouter(tags=["page"])
    routes.add_api_route(page_files.INDEX, index, methods=["GET"], **documentation.WEB_PAGE)
    routes.add_api_route("/v1/categories", categories, methods=["GET"], **documentation.CATEGORIES)
    routes.add_api_route("/v1/picture", picture, methods=["POST"], **documentation.PICTURE)
    routes.add_api_route(page_files.FAVICON, file, methods=["GET"], include_in_schema=False)
    for folder in (page_files.STATIC, page_files.SCENES):
        routes.add_api_route(folder + "{name:path}", file, methods=["GET"], include_in_schema=False)
    return routes


async def index(request: Request) -> Response:
    """The web page."""
    endpoint = services_of(request).settings.page_endpoint
    return _answer(request, page_files.index(endpoint), endpoint)


async def file(request: Request) -> Response:
    """A script, style sheet or demo scene of the page."""
    path: str = request.scope["path"]
    found = page_files.page_files().get(path)
    if found is None:
        raise NotFoundError(f"There is no file {path[:80]!r}.", code="file_not_found")
    return _answer(request, found, services_of(request).settings.page_endpoint)


async def categories(request: Request) -> Response:
    """What product tiling knows: the categories of its catalog, and the rooms in which they differ."""
    catalog = services_of(request).tiler.catalog
    return json_response({"categories": [{"name": name, "rooms": catalog.rooms(name)} for name in catalog.names]})


async def picture(request: Request) -> Response:
    """An image from where only the server may or can fetch it, so that a page can show what it asks about.

    Takes an image source as `/v1/segment` does: an object with `url` or `s3`. The answer has the file's own bytes, or
    a PNG of them where browsers cannot show the format.
    """
    services = services_of(request)
    source = parse(ImageSource, incoming.json_object(await request.body()))
    try:
        data = await services.fetcher.get(source)
    except SegserveError as error:
        services.metrics.count_fetch_failure(error.error_code)
        raise
    shown, media_type = await asyncio.to_thread(_showable, data, services.settings.image_limits)
    return Response(shown, media_type=media_type, headers={"X-Content-Type-Options": "nosniff"})


def _showable(data: bytes, limits: ImageLimits) -> tuple[bytes, str]:
    """The bytes of an image that a browser shows, and their type; blocks on pixels."""
    media_type = _SHOWN.get(read_info(data, limits).format)
    return (data, media_type) if media_type else (encode(decode(data, limits)), "image/png")


def _answer(request: Request, found: PageFile, endpoint: str) -> Response:
    headers = {**page_files.headers(endpoint), "ETag": found.etag}
    known = (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(","))
    if found.etag in known:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(found.data, headers={**headers, "Content-Type": found.content_type})
