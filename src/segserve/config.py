"""The service's settings: frozen values with safe defaults, and the only reader of environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segserve.errors import InvalidRequestError
from segserve.imaging import ImageLimits


@dataclass(frozen=True)
class RequestLimits:
    """What one request may cost.

    Attributes:
        max_body_bytes: of a request, all images included.
        max_answer_bytes: of an answer (SageMaker passes on 25 MB).
        timeout_s: an answer comes within this time, or a 504 does.
        shutdown_s: how long a stopping gateway waits for what is in flight.
    """

    max_body_bytes: int = 25 * 2**20
    max_answer_bytes: int = 25 * 2**20
    timeout_s: float = 60.0
    shutdown_s: float = 25.0


@dataclass(frozen=True)
class FetchPolicy:
    """How, and from where, images named by a URL are fetched.

    Attributes:
        timeout_s: for one image in all, redirects included.
        max_bytes: of one image.
        max_redirects: each target is checked like the first address.
        allow: host names, addresses or networks (CIDR) that may be fetched although they are not public.
        s3_buckets: the buckets that ``s3://`` sources may name; empty: none.
    """

    timeout_s: float = 10.0
    max_bytes: int = 20 * 2**20
    max_redirects: int = 3
    allow: tuple[str, ...] = ()
    s3_buckets: tuple[str, ...] = ()


@dataclass(frozen=True)
class TorchServeAddress:
    """Where TorchServe listens, and the file that holds its tokens (None: its token check is off)."""

    inference_url: str = "http://127.0.0.1:8085"
    management_url: str = "http://127.0.0.1:8081"
    metrics_url: str = "http://127.0.0.1:8082"
    key_file: Path | None = None


@dataclass(frozen=True)
class ArchivedModel:
    """What a served model's archive says of it; None where it does not say.

    Attributes:
        kind: the catalog's name of the model.
        engine: what runs it, where there is a choice; of requests that name none, where each may name its own.
        classes: its labels, where they are fixed.
        engines: what a request may name as its parameter engine; None where it cannot.
    """

    kind: str | None = None
    engine: str | None = None
    classes: tuple[str, ...] | None = None
    engines: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Settings:
    """Everything the gateway is told. Secrets never show in its repr.

    Attributes:
        host, port: where the gateway listens.
        models: the models that must be ready before the service says it is; empty: all that TorchServe has.
        archives: what is known of the served models, by the name under which they are served.
        api_keys: keys of callers; empty: no key is asked for.
        admin_key: key for scaling through the gateway; None: scaling is off.
        tiling_catalog: YAML of seed 000's categories; None: the demo catalog of the package.
        detection_dir: seed 001's working directory with its pictures and what was found; None: no files.
        log_format: ``json`` (one object a line) or ``text``.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    models: tuple[str, ...] = ()
    archives: Mapping[str, ArchivedModel] = field(default_factory=dict)
    image_limits: ImageLimits = field(default_factory=ImageLimits)
    limits: RequestLimits = field(default_factory=RequestLimits)
    fetch: FetchPolicy = field(default_factory=FetchPolicy)
    torchserve: TorchServeAddress = field(default_factory=TorchServeAddress)
    api_keys: frozenset[str] = field(default=frozenset(), repr=False)
    admin_key: str | None = field(default=None, repr=False)
    tiling_catalog: Path | None = None
    detection_dir: Path | None = None
    log_format: str = "text"


ENVIRONMENT: dict[str, str] = {
    "SEGSERVE_API_KEYS": "comma-separated keys; when set, every route but the health checks needs one",
    "SEGSERVE_ADMIN_KEY": "key for scaling models through the gateway; scaling is off without it",
    "SEGSERVE_FETCH_ALLOW": "comma-separated hosts or networks that image URLs may name although they are not public",
    "SEGSERVE_S3_BUCKETS": "comma-separated buckets that s3:// images may come from",
    "SEGSERVE_TILING_CATALOG": "path of the YAML catalog for product tiling",
    "SEGSERVE_DETECTION_DIR": "folder of the detect-area routes' pictures and results; made if it is not there",
    "SEGSERVE_LOG_FORMAT": "text or json",
    "SEGSERVE_MAX_BODY_BYTES": "largest request body in bytes",
    "SEGSERVE_MAX_IMAGE_BYTES": "largest encoded image in bytes",
    "SEGSERVE_MAX_PIXELS": "largest image in pixels, width x height",
    "SEGSERVE_TIMEOUT_S": "seconds within which every request is answered",
}
"""Every variable that is read, with its meaning."""


def settings_from_environment(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings that the environment describes; what it does not name keeps its default.

    Raises:
        InvalidRequestError: a value is not of the form its variable needs; names the variable.
    """
    env = os.environ if environ is None else environ
    defaults = Settings()
    catalog = env.get("SEGSERVE_TILING_CATALOG")
    detection_dir = env.get("SEGSERVE_DETECTION_DIR")
    log_format = env.get("SEGSERVE_LOG_FORMAT", defaults.log_format)
    if log_format not in ("text", "json"):
        raise InvalidRequestError(f"SEGSERVE_LOG_FORMAT: expected text or json, came {log_format!r}.")
    max_image_bytes = int(_number(env, "SEGSERVE_MAX_IMAGE_BYTES", defaults.image_limits.max_bytes))
    max_pixels = int(_number(env, "SEGSERVE_MAX_PIXELS", defaults.image_limits.max_pixels))
    return Settings(
        image_limits=ImageLimits(max_image_bytes, max_pixels),
        limits=RequestLimits(
            max_body_bytes=int(_number(env, "SEGSERVE_MAX_BODY_BYTES", defaults.limits.max_body_bytes)),
            timeout_s=_number(env, "SEGSERVE_TIMEOUT_S", defaults.limits.timeout_s),
        ),
        fetch=FetchPolicy(
            max_bytes=max_image_bytes,
            allow=_list(env, "SEGSERVE_FETCH_ALLOW"),
            s3_buckets=_list(env, "SEGSERVE_S3_BUCKETS"),
        ),
        api_keys=frozenset(_list(env, "SEGSERVE_API_KEYS")),
        admin_key=env.get("SEGSERVE_ADMIN_KEY") or None,
        tiling_catalog=Path(catalog) if catalog else None,
        detection_dir=Path(detection_dir) if detection_dir else None,
        log_format=log_format,
    )


def _list(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in env.get(name, "").split(",") if item.strip())


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise InvalidRequestError(f"{name}: expected a number above 0, came {text!r}.")
    return value
