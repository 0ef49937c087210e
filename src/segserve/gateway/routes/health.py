"""``/livez``, ``/readyz`` and SageMaker's ``/ping``. They read a cached state and never wait for TorchServe."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from segserve.errors import NotReadyError
from segserve.gateway import documentation
from segserve.gateway.answers import json_response
from segserve.gateway.incoming import media_type
from segserve.gateway.services import services_of


def router() -> APIRouter:
    """The health routes."""
    routes = APIRouter(tags=["health"])
    routes.add_api_route("/livez", livez, methods=["GET"], **documentation.LIVEZ)
    routes.add_api_route("/readyz", readyz, methods=["GET"], **documentation.READYZ)
    routes.add_api_route("/ping", ping, methods=["GET"], **documentation.PING)
    return routes


async def livez(request: Request) -> Response:
    """Whether the gateway's process is up."""
    return json_response({"status": "alive"})


async def readyz(request: Request) -> Response:
    """Whether every configured model has a worker that has loaded it and answered a warm-up request."""
    readiness = services_of(request).readiness
    _check(readiness.missing())
    return json_response({"status": "ready", "models": readiness.names()})


async def ping(request: Request) -> Response:
    """SageMaker's health check: 200 once ready, 503 before."""
    missing = services_of(request).readiness.missing(health=True)
    preferred = request.headers.get("accept", "").partition(",")[0]
    if media_type(preferred) == "text/plain":
        return PlainTextResponse("Not ready" if missing else "Healthy", status_code=503 if missing else 200)
    _check(missing)
    return json_response({"status": "Healthy"})


def _check(missing: list[str]) -> None:
    if missing:
        raise NotReadyError(f"Not ready: {'; '.join(missing)}.")
