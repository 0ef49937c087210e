"""A client of TorchServe's management API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import requests

from segserve.config import TorchServeAddress
from segserve.errors import (
    InternalError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    UnauthorizedError,
    error_from_status,
)

TokenKind = Literal["management", "inference", "API"]


@dataclass(frozen=True)
class WorkerStatus:
    """One worker process. status: ``READY`` once it has loaded its model; memory in bytes; gpu: runs on one."""

    id: str
    status: str
    pid: int
    gpu: bool
    memory: int


@dataclass(frozen=True)
class ModelStatus:
    """One registered model and its workers. queued: requests that wait for one."""

    name: str
    version: str
    min_workers: int
    max_workers: int
    batch_size: int
    batch_delay_ms: int
    workers: tuple[WorkerStatus, ...]
    queued: int = 0

    @property
    def ready_workers(self) -> int:
        """Workers that have loaded the model, and with it answered the handler's own warm-up."""
        return sum(worker.status == "READY" for worker in self.workers)

    @property
    def ready(self) -> bool:
        """Whether at least one worker can answer."""
        return self.ready_workers > 0


class Management:
    """Lists, describes and scales models.

    Every method raises NotReadyError when TorchServe cannot be reached, UnauthorizedError when it refuses the token,
    and NotFoundError for a model that it does not have.
    """

    def __init__(self, address: TorchServeAddress, *, timeout_s: float = 10.0) -> None:
        self.address = address
        self.timeout_s = timeout_s

    def list(self) -> list[str]:
        """Names of the registered models."""
        names: list[str] = []
        page: str | None = None
        while True:
            answer = self._call("GET", "/models", {"limit": 100, **({"next_page_token": page} if page else {})})
            names.extend(str(model["modelName"]) for model in answer["models"])
            page = answer.get("nextPageToken")
            if page is None:
                return names

    def describe(self, name: str) -> ModelStatus:
        """The state of one model (its default version)."""
        answer = self._call("GET", f"/models/{name}")[0]
        workers = tuple(
            WorkerStatus(
                id=str(worker["id"]),
                status=str(worker["status"]),
                pid=int(worker["pid"]),
                gpu=bool(worker["gpu"]),
                memory=int(worker["memoryUsage"]),
            )
            for worker in answer["workers"]
        )
        return ModelStatus(
            name=str(answer["modelName"]),
            version=str(answer["modelVersion"]),
            min_workers=int(answer["minWorkers"]),
            max_workers=int(answer["maxWorkers"]),
            batch_size=int(answer["batchSize"]),
            batch_delay_ms=int(answer["maxBatchDelay"]),
            workers=workers,
            queued=int((answer.get("jobQueueStatus") or {}).get("pendingRequests", 0)),
        )

    def scale(self, name: str, minimum: int, maximum: int, *, wait_s: float = 600.0, wait: bool = True) -> ModelStatus:
        """Keep between minimum and maximum workers; returns once they have loaded, at most after wait_s.

        Without wait it returns at once, and the workers load after. A minimum of 0 ends all workers, whatever the
        maximum: TorchServe starts none by itself.

        Raises:
            InvalidRequestError: not 0 <= minimum <= maximum.
        """
        if not 0 <= minimum <= maximum:
            raise InvalidRequestError(f"Expected 0 <= min <= max, came min {minimum}, max {maximum}.")
        # With min 0 TorchServe forgets all workers and ends only those above max: the others would run on, unseen.
        most = maximum if minimum else 0
        parameters: dict[str, Any] = {"min_worker": minimum, "max_worker": most, "timeout": int(wait_s)}
        parameters["synchronous"] = "true" if wait else "false"
        self._call("PUT", f"/models/{name}", parameters, timeout_s=self.timeout_s + (wait_s if wait else 0))
        return self.describe(name)

    def renew_token(self, kind: Literal["management", "inference"]) -> None:
        """Have TorchServe write a new token into its key file; the old one is void at once."""
        self._call("GET", "/token", {"type": kind}, token="API")

    def _call(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        token: TokenKind = "management",
        timeout_s: float | None = None,
    ) -> Any:
        try:
            answer = requests.request(
                method,
                self.address.management_url + path,
                params=parameters,
                headers=self._headers(token),
                timeout=timeout_s or self.timeout_s,
            )
        except requests.RequestException as error:
            raise NotReadyError("TorchServe does not answer on its management port.") from error
        if not answer.ok:
            raise _translated(answer)
        # The renewal of a token answers with nothing that is JSON, under JSON's content type.
        return answer.json() if answer.text.strip() else None

    def _headers(self, token: TokenKind) -> dict[str, str]:
        if self.address.key_file is None:
            return {}
        return {"Authorization": f"Bearer {read_keys(self.address)[token]['key']}"}


def read_keys(address: TorchServeAddress) -> dict[str, dict[str, str]]:
    """TorchServe's tokens, by kind: ``{"management": {"key", "expiration time"}, "inference": …, "API": {"key"}}``.

    Raises:
        NotReadyError: TorchServe has not written them yet.
    """
    if address.key_file is None:
        return {}
    try:
        keys: dict[str, dict[str, str]] = json.loads(address.key_file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise NotReadyError("TorchServe has not written its tokens yet.") from error
    return keys


def _translated(answer: requests.Response) -> Exception:
    try:
        body = answer.json()
        kind, message = str(body["type"]), str(body["message"])
    except (ValueError, KeyError, TypeError):
        kind, message = "", answer.text[:200]
    if kind == "InvalidKeyException":
        return UnauthorizedError("TorchServe refuses the token.")
    if answer.status_code == 404:
        return NotFoundError(message)
    if answer.status_code >= 500:
        return InternalError(f"TorchServe: {message}")
    return error_from_status(answer.status_code, message)
