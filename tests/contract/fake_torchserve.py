"""A TorchServe of a hundred lines: its wire, its error bodies, its management API. An ASGI app without a framework.

What it answers was recorded from TorchServe 0.12.0. Ports tell its three APIs apart, as in the real one.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import numpy as np

from segserve import imaging
from segserve.errors import SegserveError
from segserve.gateway.multipart import decode
from segserve.masks import encode_rle

Answer = tuple[int, dict[str, Any] | bytes]
"""A status with a body of JSON, or with the bytes of a NumPy file."""

Reaction = Callable[[bytes, dict[str, Any]], Awaitable[Answer] | Answer]

INFERENCE, MANAGEMENT, METRICS = 8085, 8081, 8082


def no_worker(model: str) -> Answer:
    """Also what a full queue looks like: the two are told apart by the number of workers only."""
    text = f'Model "{model}" has no worker to serve inference request. Please use scale workers API to add workers.'
    return 503, {"code": 503, "type": "ServiceUnavailableException", "message": text}


def worker_died() -> Answer:
    return 500, {"code": 500, "type": "InternalServerException", "message": "Worker died."}


def lower_half(data: bytes, prompt: dict[str, Any]) -> Answer:
    """A worker that finds the lower half of every picture, once for each phrase."""
    try:
        picture = imaging.decode(data)
    except SegserveError as error:
        return error.status, {"error": error.to_dict()}
    height, width = picture.shape[:2]
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 2 :] = True
    phrases = [phrase.strip() for phrase in prompt.get("text", "").split(".") if phrase.strip()]
    instances = [
        {
            "label": phrase,
            "score": 0.9,
            "box": [0.0, float(height // 2), float(width), float(height)],
            "area": int(mask.sum()),
            "mask": encode_rle(mask),
        }
        for phrase in phrases
    ]
    return 200, {"width": width, "height": height, "instances": instances}


CLASSES = ("background", "floor", "wall")


def scores_of(height: int, width: int) -> np.ndarray:
    """The logits of striped_classes, 3 x height x width: the class of row y is y * 3 // height, by a margin of 2."""
    labels = np.arange(height) * len(CLASSES) // height
    logits = np.where(np.arange(len(CLASSES))[:, None] == labels, 2.0, 0.0)[..., None]
    # Not the same along a row, so that a transposed answer is noticed.
    return (logits - np.linspace(0, 1, width)).astype(np.float32)


def striped_classes(data: bytes, prompt: dict[str, Any]) -> Answer:
    """A worker of the model semantic: three stripes, from top to bottom background, floor and wall.

    The model's own size is 24 x 32 pixels (height x width).
    """
    try:
        height, width = imaging.decode(data).shape[:2]
    except SegserveError as error:
        return error.status, {"error": error.to_dict()}
    asked = prompt.get("parameters", {})
    shape = (24, 32) if asked.get("size") == "model" else (height, width)
    scores = scores_of(*shape)
    if asked.get("output", "label_map") != "label_map":
        buffer = io.BytesIO()
        powers = np.exp(scores)
        np.save(buffer, scores if asked["output"] == "logits" else powers / powers.sum(axis=0))
        return 200, buffer.getvalue()
    labels = scores.argmax(axis=0).astype(np.uint8)
    fractions = (np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size).tolist()
    return 200, {
        "width": width,
        "height": height,
        "classes": list(CLASSES),
        "label_map": base64.b64encode(imaging.encode(labels)).decode("ascii"),
        "pixel_fraction": {name: share for name, share in zip(CLASSES, fractions, strict=True) if share},
    }


@dataclass
class FakeTorchServe:
    """Set its fields to make it behave; read what it was asked.

    Attributes:
        models: by name, the ``status`` of each worker.
        react: what a worker does with an image and its prompt.
        script: answers given first, one a prediction, before react is asked.
        token: expected as the bearer; None: not checked.
        headers: that a worker sets on its answers, beside the content type.
        archives: files of the model store that it can be told to load, with the ``status`` of their workers.
        registered: the query of each registration.
        pid: of every worker; a new one is what a worker that was started again has.
        pending: how many requests each model's queue is said to hold.
        scaled: the numbers of each scaling request.
        seen: image bytes and prompts that arrived, in order.
        asked: the models that they were for.
        managed: how many management requests came.
        finished: how many predictions were answered.
        most_at_once: the largest number of predictions that were in flight together.
    """

    models: dict[str, list[str]] = field(default_factory=lambda: {"grounded_sam": ["READY"]})
    react: Reaction = lower_half
    script: list[Answer | Exception] = field(default_factory=list)
    token: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    metrics: str = "# TYPE ts_inference_requests_total counter\nts_inference_requests_total 3.0\n"
    delay_s: float = 0.0
    management_delay_s: float = 0.0
    archives: dict[str, list[str]] = field(default_factory=dict)
    registered: list[dict[str, str]] = field(default_factory=list)
    pid: int = 1
    pending: int = 3
    scaled: list[tuple[str, int, int]] = field(default_factory=list)
    seen: list[tuple[bytes, dict[str, Any]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    managed: int = 0
    finished: int = 0
    most_at_once: int = 0
    _running: int = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("the fake speaks HTTP only")
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status, answer = await self._answer(scope, headers, body)
        kind, data = _encoded(answer)
        head = [(b"content-type", kind), (b"content-length", str(len(data)).encode())]
        if scope["path"].startswith("/predictions/"):
            head += [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": data})

    async def _answer(self, scope: dict[str, Any], headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        path: str = scope["path"]
        if path == "/metrics":
            return 200, self.metrics
        if self.token is not None and headers.get("authorization") != f"Bearer {self.token}":
            text = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
            return 400, {"code": 400, "type": "InvalidKeyException", "message": text}
        if path.startswith("/predictions/"):
            return await self._predict(path.rpartition("/")[2], headers, body)
        self.managed += 1
        await asyncio.sleep(self.management_delay_s)
        return self._manage(scope["method"], path, parse_qs(scope["query_string"].decode()))

    async def _predict(self, model: str, headers: dict[str, str], body: bytes) -> Answer:
        if model not in self.models:
            return 404, {"code": 404, "type": "ModelNotFoundException", "message": f"Model not found: {model}"}
        parts = {part.name: part.data for part in decode(headers["content-type"], body)}
        prompt = json.loads(parts["prompt"])
        self.seen.append((parts["image"], prompt))
        self.asked.append(model)
        if self.script:
            scripted = self.script.pop(0)
            if isinstance(scripted, Exception):
                raise scripted
            return scripted
        if not self.models[model]:
            return no_worker(model)
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            await asyncio.sleep(self.delay_s)
            reaction = self.react(parts["image"], prompt)
            answer = reaction if isinstance(reaction, tuple) else await reaction
            self.finished += 1
            return answer
        finally:
            self._running -= 1

    def _manage(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        name = path.removeprefix("/models").strip("/")
        if not name and method == "POST":
            return self._register({key: values[0] for key, values in query.items()})
        if not name:
            start = int(query.get("next_page_token", ["0"])[0])
            page = list(self.models)[start : start + 2]
            listed: dict[str, Any] = {"models": [{"modelName": model, "modelUrl": f"{model}.mar"} for model in page]}
            if start + 2 < len(self.models):
                listed["nextPageToken"] = str(start + 2)
            return 200, listed
        if name not in self.models:
            return 404, {"code": 404, "type": "ModelNotFoundException", "message": f"Model not found: {name}"}
        if method == "DELETE":
            del self.models[name]
            return 200, {"status": f'Model "{name}" unregistered'}
        if method == "PUT":
            numbers = int(query["min_worker"][0]), int(query["max_worker"][0])
            self.scaled.append((name, *numbers))
            self.models[name] = ["READY"] * numbers[0]
            return 200, {"status": f"Workers scaled to {numbers[0]} for model: {name}"}
        workers = [
            {"id": str(9000 + index), "status": status, "gpu": False, "pid": self.pid, "memoryUsage": 0}
            for index, status in enumerate(self.models[name])
        ]
        described = {"modelName": name, "modelVersion": "1.0", "batchSize": 4, "maxBatchDelay": 50, "workers": workers}
        described["jobQueueStatus"] = {"remainingCapacity": 100 - self.pending, "pendingRequests": self.pending}
        return 200, [described]

    def _register(self, query: dict[str, str]) -> tuple[int, Any]:
        self.registered.append(query)
        name, file = query["model_name"], query["url"]
        if name in self.models:
            text = f"Model version 1.0 is already registered for model {name}"
            return 409, {"code": 409, "type": "ConflictStatusException", "message": text}
        if file not in self.archives:
            text = f"Model not found at: {file}"
            return 404, {"code": 404, "type": "ModelNotFoundException", "message": text}
        self.models[name] = self.archives[file]
        return 202, {"status": "Processing worker updates..."}


def _encoded(answer: dict[str, Any] | list[Any] | str | bytes) -> tuple[bytes, bytes]:
    """Content type and body."""
    if isinstance(answer, bytes):
        return b"application/x-npy", answer
    if isinstance(answer, str):
        return b"text/plain", answer.encode()
    return b"application/json", json.dumps(answer).encode()
