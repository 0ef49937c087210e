"""The gateway's app, put together in one function from routes, middleware and handlers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version

import httpx2
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from segserve.config import Settings
from segserve.errors import SegserveError
from segserve.gateway import documentation
from segserve.gateway.address_guard import Resolver, resolve
from segserve.gateway.area_detection import AreaDetector
from segserve.gateway.attribute_route import AttributeRoute
from segserve.gateway.cors import CorsHeaders, Preflight
from segserve.gateway.detection_folder import DetectionFolder
from segserve.gateway.failures import on_http_exception, on_segserve_error
from segserve.gateway.images import ImageFetcher
from segserve.gateway.metrics import Metrics
from segserve.gateway.middleware import Bounds, Gatekeeper, Observation
from segserve.gateway.model_loading import LOAD_TIMEOUT_S, ModelLoader
from segserve.gateway.model_shelf import ModelShelf
from segserve.gateway.prompt_rewriting import PromptRewriter
from segserve.gateway.readiness import Readiness
from segserve.gateway.routes import (
    actions,
    detect_area,
    docs,
    health,
    infer,
    metrics,
    models,
    multi_model,
    page,
    predict,
    runtime,
    sagemaker,
    segment,
)
from segserve.gateway.segmenting import Segmenter
from segserve.gateway.served_models import ServedModels
from segserve.gateway.services import Services
from segserve.gateway.sessions import Sessions
from segserve.gateway.tiling import Tiler
from segserve.gateway.tiling_catalog import TilingCatalog
from segserve.gateway.workers import Workers

_ROUTERS = (
    segment.router,
    models.router,
    predict.router,
    sagemaker.router,
    multi_model.router,
    actions.router,
    detect_area.router,
    infer.router,
    health.router,
    metrics.router,
    docs.router,
    page.router,
)


def create_app(
    settings: Settings,
    transport: httpx2.AsyncBaseTransport | None = None,
    *,
    fetch_transport: httpx2.AsyncBaseTransport | None = None,
    resolver: Resolver = resolve,
    shelf: ModelShelf | None = None,
) -> FastAPI:
    """The gateway for these settings. Nothing runs, and nothing is connected to, before the app starts.

    Args:
        settings: limits, keys, where TorchServe is.
        transport: replaces the network to TorchServe, in tests.
        fetch_transport: replaces the network to image URLs, in tests.
        resolver: replaces the name resolution for image URLs, in tests.
        shelf: where models that are loaded while serving come from; None: none are.

    Raises:
        InvalidRequestError: a setting, or the tiling catalog or folder that one names, is not valid.
    """
    services = _assemble(settings, transport, fetch_transport, resolver, shelf)
    app = FastAPI(
        title="segserve",
        version=version("segserve"),
        description="Segmentation of images by text prompts, behind a dependable HTTP API.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(services),
        middleware=_middleware(settings, services.metrics),
        exception_handlers={SegserveError: on_segserve_error, HTTPException: on_http_exception},
    )
    app.state.services = services
    for router in (*_ROUTERS, *([runtime.router] if settings.sagemaker_runtime else [])):
        app.include_router(router())
    documentation.install(app)
    return app


def _middleware(settings: Settings, metrics_kept: Metrics) -> list[Middleware]:
    """The outermost first."""
    shared = bool(settings.cors.origins)
    fronts = (runtime.PREFIX,) if settings.sagemaker_runtime else ()
    return [
        *([Middleware(CorsHeaders, policy=settings.cors)] if shared else []),
        Middleware(Observation, metrics=metrics_kept),
        # Before the keys: browsers send none with a preflight.
        *([Middleware(Preflight, policy=settings.cors)] if shared else []),
        Middleware(
            Gatekeeper,
            keys=settings.api_keys,
            admin_keys=[key for key in (settings.admin_key, settings.local_key) if key],
            open_paths=page.OPEN_PATHS,
            fronts=fronts,
        ),
        Middleware(
            Bounds,
            max_body_bytes=settings.limits.max_body_bytes,
            timeout_s=settings.limits.timeout_s,
            fronts=fronts,
            # Unpacking and starting take their time; the caller is told the outcome of it.
            slow={"/models": LOAD_TIMEOUT_S + settings.limits.timeout_s},
        ),
        Middleware(AttributeRoute),
    ]


def _assemble(
    settings: Settings,
    transport: httpx2.AsyncBaseTransport | None,
    fetch_transport: httpx2.AsyncBaseTransport | None,
    resolver: Resolver,
    shelf: ModelShelf | None,
) -> Services:
    metrics_kept = Metrics()
    # The client asks the readiness what it knows, and the readiness polls through the client.
    workers = Workers(
        settings.torchserve,
        settings.limits.timeout_s,
        transport=transport,
        has_workers=lambda model: readiness.has_workers(model),
        on_retry=metrics_kept.count_retry,
        on_answer=metrics_kept.count_answer,
    )
    readiness = Readiness(workers, settings.models, multi_model=settings.multi_model)
    served_models = ServedModels(settings.archives, lambda: _in_order(settings.models, readiness.names()))
    fetcher = ImageFetcher(settings.fetch, settings.image_limits, transport=fetch_transport, resolver=resolver)
    segmenter = Segmenter(
        fetcher,
        workers,
        readiness,
        settings.image_limits,
        on_fetch_failure=lambda error: metrics_kept.count_fetch_failure(error.error_code),
    )
    catalog = TilingCatalog.load(settings.tiling_catalog)
    tiler = Tiler(catalog, segmenter, served_models, fetcher, settings.image_limits)
    areas = AreaDetector(
        None if settings.detection_dir is None else DetectionFolder(settings.detection_dir),
        segmenter,
        served_models,
        fetcher,
        settings.image_limits,
        settings.limits.max_answer_bytes,
    )
    rewriter = PromptRewriter(settings.rewriting, on_outcome=metrics_kept.count_rewriting)
    loader = ModelLoader(
        workers,
        readiness,
        served_models,
        shelf,
        running=segmenter.running,
        drain_s=settings.limits.shutdown_s,
        on_load=metrics_kept.count_load,
        on_unload=metrics_kept.forget_model,
    )
    return Services(
        settings,
        metrics_kept,
        workers,
        readiness,
        served_models,
        fetcher,
        segmenter,
        tiler,
        areas,
        rewriter,
        loader,
        Sessions(),
    )


def _in_order(first: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names, those of first before the others."""
    return [name for name in first if name in names] + [name for name in names if name not in first]


def _lifespan(services: Services) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        polling = asyncio.create_task(services.readiness.run())
        services.rewriter.start()
        try:
            yield
        finally:
            polling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await polling
            await services.loader.aclose()
            await services.rewriter.aclose()
            await services.fetcher.aclose()
            await services.workers.aclose()

    return running
