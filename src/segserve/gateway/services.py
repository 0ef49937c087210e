"""Everything that the routes work with, put together once for an app."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from segserve.config import Settings
from segserve.gateway.area_detection import AreaDetector
from segserve.gateway.images import ImageFetcher
from segserve.gateway.metrics import Metrics
from segserve.gateway.model_loading import ModelLoader
from segserve.gateway.prompt_rewriting import PromptRewriter
from segserve.gateway.readiness import Readiness
from segserve.gateway.segmenting import Segmenter
from segserve.gateway.served_models import ServedModels
from segserve.gateway.sessions import Sessions
from segserve.gateway.tiling import Tiler
from segserve.gateway.workers import Workers


@dataclass(frozen=True)
class Services:
    """The collaborators of one gateway."""

    settings: Settings
    metrics: Metrics
    workers: Workers
    readiness: Readiness
    served_models: ServedModels
    fetcher: ImageFetcher
    segmenter: Segmenter
    tiler: Tiler
    areas: AreaDetector
    rewriter: PromptRewriter
    loader: ModelLoader
    sessions: Sessions


def services_of(request: Request) -> Services:
    """Those of the app that a request came to."""
    services: Services = request.app.state.services
    return services
