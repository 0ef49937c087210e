"""``GET /metrics``: the gateway's own metrics, and TorchServe's after them while it can be asked."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from segserve.gateway import documentation
from segserve.gateway.metrics import CONTENT_TYPE
from segserve.gateway.services import services_of


def router() -> APIRouter:
    """The metrics route."""
    routes = APIRouter(tags=["health"])
    routes.add_api_route("/metrics", metrics, methods=["GET"], **documentation.METRICS)
    return routes


async def metrics(request: Request) -> Response:
    """Prometheus metrics of the gateway and of TorchServe."""
    services = services_of(request)
    own = services.metrics.text(services.readiness.ready, services.readiness.snapshot.models)
    return Response(own + await services.workers.metrics_text(), headers={"Content-Type": CONTENT_TYPE})
