"""``/openapi.json`` and ``/docs``. The page is complete in itself: it loads nothing from anywhere."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from segserve.gateway import documentation
from segserve.gateway.answers import json_response
from segserve.gateway.docs_page import page


def router() -> APIRouter:
    """The documentation's routes."""
    routes = APIRouter(tags=["documentation"])
    routes.add_api_route("/openapi.json", openapi, methods=["GET"], **documentation.OPENAPI)
    routes.add_api_route("/docs", docs, methods=["GET"], **documentation.PAGE)
    return routes


async def openapi(request: Request) -> Response:
    """The OpenAPI document."""
    return json_response(request.app.openapi())


async def docs(request: Request) -> Response:
    """The OpenAPI document as a page."""
    return HTMLResponse(page(request.app.openapi()))
