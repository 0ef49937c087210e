"""The asynchronous client of TorchServe: one image to a worker, models described and scaled, metrics read.

Everything foreign is translated here, once: TorchServe's error bodies, its full queue, a dead worker, a lost
connection and time-outs become errors of segserve's tree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import httpx2

from segserve.config import TorchServeAddress
from segserve.errors import (
    AlreadyLoadedError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    QueueFullError,
    SegserveError,
    TimedOutError,
    TooLargeError,
    WorkerLostError,
    error_from_status,
)
from segserve.gateway import numpy_files
from segserve.gateway.multipart import Part, encode
from segserve.gateway.tokens import Tokens
from segserve.gateway.worker_headers import WorkerHeaders, read_headers
from segserve.placement import Placement
from segserve.schema import WorkerPrompt

_WORKER_DIED = ("Worker died.", "Worker scaled down.")
_MANAGEMENT_TIMEOUT_S = 2.0
_METRICS_TIMEOUT_S = 1.0
_UNPACKING_TIMEOUT_S = 300.0


class _AskAgainError(Exception):
    """The request may be sent once more: the worker, or the connection, was lost before it answered."""


class _TokenRefusedError(Exception):
    """TorchServe did not accept the token; it may have been renewed."""


def encode_prompt(prompt: WorkerPrompt) -> bytes:
    """The ``prompt`` field for a worker: ASCII JSON of what is set."""
    return json.dumps(prompt.model_dump(mode="json", exclude_none=True), separators=(",", ":")).encode("ascii")


class Workers:
    """TorchServe as the gateway sees it.

    Args:
        address: where it listens, and its key file.
        timeout_s: for one prediction, waiting in the queue included.
        transport: replaces the network, in tests.
        has_workers: what is known of a model's workers; tells a full queue from none at all (TorchServe's
            answers are the same).
        on_retry: called with the model's name when a lost worker's request is sent again.
        on_answer: called with the model's name and the headers of each result that a worker answered.
    """

    def __init__(
        self,
        address: TorchServeAddress,
        timeout_s: float,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        has_workers: Callable[[str], bool] = lambda model: True,
        on_retry: Callable[[str], None] = lambda model: None,
        on_answer: Callable[[str, WorkerHeaders], None] = lambda model, headers: None,
    ) -> None:
        self._tokens = Tokens(address.key_file)
        self._management_url = address.management_url.rstrip("/")
        self._metrics_url = address.metrics_url.rstrip("/")
        # Parsing a URL costs as much as the rest of a request object: each model's is kept.
        predictions = httpx2.URL(address.inference_url.rstrip("/") + "/predictions/")
        self._prediction_url = lru_cache(maxsize=64)(predictions.join)
        self._timeout_s = timeout_s
        self._has_workers = has_workers
        self._on_retry = on_retry
        self._on_answer = on_answer
        # Predictions go through the bare transport: the client around it costs a third of the call's CPU time.
        self._inference = transport or _transport(max_connections=1024, kept=128)
        # Its own connections, so that the state of the models can be asked for under any load.
        self._control = httpx2.AsyncClient(
            transport=transport or _transport(max_connections=8, kept=4), timeout=_MANAGEMENT_TIMEOUT_S, trust_env=False
        )

    async def predict(self, model: str, image: bytes, prompt: bytes) -> dict[str, Any] | bytes:
        """A worker's result for one image: schema.WorkerResult or WorkerLabelMap as decoded from JSON, or the bytes of
        a NumPy file when the prompt asks for logits or probabilities.

        A request whose worker died is sent once more; so is one that was lost with its connection.

        Args:
            model: the archive's name.
            image: the encoded image, passed on as it is.
            prompt: from encode_prompt.

        Raises:
            NotFoundError: TorchServe has no such model.
            NotReadyError: it cannot be reached, or the model has no worker.
            QueueFullError: the model's queue is full.
            WorkerLostError: the worker died, twice.
            TimedOutError: no answer in time.
            SegserveError: what the worker answered for this image.
        """
        content_type, body = encode(
            (
                Part("image", image, filename="image", content_type="application/octet-stream"),
                Part("prompt", prompt, content_type="application/json"),
            )
        )
        try:
            return await self._predict(model, content_type, body)
        except _AskAgainError:
            self._on_retry(model)
        except _TokenRefusedError:
            self._tokens.forget()
        try:
            return await self._predict(model, content_type, body)
        except _AskAgainError as error:
            raise WorkerLostError(
                f"The worker of {model} was lost while it answered, and so was the one that was asked again. "
                "Try again in some seconds."
            ) from error
        except _TokenRefusedError as error:
            raise _refused_token() from error

    async def models(self) -> list[dict[str, Any]]:
        """TorchServe's description of every registered model's default version.

        Raises:
            ServiceError: it cannot be reached, or did not answer in time.
        """
        names: list[str] = []
        page: str | None = ""
        while page is not None:
            listed = await self._manage("GET", "/models", {"limit": "100", "next_page_token": page or "0"})
            names += [str(entry["modelName"]) for entry in listed.get("models", ())]
            page = listed.get("nextPageToken")
        return [await self.model(name) for name in names]

    async def model(self, name: str) -> dict[str, Any]:
        """TorchServe's description of one model.

        Raises:
            NotFoundError: it has no such model.
            ServiceError: as models.
        """
        described = await self._manage("GET", f"/models/{name}", {})
        first: dict[str, Any] = described[0]
        return first

    async def scale(self, name: str, min_workers: int, max_workers: int) -> None:
        """Set how many workers a model has; returns when they are up (or gone). min_workers 0: none, whatever the most.

        Raises:
            NotFoundError: TorchServe has no such model.
            InvalidRequestError: it refuses the numbers.
            ServiceError: as models.
        """
        # With min 0 TorchServe forgets all workers and ends only those above max: the others would run on, unseen.
        most = max_workers if min_workers else 0
        numbers = {"min_worker": str(min_workers), "max_worker": str(most), "synchronous": "true"}
        await self._manage("PUT", f"/models/{name}", numbers, timeout_s=self._timeout_s)

    async def register(self, name: str, placement: Placement) -> None:
        """Have TorchServe load an archive of its model store under a name; returns when its workers are starting.

        Raises:
            AlreadyLoadedError: it has a model of that name.
            NotFoundError: there is no such file in its model store.
            ServiceError: as models.
        """
        asked = {
            "url": placement.file,
            "model_name": name,
            "initial_workers": str(placement.workers),
            "batch_size": str(placement.batch_size),
            "max_batch_delay": str(placement.batch_delay_ms),
            "synchronous": "false",
        }
        # The archive is unpacked before the answer comes.
        await self._manage("POST", "/models", asked, timeout_s=_UNPACKING_TIMEOUT_S, model=name)

    async def unregister(self, name: str) -> None:
        """Have TorchServe end a model's workers and forget it.

        Raises:
            NotFoundError: it has no such model.
            ServiceError: as models.
        """
        await self._manage("DELETE", f"/models/{name}", {}, timeout_s=self._timeout_s)

    async def metrics_text(self) -> str:
        """TorchServe's own metrics in Prometheus' text format; empty when they cannot be had within a second."""
        try:
            response = await self._control.get(f"{self._metrics_url}/metrics", timeout=_METRICS_TIMEOUT_S)
        except httpx2.HTTPError:
            return ""
        return response.text if response.status_code == 200 else ""

    async def aclose(self) -> None:
        """Close all connections."""
        await self._control.aclose()
        await self._inference.aclose()

    async def _predict(self, model: str, content_type: str, body: bytes) -> dict[str, Any] | bytes:
        request = httpx2.Request(
            "POST",
            self._prediction_url(model),
            headers=[("Content-Type", content_type), *self._tokens.headers("inference")],
            content=body,
            extensions={"timeout": _timeouts(self._timeout_s)},
        )
        try:
            response = await self._inference.handle_async_request(request)
            try:
                answer = await response.aread()
            finally:
                await response.aclose()
        except httpx2.HTTPError as error:
            raise _connection_failure(error, model) from error
        if response.status_code != 200:
            raise self._prediction_failure(response.status_code, answer, model)
        self._on_answer(model, read_headers(response.headers))
        if response.headers.get("content-type", "").startswith(numpy_files.MEDIA_TYPE):
            return bytes(answer)
        try:
            result = json.loads(answer)
        except ValueError as error:
            raise InternalError(f"The worker of {model} answered what is not JSON.") from error
        if not isinstance(result, dict) or "width" not in result:
            raise InternalError(f"The worker of {model} answered in an unknown form.")
        return result

    def _prediction_failure(self, status: int, answer: bytes, model: str) -> Exception:
        body = _json_object(answer)
        told = body.get("error")
        if isinstance(told, dict):
            # The handler's own error for this item, in segserve's shape.
            return error_from_status(status, str(told.get("message", "")), str(told.get("code", "")) or None)
        kind, message = str(body.get("type", "")), str(body.get("message", ""))
        if message in _WORKER_DIED:
            return _AskAgainError(message)
        if status == 503 and kind == "ServiceUnavailableException":
            if self._has_workers(model):
                return QueueFullError(f"The queue of {model} is full. Try again in a second.")
            return NotReadyError(f"The model {model} has no worker at present. Try again in some seconds.")
        return _torchserve_failure(status, kind, model)

    async def _manage(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        timeout_s: float = _MANAGEMENT_TIMEOUT_S,
        model: str | None = None,
    ) -> Any:
        model = model or path.rpartition("/")[2]
        for _ in range(2):
            headers = dict(self._tokens.headers("management"))
            try:
                response = await self._control.request(
                    method, self._management_url + path, params=query, headers=headers, timeout=timeout_s
                )
            except httpx2.HTTPError as error:
                failure = _connection_failure(error, "TorchServe")
                raise failure if isinstance(failure, SegserveError) else _unreachable() from error
            if response.status_code < 300:
                return response.json()
            body = _json_object(response.content)
            failure = _torchserve_failure(response.status_code, str(body.get("type", "")), model)
            if not isinstance(failure, _TokenRefusedError):
                raise failure
            self._tokens.forget()
        raise _refused_token()


def _torchserve_failure(status: int, kind: str, model: str) -> Exception:
    """An error of TorchServe's own, by its exception type and status."""
    if kind == "InvalidKeyException":
        return _TokenRefusedError()
    if status == 503 and kind != "ServiceUnavailableException":
        # "Prediction failed": an exception came out of the handler.
        status = 500
    known: dict[int, SegserveError] = {
        400: InvalidRequestError(f"TorchServe refuses the request for {model}."),
        404: NotFoundError(f"The model {model!r} is not loaded.", code="model_not_found"),
        409: AlreadyLoadedError(f"A model {model!r} is loaded already."),
        408: TimedOutError(f"The model {model} did not answer in time."),
        413: TooLargeError("TorchServe accepts no request this large."),
        503: NotReadyError(f"The model {model} has no worker at present. Try again in some seconds."),
        504: TimedOutError(f"The model {model} did not answer in time."),
    }
    return known.get(status) or InternalError(
        f"The model {model} failed on this request (TorchServe: {status} {kind})."
    )


def _connection_failure(error: httpx2.HTTPError, model: str) -> Exception:
    if isinstance(error, httpx2.PoolTimeout):
        return QueueFullError("The gateway has too many requests in flight. Try again in a second.")
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
        return _unreachable()
    if isinstance(error, httpx2.TimeoutException):
        return TimedOutError(f"{model} did not answer in time.")
    return _AskAgainError("the connection was lost")


def _unreachable() -> NotReadyError:
    return NotReadyError("TorchServe cannot be reached: it is starting, or stopped. Try again in some seconds.")


def _refused_token() -> NotReadyError:
    return NotReadyError("TorchServe refuses the gateway's token; it is being renewed. Try again in some seconds.")


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _transport(max_connections: int, kept: int) -> httpx2.AsyncHTTPTransport:
    limits = httpx2.Limits(max_connections=max_connections, max_keepalive_connections=kept, keepalive_expiry=30)
    return httpx2.AsyncHTTPTransport(verify=False, trust_env=False, limits=limits)


def _timeouts(seconds: float) -> dict[str, float]:
    return {"connect": min(5.0, seconds), "read": seconds, "write": seconds, "pool": min(5.0, seconds)}
