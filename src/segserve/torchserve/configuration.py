"""TorchServe's ``config.properties``: reading, writing, and the values that segserve sets.

Precedence in TorchServe 0.12: a key in the archive's own yaml (``batchSize``, ``minWorkers``, …) wins over the
``models`` entry of config.properties, which wins over the defaults. segserve's archives therefore leave those keys
out and describe profiles instead, from which ``segserve serve`` fills the ``models`` entry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segserve.errors import InvalidRequestError

TOKEN_MINUTES = 10 * 365 * 24 * 60
"""Life of TorchServe's tokens: ten years. Its default of 60 minutes would lock the gateway out after an hour, and its
largest value is 2^31 / 60 minutes, since it counts the seconds in 32 bits."""

MAX_TOKEN_MINUTES = (2**31 - 1) // 60

MAX_RESPONSE_BYTES = 192 * 2**20
"""Of one answer. The scores of 150 classes, as ADE20K has them, at 512 x 512 pixels take 150 MiB."""


@dataclass(frozen=True)
class Ports:
    """The five ports of one TorchServe, all on loopback."""

    inference: int = 8085
    management: int = 8081
    metrics: int = 8082
    grpc_inference: int = 7070
    grpc_management: int = 7071


@dataclass(frozen=True)
class ServedModel:
    """One archive and how TorchServe runs it.

    Attributes:
        name: the model's name in the API.
        version: the archive's version.
        archive: the archive's file name within the model store.
        workers: processes that hold the model from the start, at least 1.
        max_workers: as many as scaling may reach without a new limit.
        batch_size: most images that one worker takes at once.
        batch_delay_ms: how long a worker waits for a batch to fill.
        response_timeout_s: a worker that answers later than this is killed and started anew.
        startup_timeout_s: a worker must have loaded its model within this time.
    """

    name: str
    version: str
    archive: str
    workers: int
    max_workers: int
    batch_size: int = 1
    batch_delay_ms: int = 1
    response_timeout_s: int = 120
    startup_timeout_s: int = 600


@dataclass(frozen=True)
class ServerOptions:
    """What holds for the whole TorchServe.

    Attributes:
        token_minutes: life of the tokens, see TOKEN_MINUTES.
        token_check: whether callers need a token at all.
        gpus: devices that workers are spread over; None: all there are, 0: none.
        model_api: whether models may be registered and removed while it runs.
    """

    token_minutes: int = TOKEN_MINUTES
    token_check: bool = True
    gpus: int | None = None
    model_api: bool = False


def server_properties(
    model_store: Path,
    models: Sequence[ServedModel],
    ports: Ports,
    options: ServerOptions | None = None,
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """All settings of one TorchServe, as config.properties spells them.

    given, e.g. an operator's own config.properties, replaces segserve's defaults, but neither what binds ports and
    checks tokens nor what decides which archives are loaded, and from where.
    """
    options = options or ServerOptions()
    return {**DEFAULTS, **(given or {}), **_owned(model_store, models, ports, options)}


DEFAULTS: dict[str, str] = {
    # A JSON body with an image in base64 is a third larger than the image.
    "max_request_size": str(40 * 2**20),
    "max_response_size": str(MAX_RESPONSE_BYTES),
    "job_queue_size": "100",
    "default_response_timeout": "120",
    "default_startup_timeout": "600",
    "default_workers_per_model": "1",
    "number_of_netty_threads": "2",
    "netty_client_threads": "2",
    "decode_input_request": "false",
    "install_py_dep_per_model": "false",
    "metrics_mode": "prometheus",
    "disable_system_metrics": "true",
    "vmargs": "-Xms64m -XX:MaxRAMPercentage=25 -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError",
}
"""What segserve sets unless a config.properties says otherwise."""


def _owned(model_store: Path, models: Sequence[ServedModel], ports: Ports, options: ServerOptions) -> dict[str, str]:
    properties = {
        "inference_address": f"http://127.0.0.1:{ports.inference}",
        "management_address": f"http://127.0.0.1:{ports.management}",
        "metrics_address": f"http://127.0.0.1:{ports.metrics}",
        "grpc_inference_address": "127.0.0.1",
        "grpc_management_address": "127.0.0.1",
        "grpc_inference_port": str(ports.grpc_inference),
        "grpc_management_port": str(ports.grpc_management),
        "model_store": str(model_store),
        "load_models": ",".join(f"{model.name}={model.archive}" for model in models),
        "models": models_entry(models),
        # A pattern that no URL matches: archives come from the model store only.
        "allowed_urls": "segserve-model-store-only",
        "disable_token_authorization": _flag(not options.token_check),
        "token_expiration_min": str(options.token_minutes),
        "enable_model_api": _flag(options.model_api),
        "enable_envvars_config": "false",
    }
    if options.gpus is not None:
        properties["number_of_gpu"] = str(options.gpus)
    return properties


def models_entry(models: Sequence[ServedModel]) -> str:
    """The ``models`` value: JSON of name → version → settings."""
    return json.dumps(
        {
            model.name: {
                model.version: {
                    "defaultVersion": True,
                    "marName": model.archive,
                    "minWorkers": model.workers,
                    "maxWorkers": max(model.workers, model.max_workers),
                    "batchSize": model.batch_size,
                    "maxBatchDelay": model.batch_delay_ms,
                    "responseTimeout": model.response_timeout_s,
                    "startupTimeout": model.startup_timeout_s,
                }
            }
            for model in models
        }
    )


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a Java properties file; backslashes and line breaks in values are escaped."""
    lines = [f"{key}={_escape(value)}" for key, value in properties.items()]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def read_properties(path: Path) -> dict[str, str]:
    """The settings of a Java properties file: comments dropped, continued lines joined, escapes undone.

    Raises:
        InvalidRequestError: a line without ``=``; names its number.
    """
    properties: dict[str, str] = {}
    pending = ""
    for number, raw in enumerate(path.read_text("utf-8").splitlines(), 1):
        line = pending + raw.strip()
        if not pending and (not line or line[0] in "#!"):
            continue
        if re.search(r"(?<!\\)(\\\\)*\\$", line):
            pending = line[:-1]
            continue
        pending = ""
        key, separator, value = line.partition("=")
        if not separator:
            raise InvalidRequestError(f"{path.name}, line {number}: expected name=value, came {raw.strip()!r}.")
        properties[key.strip()] = _unescape(value.strip())
    return properties


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")


def _unescape(value: str) -> str:
    letters = {"n": "\n", "r": "\r", "t": "\t"}
    return re.sub(r"\\(.)", lambda match: letters.get(match[1], match[1]), value)


def _flag(value: bool) -> str:
    return "true" if value else "false"
