"""What is sent to /invocations: a caller's file, or a request that segserve's own models answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segserve import imaging
from segserve.catalog import CATALOG
from segserve.conformance.wire import UnansweredError, Wire

JSON = "application/json"
_SIDE = 64


@dataclass(frozen=True)
class Payload:
    """A request that the container answers with 200.

    Attributes:
        body: its bytes.
        content_type: what they are.
        accept: the answer's media type that is asked for; empty: none is.
        headers: others to send, as they are (X-Amzn-SageMaker-Custom-Attributes).
    """

    body: bytes
    content_type: str = JSON
    accept: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_json(self) -> bool:
        """Whether the body is JSON, which may be padded with blanks and is broken when cut off."""
        return self.content_type.partition(";")[0].strip().lower().endswith("json")

    def all_headers(self) -> dict[str, str]:
        """The headers of its request, but for the length."""
        accept = {"Accept": self.accept} if self.accept else {}
        return {"Content-Type": self.content_type, **accept, **self.headers}

    def padded(self, size: int) -> bytes:
        """The body, as long as asked: JSON stays what it is, of another format zeros follow."""
        return self.body + (b" " if self.is_json else b"\0") * max(0, size - len(self.body))

    def cut(self) -> bytes:
        """The first half of the body."""
        return self.body[: len(self.body) // 2]


@dataclass(frozen=True)
class OwnModel:
    """A model that a segserve serves. name: served name; kind: the catalog's, None where it is not known."""

    name: str
    kind: str | None


def picture() -> bytes:
    """A small PNG: a light square on a dark ground."""
    pixels = np.full((_SIDE, _SIDE, 3), 40, np.uint8)
    pixels[_SIDE // 4 : -_SIDE // 4, _SIDE // 4 : -_SIDE // 4] = 220
    return imaging.encode(pixels)


def prompt_of(kind: str | None) -> dict[str, Any]:
    """A prompt that a model of the catalog takes."""
    entry = CATALOG.get(kind or "")
    if entry is None or "text" in entry.required:
        return {"text": "square"}
    if "points" in entry.required:
        return {"points": [[_SIDE // 2, _SIDE // 2, 1]]}
    return {}


def own_request(model: OwnModel, **fields: Any) -> Payload:
    """A native request for a model of segserve's."""
    source = {"base64": base64.b64encode(picture()).decode("ascii")}
    request = {"model": model.name, "images": [source], "prompt": prompt_of(model.kind), **fields}
    return Payload(json.dumps(request).encode(), accept=JSON)


def own_targeted_request(model: OwnModel) -> Payload:
    """A native request that names no model."""
    named = json.loads(own_request(model).body)
    return Payload(json.dumps({key: value for key, value in named.items() if key != "model"}).encode(), accept=JSON)


def own_raw_request(model: OwnModel) -> Payload | None:
    """A picture as it is, with the model and its prompt in the custom attributes; None if it needs points."""
    prompt = prompt_of(model.kind)
    if "points" in prompt:
        return None
    attributes = ";".join([f"model={model.name}", *(f"{name}={value}" for name, value in prompt.items())])
    return Payload(picture(), "image/png", JSON, {"X-Amzn-SageMaker-Custom-Attributes": attributes})


def is_segserve(wire: Wire) -> bool:
    """Whether a segserve answers there."""
    try:
        answer = wire.ask("GET", "/openapi.json")
        return answer.status == 200 and answer.json()["info"]["title"] == "segserve"
    except (UnansweredError, ValueError, LookupError, TypeError):
        return False


def own_models(wire: Wire) -> list[OwnModel]:
    """The models that a segserve has ready, those first that a picture alone can be sent to."""
    try:
        answer = wire.ask("GET", "/v1/models")
        models = answer.json()["models"] if answer.status == 200 else []
        ready = [OwnModel(model["name"], model.get("kind")) for model in models if model.get("ready")]
    except (UnansweredError, ValueError, LookupError, TypeError):
        return []
    return sorted(ready, key=lambda model: "points" in prompt_of(model.kind))
