"""Seed 002's routes: the actions of ``/invocations``, and the forms ``/segment/langsam`` and ``/segment/sam2``."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from segserve.catalog import GROUNDED_SAM, SAM2, ModelEntry
from segserve.errors import InvalidPromptError, InvalidRequestError, NotReadyError, SegserveError
from segserve.gateway import documentation
from segserve.gateway.action_answers import ClickAction, TextAction, click_answer, text_answer
from segserve.gateway.answers import json_bytes, json_response
from segserve.gateway.area_detection import check_fields
from segserve.gateway.form import read_form
from segserve.gateway.segmenting import Found, Job, check_answer
from segserve.gateway.services import Services, services_of
from segserve.gateway.target_model import model_of_kind
from segserve.gateway.trace import trace_of
from segserve.imaging import read_info
from segserve.schema import ImageSource, Parameters, Prompt, SegmentRequest, parse, split_phrases

_WAY_OUT = "Name a smaller picture, or ask /v1/segment for the masks without pictures."
_ACTIONS = ("langsam", "sam2", "ping")

Action = TypeVar("Action", bound=BaseModel)
Answer = dict[str, Any]


def router() -> APIRouter:
    """The forms of seed 002's page."""
    routes = APIRouter(tags=["clicks and text"])
    routes.add_api_route("/segment/langsam", langsam_form, methods=["POST"], **documentation.SEGMENT_LANGSAM)
    routes.add_api_route("/segment/sam2", sam2_form, methods=["POST"], **documentation.SEGMENT_SAM2)
    return routes


async def act(request: Request, body: dict[str, Any]) -> Response:
    """An action of ``/invocations``.

    Raises:
        InvalidRequestError: another action than langsam, sam2 and ping, or a field missing or wrong.
        SegserveError: the picture cannot be had, or the model not be asked.
    """
    action = body["action"]
    if action == "langsam":
        return await _sent(request, await _langsam(request, _action(TextAction, body)))
    if action == "sam2":
        return await _sent(request, await _sam2(request, _action(ClickAction, body)))
    if action == "ping":
        missing = services_of(request).readiness.missing()
        if missing:
            raise NotReadyError(f"Not ready: {'; '.join(missing)}.")
        return json_response({"status": "healthy"})
    raise InvalidRequestError(f"action: expected one of {', '.join(_ACTIONS)}; came {repr(action)[:60]}.")


async def langsam_form(request: Request) -> Response:
    """Find what a text names in the picture at a URL.

    The form is urlencoded or multipart. A long product name is reduced to a plain category first, where the server has
    been given a chat model for that; tag and product_tag say what was looked for, and tag_source how it came about.
    Where nothing is found, the answer has the picture and an error, with status 200.
    """
    answer = await _langsam(request, _action(TextAction, await _fields(request, TextAction)))
    return await _sent(request, {**answer, "product_tag": answer["tag"]})


async def sam2_form(request: Request) -> Response:
    """Outline what is at a point of the picture at a URL.

    The form is urlencoded or multipart; x and y are pixels of the upright picture. Of the masks that a click may mean,
    the answer is the one with the best score.
    """
    return await _sent(request, await _sam2(request, _action(ClickAction, await _fields(request, ClickAction))))


async def _langsam(request: Request, wanted: TextAction) -> Answer:
    services = services_of(request)
    if not split_phrases(wanted.text_prompt):
        raise InvalidPromptError('text_prompt: expected a text such as "black jeans"; it is empty.')
    model = _model(request, services, GROUNDED_SAM)
    # The picture first: for one that cannot be had, nothing is rewritten.
    data = await _picture(services, wanted.image_url)
    tag = await services.rewriter.rewrite(wanted.text_prompt)
    try:
        job = _job(services, model, data, Prompt(text=tag.text))
    except InvalidPromptError as error:
        raise InvalidPromptError(error.message.replace("prompt.text", "text_prompt"), code=error.error_code) from error
    return await _answered(services, job, lambda found: text_answer(found, tag, services.settings.image_limits))


async def _sam2(request: Request, wanted: ClickAction) -> Answer:
    services = services_of(request)
    model = _model(request, services, SAM2)
    data = await _picture(services, wanted.image_url)
    x, y = wanted.point_within(read_info(data, services.settings.image_limits))
    job = _job(services, model, data, Prompt(points=[(x, y, 1)]), Parameters(multimask=True))
    return await _answered(services, job, lambda found: click_answer(found, services.settings.image_limits))


def _model(request: Request, services: Services, entry: ModelEntry) -> str:
    """The served model to ask; nothing is fetched for one that cannot be asked."""
    model = model_of_kind(request, services, entry.name)
    services.readiness.check(model)
    trace = trace_of(request.scope)
    trace.model, trace.images = model, 1
    services.metrics.count_images(model, 1)
    return model


async def _picture(services: Services, url: str) -> bytes:
    if url.strip()[:5].lower() == "data:":
        raise InvalidRequestError(
            "image_url: expected an http or https URL, came a data URL. /v1/segment takes base64 and files."
        )
    try:
        data = await services.fetcher.get(ImageSource(url=url.strip()))
    except SegserveError as error:
        services.metrics.count_fetch_failure(error.error_code)
        message = f"image_url: {error.message.removeprefix('url: ')}"
        raise type(error)(message, code=error.error_code) from error
    read_info(data, services.settings.image_limits)
    return data


def _job(services: Services, model: str, data: bytes, prompt: Prompt, parameters: Parameters | None = None) -> Job:
    native = SegmentRequest(model=model, images=[ImageSource()], prompt=prompt, parameters=parameters or Parameters())
    return Job.from_request(native, services.served_models, [data])


async def _answered(services: Services, job: Job, answer: Callable[[Found], Answer]) -> Answer:
    async def finish(found: Found) -> Answer:
        return await asyncio.to_thread(answer, found)

    result = (await services.segmenter.run(job, finish))[0]
    if isinstance(result, SegserveError):
        raise result
    return result


async def _sent(request: Request, answer: Answer) -> Response:
    data = await asyncio.to_thread(json_bytes, answer)
    check_answer(len(data), services_of(request).settings.limits.max_answer_bytes, _WAY_OUT)
    return Response(data, media_type="application/json")


async def _fields(request: Request, kind: type[BaseModel]) -> dict[str, Any]:
    """The form's fields that an action has, as text; others are ignored.

    Raises:
        InvalidRequestError: no form, or a field given twice.
    """
    parts = read_form(request.headers.get("content-type", ""), await request.body())
    known = [part for part in parts if part.name in kind.model_fields]
    for name, count in Counter(part.name for part in known).items():
        if count > 1:
            raise InvalidRequestError(f"{name}: expected once, came {count} times.")
    return {part.name: part.data.decode("utf-8", "replace") for part in known}


def _action(kind: type[Action], body: dict[str, Any]) -> Action:
    check_fields(kind, {name: value for name, value in body.items() if value not in ("", None)})
    return parse(kind, body)
