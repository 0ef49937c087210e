"""SageMaker's multi-model contract: ``/models`` loads, lists, describes, unloads and asks models by name."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.gateway import documentation, incoming
from segserve.gateway.admin_key import check_admin_key
from segserve.gateway.answers import json_response
from segserve.gateway.model_loading import ModelToLoad
from segserve.gateway.routes.sagemaker import invocations
from segserve.gateway.services import services_of
from segserve.gateway.target_model import aim
from segserve.gateway.trace import trace_of
from segserve.schema import parse

_MOST_LISTED = 1000
_LISTED = 100
_MOST_DIGITS = 9


def router() -> APIRouter:
    """The routes of multi-model hosting."""
    routes = APIRouter(tags=["sagemaker multi-model"])
    routes.add_api_route("/models", load, methods=["POST"], **documentation.LOAD_MODEL)
    routes.add_api_route("/models", loaded, methods=["GET"], **documentation.LOADED_MODELS)
    routes.add_api_route("/models/{name}", one, methods=["GET"], **documentation.LOADED_MODEL)
    routes.add_api_route("/models/{name}", unload, methods=["DELETE"], **documentation.UNLOAD_MODEL)
    routes.add_api_route("/models/{name}/invoke", invoke, methods=["POST"], **documentation.INVOKE_MODEL)
    return routes


async def load(request: Request) -> Response:
    """Load a model; answers when it is ready. Needs the admin key unless the service hosts many models.

    The archive must lie in the folder of models that may be loaded, or in the model store.
    """
    services = services_of(request)
    if not services.settings.multi_model:
        check_admin_key(request, "Loading a model")
    content_type = request.headers.get("content-type", "")
    if not incoming.is_json(content_type):
        raise InvalidRequestError(f"Content-Type: expected application/json, came {content_type[:80]!r}.")
    wanted = parse(ModelToLoad, incoming.json_object(await request.body()))
    trace_of(request.scope).model = wanted.model_name[:128]
    await services.loader.load(wanted.model_name, wanted.url)
    return json_response(_described(wanted.model_name, wanted.url))


async def loaded(request: Request) -> Response:
    """The models that are loaded, in the order of their names, a page at a time."""
    given = request.query_params
    text = given.get("limit", str(_LISTED))
    # Python refuses to convert thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and 1 <= int(text) <= _MOST_LISTED):
        raise InvalidRequestError(f"limit: expected a whole number from 1 to {_MOST_LISTED}, came {text[:20]!r}.")
    after = given.get("next_page_token", "")
    models = sorted(services_of(request).loader.loaded().items())
    rest = [entry for entry in models if entry[0] > after]
    page = rest[: int(text)]
    answer: dict[str, object] = {"models": [_described(*entry) for entry in page]}
    if len(rest) > len(page):
        answer["nextPageToken"] = page[-1][0]
    return json_response(answer)


async def one(request: Request, name: str) -> Response:
    """One loaded model."""
    return json_response(_described(name, _url(request, name)))


async def unload(request: Request, name: str) -> Response:
    """Unload a model: it takes no more requests, and is gone when those at work are answered. Key as for loading."""
    services = services_of(request)
    if not services.settings.multi_model:
        check_admin_key(request, "Unloading a model")
    trace_of(request.scope).model = name[:128]
    url = services.loader.loaded().get(name, "")
    await services.loader.unload(name)
    return json_response(_described(name, url))


async def invoke(request: Request, name: str) -> Response:
    """Ask a loaded model: the body is one of those of `/invocations`, and this model answers, whichever it names."""
    _url(request, name)
    aim(request, name)
    return await invocations(request)


def _url(request: Request, name: str) -> str:
    """Where a loaded model came from.

    Raises:
        NotFoundError: it is not loaded.
    """
    models = services_of(request).loader.loaded()
    if name not in models:
        known = ", ".join(list(models)[:20]) or "none"
        raise NotFoundError(f"The model {name[:80]!r} is not loaded here. Models: {known}.", code="model_not_found")
    return models[name]


def _described(name: str, url: str) -> dict[str, str]:
    return {"modelName": name, "modelUrl": url}
