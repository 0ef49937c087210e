"""``/v1/models``: which models are served, how they fare, and how many workers they have."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.gateway import documentation
from segserve.gateway.admin_key import check_admin_key
from segserve.gateway.answers import json_response
from segserve.gateway.readiness import ModelStatus
from segserve.gateway.served_models import ServedModels
from segserve.gateway.services import Services, services_of
from segserve.gateway.trace import trace_of

_MOST_WORKERS = 64


def router() -> APIRouter:
    """The models' routes."""
    routes = APIRouter(tags=["models"])
    routes.add_api_route("/v1/models", models, methods=["GET"], **documentation.MODELS)
    routes.add_api_route("/v1/models/{name}", model, methods=["GET"], **documentation.MODEL)
    routes.add_api_route("/v1/models/{name}", scale, methods=["PUT"], **documentation.SCALE)
    return routes


async def models(request: Request) -> Response:
    """All models that are served or should be."""
    services = services_of(request)
    states = services.readiness.snapshot.models
    described = [describe(name, states.get(name), services.served_models) for name in services.readiness.names()]
    return json_response({"models": described})


async def model(request: Request, name: str) -> Response:
    """One model."""
    services = services_of(request)
    readiness = services.readiness
    if name not in readiness.names():
        known = ", ".join(readiness.names()) or "none"
        raise NotFoundError(f"The model {name[:80]!r} is not served here. Models: {known}.", code="model_not_found")
    return json_response(describe(name, readiness.snapshot.models.get(name), services.served_models))


async def scale(request: Request, name: str) -> Response:
    """Set how many workers a model has; answers when they are up. Needs the admin key.

    With `min_workers=0` all of them end, once requests at work are answered; further ones get a 503 until the model
    is scaled up again.
    """
    services = services_of(request)
    check_admin_key(request, "Scaling")
    given = request.query_params
    unknown = set(given) - {"min_workers", "max_workers"}
    if unknown or "min_workers" not in given:
        raise InvalidRequestError("Expected the query parameters min_workers and, if larger, max_workers.")
    fewest = _count("min_workers", given["min_workers"])
    most = _count("max_workers", given.get("max_workers", str(fewest)))
    if most < fewest:
        raise InvalidRequestError(f"max_workers: expected at least {fewest}, came {most}.")
    trace_of(request.scope).model = name
    if name not in services.readiness.names():
        raise NotFoundError(f"The model {name[:80]!r} is not served here.", code="model_not_found")
    if fewest:
        await services.workers.scale(name, fewest, most)
        await services.readiness.poll()
    else:
        await _put_to_rest(services, name)
    return json_response(describe(name, services.readiness.snapshot.models.get(name), services.served_models))


def describe(name: str, status: ModelStatus | None, served: ServedModels) -> dict[str, Any]:
    """What callers are told of a model; status: None while TorchServe does not have it."""
    entry, about = served.known_entry(name), served.about(name)
    return {
        "name": name,
        "kind": entry.name if entry else None,
        "title": entry.title if entry else "",
        "version": status.version if status else None,
        "ready": status.ready if status else False,
        "workers": status.workers if status else 0,
        "ready_workers": status.ready_workers if status else 0,
        "queued": status.queued if status else None,
        "batch_size": status.batch_size if status else None,
        "device": status.device if status else None,
        "prompts": list(entry.prompts) if entry else [],
        "parameters": list(entry.parameters) if entry else [],
        "returns": entry.returns if entry else None,
        "classes": None if about.classes is None else list(about.classes),
        "engine": about.engine,
        "engines": None if about.engines is None else list(about.engines),
    }


async def _put_to_rest(services: Services, name: str) -> None:
    """End all workers of a model; what it has been asked is answered first, within the time of a shutdown."""
    with services.readiness.resting(name):
        await services.segmenter.drain(name, services.settings.limits.shutdown_s)
        await services.workers.scale(name, 0, 0)
        await services.readiness.poll()


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _MOST_WORKERS):
        raise InvalidRequestError(f"{name}: expected a whole number from 0 to {_MOST_WORKERS}, came {text[:20]!r}.")
    return int(text)
