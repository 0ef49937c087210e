"""The service's settings: frozen values with safe defaults, and the only reader of environment variables."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segserve.errors import InvalidRequestError
from segserve.imaging import ImageLimits

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.-]+(:[0-9]{1,5})?|[a-z][a-z0-9+.-]*://\[[0-9a-f:.]+\](:[0-9]{1,5})?")

_MAX_PORT = 65535
_MOST_DIGITS = 9


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
class CorsPolicy:
    """Which pages of other origins may read the answers (CORS).

    Attributes:
        origins: as browsers send them (``https://shop.example``), or only ``*``: every page; empty: none.
        credentials: whether their requests may carry cookies; an API key in a header needs none of that.

    Raises:
        InvalidRequestError: an origin of another form, ``*`` beside others, or ``*`` with credentials.
    """

    origins: tuple[str, ...] = ()
    credentials: bool = False

    def __post_init__(self) -> None:
        if "*" in self.origins:
            if len(self.origins) > 1:
                raise InvalidRequestError("SEGSERVE_CORS_ORIGINS: * stands for every origin; give it alone.")
            if self.credentials:
                raise InvalidRequestError(
                    "SEGSERVE_CORS_CREDENTIALS: cannot be true with SEGSERVE_CORS_ORIGINS=*: every page could then act "
                    "in the name of whoever opens it. Name the origins."
                )
            return
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise InvalidRequestError(
                    "SEGSERVE_CORS_ORIGINS: expected origins such as https://shop.example or http://localhost:3000 "
                    f"(scheme, host in lower case, port; nothing behind them), or *; came {origin[:80]!r}."
                )


@dataclass(frozen=True)
class RewritingSettings:
    """How long product names become plain categories: by a chat model of a server that speaks OpenAI's protocol.

    Attributes:
        api_key: of that server. Without it and secret nothing is rewritten.
        secret: name or ARN of the secret in AWS Secrets Manager that holds the key; read when api_key is None.
        base_url: of the server, up to and with its ``/v1``.
        model: its name for the chat model.
        timeout_s: for one product name in all.
        max_cached: results that are kept, the last used ones.
    """

    api_key: str | None = field(default=None, repr=False)
    secret: str | None = None
    base_url: str = field(default="https://api.openai.com/v1", repr=False)
    model: str = "gpt-4o-mini"
    timeout_s: float = 3.0
    max_cached: int = 1024


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
        page_endpoint: address of the API that the web page asks, without a slash at its end; empty: the one that it
            comes from.
        cors: which other origins' pages may read the answers.
        rewriting: of product names into plain categories.
        log_format: ``json`` (one object a line) or ``text``.
        log_level: of segserve's own log, as the module logging counts.
        multi_model: whether models come and go as SageMaker's multi-model hosting has it: the service is healthy
            without one, and asks no admin key for loading and unloading.
        sagemaker_runtime: whether the gateway also answers as SageMaker's runtime does, for AWS clients; development.
        local_key: opens what the admin key opens, to commands of the same user on the same machine; made anew at each
            start.
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
    page_endpoint: str = ""
    cors: CorsPolicy = field(default_factory=CorsPolicy)
    rewriting: RewritingSettings = field(default_factory=RewritingSettings)
    log_format: str = "text"
    log_level: int = logging.INFO
    multi_model: bool = False
    sagemaker_runtime: bool = False
    local_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ServeDefaults:
    """What ``segserve serve`` does where no option says otherwise.

    Attributes:
        host, port: where the gateway listens.
        model_stores: folders of archives; the first that holds one is served from.
        log_dir: of TorchServe's log.
        models: names of the models to serve; empty: every archive.
        workers: of each model; None: as its profile says.
        multi_model: see Settings.
        multi_model_dir: the folder within which models may be loaded while the service runs, beside the model store.
        sagemaker_runtime: see Settings.
        inner_ports: the first and the last port that TorchServe may use; None: its usual ones.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    model_stores: tuple[Path, ...] = (Path("model_store"),)
    log_dir: Path = Path("logs")
    models: tuple[str, ...] = ()
    workers: int | None = None
    multi_model: bool = False
    multi_model_dir: Path = Path("/opt/ml/models")
    sagemaker_runtime: bool = False
    inner_ports: tuple[int, int] | None = None


KEY_VARIABLE = "OPENAI_API_KEY"
"""Also the name of the key in a secret that is a JSON object."""

ENVIRONMENT: dict[str, str] = {
    "SEGSERVE_API_KEYS": "comma-separated keys; when set, every route but the health checks needs one",
    "SEGSERVE_ADMIN_KEY": "key for scaling models through the gateway; scaling is off without it",
    "SEGSERVE_FETCH_ALLOW": "comma-separated hosts or networks that image URLs may name although they are not public",
    "SEGSERVE_S3_BUCKETS": "comma-separated buckets that s3:// images may come from",
    "SEGSERVE_TILING_CATALOG": "path of the YAML catalog for product tiling",
    "SEGSERVE_DETECTION_DIR": "folder of the detect-area routes' pictures and results; made if it is not there",
    "SEGSERVE_PAGE_ENDPOINT": "address of the API that the web page asks, if it is not the one it comes from",
    "SEGSERVE_CORS_ORIGINS": "comma-separated origins whose pages may read the answers, or *",
    "SEGSERVE_CORS_CREDENTIALS": "true: those pages' requests may carry cookies; not with *",
    KEY_VARIABLE: "key of the server that turns long product names into plain categories; off without one",
    "OPENAI_BASE_URL": "that server, if it is not OpenAI's",
    "SEGSERVE_OPENAI_MODEL": "its chat model",
    "SEGSERVE_OPENAI_SECRET": "name or ARN of the AWS Secrets Manager secret that holds the key",
    "SEGSERVE_LOG_FORMAT": "text or json",
    "SEGSERVE_MAX_BODY_BYTES": "largest request body in bytes",
    "SEGSERVE_MAX_IMAGE_BYTES": "largest encoded image in bytes",
    "SEGSERVE_MAX_PIXELS": "largest image in pixels, width x height",
    "SEGSERVE_TIMEOUT_S": "seconds within which every request is answered",
    "SEGSERVE_HOST": "where segserve serve listens, as --host",
    "SEGSERVE_PORT": "its port, as --port",
    "SEGSERVE_MODEL_STORE": "folders with : between them, as --model-store; the first with an archive counts",
    "SEGSERVE_MODELS": "comma-separated names of the models to serve, as --models",
    "SEGSERVE_LOG_DIR": "folder of TorchServe's log, as --log-dir",
    "SEGSERVE_MULTI_MODEL_DIR": "folder within which models may be loaded while serving, as --multi-model-dir",
    "SEGSERVE_SAGEMAKER_RUNTIME": "true: answer AWS clients as SageMaker's runtime does, as --sagemaker-runtime",
    "SAGEMAKER_BIND_TO_PORT": "the port that SageMaker asks for; before SEGSERVE_PORT",
    "SAGEMAKER_SAFE_PORT_RANGE": "first-last of the ports that TorchServe may use, as SageMaker gives it",
    "SAGEMAKER_MULTI_MODEL": "true: models are loaded and unloaded while serving, as --multi-model",
    "SAGEMAKER_MODEL_SERVER_WORKERS": "processes per model, as --workers",
    "SAGEMAKER_MODEL_SERVER_TIMEOUT": "as SEGSERVE_TIMEOUT_S, which comes first",
    "SAGEMAKER_CONTAINER_LOG_LEVEL": "least level of the log: 10, 20, 30, 40, 50 or its name, e.g. warning",
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
    timeout_s = _number(env, "SAGEMAKER_MODEL_SERVER_TIMEOUT", defaults.limits.timeout_s)
    max_image_bytes = _count(env, "SEGSERVE_MAX_IMAGE_BYTES", defaults.image_limits.max_bytes)
    max_pixels = _count(env, "SEGSERVE_MAX_PIXELS", defaults.image_limits.max_pixels)
    return Settings(
        image_limits=ImageLimits(max_image_bytes, max_pixels),
        limits=RequestLimits(
            max_body_bytes=_count(env, "SEGSERVE_MAX_BODY_BYTES", defaults.limits.max_body_bytes),
            timeout_s=_number(env, "SEGSERVE_TIMEOUT_S", timeout_s),
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
        page_endpoint=_page_endpoint(env),
        cors=CorsPolicy(_list(env, "SEGSERVE_CORS_ORIGINS"), _switch(env, "SEGSERVE_CORS_CREDENTIALS")),
        rewriting=_rewriting(env),
        log_format=log_format,
        log_level=_log_level(env),
    )


def serve_defaults(environ: Mapping[str, str] | None = None) -> ServeDefaults:
    """The defaults of ``segserve serve`` that the environment describes: what differs in a container.

    Raises:
        InvalidRequestError: a value is not of the form its variable needs; names the variable.
    """
    env = os.environ if environ is None else environ
    usual = ServeDefaults()
    stores = tuple(Path(part) for part in env.get("SEGSERVE_MODEL_STORE", "").split(":") if part.strip())
    workers = _whole(env, "SAGEMAKER_MODEL_SERVER_WORKERS", 1, 1024)
    port = _whole(env, "SEGSERVE_PORT", 0, _MAX_PORT)
    asked = _whole(env, "SAGEMAKER_BIND_TO_PORT", 1, _MAX_PORT)
    given = asked if asked is not None else port
    return ServeDefaults(
        host=env.get("SEGSERVE_HOST", "").strip() or usual.host,
        port=usual.port if given is None else given,
        model_stores=stores or usual.model_stores,
        log_dir=Path(env.get("SEGSERVE_LOG_DIR") or usual.log_dir),
        models=_list(env, "SEGSERVE_MODELS"),
        workers=workers,
        multi_model=_switch(env, "SAGEMAKER_MULTI_MODEL"),
        multi_model_dir=Path(env.get("SEGSERVE_MULTI_MODEL_DIR") or usual.multi_model_dir),
        sagemaker_runtime=_switch(env, "SEGSERVE_SAGEMAKER_RUNTIME"),
        inner_ports=_port_range(env),
    )


def _log_level(env: Mapping[str, str]) -> int:
    text = env.get("SAGEMAKER_CONTAINER_LOG_LEVEL", "").strip() or "info"
    level = logging.getLevelNamesMapping().get(text.upper())
    if level is None and text.isascii() and text.isdigit() and len(text) <= 2 and int(text) <= logging.CRITICAL:
        level = int(text)
    if level is None:
        raise InvalidRequestError(
            "SAGEMAKER_CONTAINER_LOG_LEVEL: expected 10, 20, 30, 40, 50 or debug, info, warning, error, critical; "
            f"came {text[:40]!r}."
        )
    return level


def _port_range(env: Mapping[str, str]) -> tuple[int, int] | None:
    text = env.get("SAGEMAKER_SAFE_PORT_RANGE", "").strip()
    if not text:
        return None
    first, _, last = text.partition("-")
    numbers = [
        int(part) if part.isascii() and part.isdigit() and len(part) <= _MOST_DIGITS else 0 for part in (first, last)
    ]
    if not 1 <= numbers[0] <= numbers[1] <= _MAX_PORT:
        raise InvalidRequestError(
            f"SAGEMAKER_SAFE_PORT_RANGE: expected first-last, e.g. 21000-21999; came {text[:40]!r}."
        )
    return numbers[0], numbers[1]


def _whole(env: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = env.get(name, "").strip()
    if not text:
        return None
    # Python refuses to convert thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and least <= int(text) <= most):
        raise InvalidRequestError(f"{name}: expected a whole number from {least} to {most}, came {text[:40]!r}.")
    return int(text)


def _page_endpoint(env: Mapping[str, str]) -> str:
    endpoint = env.get("SEGSERVE_PAGE_ENDPOINT", "").strip().rstrip("/")
    origin = "/".join(endpoint.split("/")[:3])
    if endpoint and not (
        origin.startswith(("http://", "https://"))
        and _ORIGIN.fullmatch(origin)
        and _PATH.fullmatch(endpoint.removeprefix(origin))
    ):
        raise InvalidRequestError(
            "SEGSERVE_PAGE_ENDPOINT: expected an address such as https://segserve.example:8080 or "
            "https://api.example/prod (scheme, host in lower case, port; a path of letters, digits and ._~-), came "
            f"{endpoint[:80]!r}."
        )
    return endpoint


def _rewriting(env: Mapping[str, str]) -> RewritingSettings:
    defaults = RewritingSettings()
    base_url = env.get("OPENAI_BASE_URL", "").strip() or defaults.base_url
    if not base_url.startswith(("http://", "https://")):
        # Not shown: a URL may hold a password.
        raise InvalidRequestError("OPENAI_BASE_URL: expected an http or https URL.")
    return RewritingSettings(
        api_key=env.get(KEY_VARIABLE, "").strip() or None,
        secret=env.get("SEGSERVE_OPENAI_SECRET", "").strip() or None,
        base_url=base_url,
        model=env.get("SEGSERVE_OPENAI_MODEL", "").strip() or defaults.model,
    )


def _list(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in env.get(name, "").split(",") if item.strip())


def _switch(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name, "").strip().lower() or "false"
    if text not in ("true", "false"):
        raise InvalidRequestError(f"{name}: expected true or false, came {text!r}.")
    return text == "true"


def _count(env: Mapping[str, str], name: str, default: int) -> int:
    """A number of bytes or pixels; a fraction is cut off, as 5e7 is taken."""
    value = int(_number(env, name, default))
    if not value:
        raise InvalidRequestError(f"{name}: expected a number of at least 1, came {env.get(name)!r}.")
    return value


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
