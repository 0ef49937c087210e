"""Which served model a request to ``/invocations`` is aimed at, when something beside its body says so.

The path of ``/models/NAME/invoke`` does, and comes before the body; the header ``X-Amzn-SageMaker-Target-Model`` does,
where the body names no model. It holds a served name, or the file of one as SageMaker's clients give it: ``NAME.mar``,
``NAME.tar.gz``, with folders before it or without.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.gateway.services import Services, services_of

HEADER = "x-amzn-sagemaker-target-model"

_SUFFIXES = (".tar.gz", ".mar")


def aim(request: Request, name: str) -> None:
    """Aim a request at a model, whatever its body and headers name."""
    request.state.target_model = name


def aimed_at(request: Request) -> str | None:
    """The model that the request's path names."""
    target: str | None = getattr(request.state, "target_model", None)
    return target


def target_of(request: Request) -> str | None:
    """The model that the request's path names, else its header; None: the body decides.

    Raises:
        NotFoundError: no such model is served.
    """
    target = aimed_at(request)
    if target is not None:
        return target
    given = request.headers.get(HEADER, "").strip()
    return resolve(given, services_of(request).readiness.names()) if given else None


def resolve(given: str, names: Sequence[str]) -> str:
    """The served name that a target model means.

    Raises:
        NotFoundError: none of the names.
    """
    last = given.rpartition("/")[2]
    stems = (last.removesuffix(suffix) for suffix in _SUFFIXES if last.endswith(suffix))
    found = next((name for name in (given, last, *stems) if name in names), None)
    if found is None:
        known = ", ".join(names) or "none"
        raise NotFoundError(
            f"X-Amzn-SageMaker-Target-Model: {given[:80]!r} is not loaded here. Models: {known}.",
            code="model_not_found",
        )
    return found


def model_of_kind(request: Request, services: Services, kind: str) -> str:
    """The served model of a kind that a request asks: the target, else the first of the kind.

    Raises:
        InvalidRequestError: the target is of another kind.
        NotFoundError: nothing of the kind is served, or no such target.
    """
    target = target_of(request)
    if target is None:
        return services.served_models.named(kind)
    if services.served_models.about(target).kind != kind:
        came = services.served_models.about(target).kind or "model of an unknown kind"
        raise InvalidRequestError(f"This request asks a {kind}; the target model {target!r} is a {came}.")
    return target
