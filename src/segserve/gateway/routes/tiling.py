"""Seed 000's request, as ``/invocations`` gets it."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from segserve.catalog import GROUNDED_SAM
from segserve.gateway.answers import json_bytes
from segserve.gateway.segmenting import check_answer
from segserve.gateway.services import services_of
from segserve.gateway.target_model import model_of_kind
from segserve.gateway.tiling import TilingRequest
from segserve.gateway.trace import trace_of
from segserve.schema import parse


async def tile(request: Request, body: dict[str, Any]) -> Response:
    """Lay a product over the surfaces of a category.

    Raises:
        SegserveError: the request is at fault; images that fail are told of in the answer.
    """
    services = services_of(request)
    wanted = parse(TilingRequest, body)
    trace = trace_of(request.scope)
    model = model_of_kind(request, services, GROUNDED_SAM.name)
    trace.model, trace.images = model, len(wanted.images)
    services.metrics.count_images(model, len(wanted.images))
    answer = await services.tiler.tile(wanted, model)
    data = await asyncio.to_thread(json_bytes, answer)
    check_answer(len(data), services.settings.limits.max_answer_bytes, "Send fewer or smaller images at a time.")
    return Response(data, media_type="application/json")
