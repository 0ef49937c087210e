"""Seed 004's routes: ``/healthcheck``, ``/infer/url`` and ``/infer/file``, whose answers hold whole tensors as JSON."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from segserve.catalog import SEMANTIC
from segserve.errors import InternalError, SegserveError
from segserve.gateway import documentation, tensor_json
from segserve.gateway.accept import takes_gzip
from segserve.gateway.answers import json_response
from segserve.gateway.class_scores import ClassScores
from segserve.gateway.failures import error_response, seed_fields
from segserve.gateway.infer_form import UNSUPPORTED, ImageType, InferRequest
from segserve.gateway.label_drawing import label_map_of
from segserve.gateway.numpy_files import from_npy
from segserve.gateway.segmenting import Found, Job
from segserve.gateway.services import Services, services_of
from segserve.gateway.streamed_answer import StreamedAnswer
from segserve.gateway.trace import trace_of
from segserve.schema import ImageSource, Parameters, SegmentRequest

_VALUE_ERROR = 401
_VALUE_ERRORS = frozenset({400, 413, 415, 422, 424})
"""The statuses of errors that the seed answers as a value error, which is its 401."""

Route = Callable[[Request], Awaitable[Response]]


def router() -> APIRouter:
    """Seed 004's routes."""
    routes = APIRouter(tags=["semantic"])
    routes.add_api_route("/healthcheck", healthcheck, methods=["GET"], **documentation.HEALTHCHECK)
    routes.add_api_route("/infer/url", infer_url, methods=["POST"], **documentation.INFER_URL)
    routes.add_api_route("/infer/file", infer_file, methods=["POST"], **documentation.INFER_FILE)
    return routes


def failing_like_the_seed(route: Route) -> Route:
    """The route with its failures in the seed's shape (infer_form.InferFailure)."""

    @functools.wraps(route)
    async def answered(request: Request) -> Response:
        try:
            return await route(request)
        except SegserveError as error:
            trace = trace_of(request.scope)
            trace.error = error.error_code
            if error.status in _VALUE_ERRORS:
                detail = {"detail": f"Fail! Value error: {error.message}"}
                return error_response(error, trace.request_id, detail, status=_VALUE_ERROR)
            return error_response(error, trace.request_id, seed_fields(request.scope["path"], error))

    return answered


async def healthcheck(request: Request) -> Response:
    """Whether the gateway's process is up. /readyz tells whether the models are ready."""
    return json_response({"status": "live"})


@failing_like_the_seed
async def infer_url(request: Request) -> Response:
    """Run the semantic model on the picture at a URL.

    A form (urlencoded or multipart) says which engine computes and which results are wanted: all three, where it does
    not say. They have the size of the model's input, and the answer can have 100 MB: ask for segmentation_map alone
    where that is enough. It is streamed, and compressed for callers that accept gzip.
    """
    return await _infer(request, "url")


@failing_like_the_seed
async def infer_file(request: Request) -> Response:
    """Run the semantic model on a picture that comes as a file of the form; otherwise as /infer/url."""
    return await _infer(request, "file")


async def _infer(request: Request, image_type: ImageType) -> Response:
    services = services_of(request)
    wanted = InferRequest.read(request.headers.get("content-type", ""), await request.body(), image_type)
    job = _job(services, wanted, image_type)
    trace = trace_of(request.scope)
    trace.model, trace.images = job.model, 1
    services.metrics.count_images(job.model, 1)

    async def finish(found: Found) -> dict[str, Iterator[bytes]]:
        return await asyncio.to_thread(_results, found, wanted.results)

    results = (await services.segmenter.run(job, finish))[0]
    if isinstance(results, SegserveError):
        raise results
    head = {"Status": "OK", "infer_model_type": wanted.engine, "image_type": image_type}
    pieces = tensor_json.document(head, "requested_results", results)
    headers = {"Vary": "Accept-Encoding"}
    if takes_gzip(request.headers.get("accept-encoding", "")):
        pieces, headers["Content-Encoding"] = tensor_json.compressed(pieces), "gzip"
    return StreamedAnswer(pieces, headers, "application/json")


def _job(services: Services, wanted: InferRequest, image_type: ImageType) -> Job:
    """One question to the worker: for the label map where nothing else is made of its answer, else for the logits."""
    maps_only = not {"logits", "pixels_distribution"} & set(wanted.results)
    native = SegmentRequest(
        model=services.served_models.named(SEMANTIC.name),
        images=[ImageSource()],
        parameters=Parameters(engine=wanted.engine, output="label_map" if maps_only else "logits", size="model"),
    )
    url = wanted.image.decode("utf-8", "replace").strip() if image_type == "url" else None
    return Job.from_request(native, services.served_models, [wanted.image if url is None else ImageSource(url=url)])


def _results(found: Found, wanted: tuple[str, ...]) -> dict[str, Iterator[bytes]]:
    """The pieces of each wanted result; blocks on pixels.

    Raises:
        InternalError: the worker answered something else than it was asked for.
    """
    scores = None if found.npy is None else ClassScores.of(from_npy(found.npy))
    results: dict[str, Iterator[bytes]] = {}
    for name in wanted:
        if name == "segmentation_map":
            results[name] = tensor_json.matrix(label_map_of(found.result) if scores is None else scores.labels)
        elif name == "logits":
            results[name] = tensor_json.stack(_scores(scores).logits)
        elif name == "pixels_distribution":
            results[name] = tensor_json.stack(_scores(scores).probabilities())
        else:
            results[name] = iter([tensor_json.text(UNSUPPORTED)])
    return results


def _scores(scores: ClassScores | None) -> ClassScores:
    if scores is None:
        raise InternalError("The worker answered no logits.")
    return scores
