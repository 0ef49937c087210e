"""The Python client of a segserve gateway: requests in, typed results with mask arrays out. No torch.

from segserve.client import Client

with Client("http://127.0.0.1:8080") as client:
    result = client.segment("photo.jpg", text="red chair. floor.")
    for instance in result.instances:
        print(instance.label, instance.score, instance.box, instance.mask.sum())
    result.save_overlay("overlay.png")
    balloons = client.segment("photo.jpg", model="balloons", score_threshold=0.5)  # a model of fixed classes
    chair = client.segment("photo.jpg", model="sam2", points=[(420, 310, 1), (440, 380, 0)])  # clicks, or boxes=[…]
    rooms = client.segment("photo.jpg", model="semantic")  # a class for every pixel
    print(rooms.pixel_fraction, rooms.label_map.shape, rooms.classes)
"""

from __future__ import annotations

import base64
import io
import json
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import requests
from numpy.typing import NDArray
from PIL import Image

from segserve.errors import (
    InternalError,
    NotReadyError,
    RequestError,
    SegserveError,
    ServiceError,
    TimedOutError,
    UnreachableError,
    error_from_status,
)
from segserve.imaging import encode
from segserve.mask_logits import to_text
from segserve.results import Instance, Result, Tiled, error_of, outcome_of
from segserve.schema import MAX_IMAGES

__all__ = ["Client", "ImageInput", "Instance", "Result", "Retries", "Tiled"]

ImageInput = str | Path | bytes | NDArray[np.uint8] | Image.Image
"""A path, encoded bytes, an RGB array H x W x 3 uint8, a Pillow image, or an http(s):// or s3:// address.

Addresses are sent as they are: the server fetches them.
"""

_MAX_REQUEST_BYTES = 20 * 2**20
_RETRIED_STATUSES = (429, 503)
_STATUSES_OF_AN_IMAGE = (400, 413, 415, 422, 424)


@dataclass(frozen=True)
class Retries:
    """When to ask again: no connection, a queue that is full (429), a service that is not ready (503).

    Segmenting changes nothing on the server, so asking twice is safe. What timed out (504, or no answer within the
    client's own timeout) is not asked again: the server may still be busy with it.

    Attributes:
        attempts: requests in all, at least 1.
        first_delay_s: pause before the second; doubled each time, with up to 50 % of chance added.
        max_delay_s: longest pause, also when the server's Retry-After asks for more.
    """

    attempts: int = 4
    first_delay_s: float = 0.25
    max_delay_s: float = 10.0

    def delay(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after the given attempt (0 is the first)."""
        backoff = self.first_delay_s * 2.0**attempt * random.uniform(1, 1.5)
        return min(max(backoff, retry_after or 0.0), self.max_delay_s)


@dataclass(frozen=True)
class _Source:
    """One image as it is sent: an address, or bytes."""

    address: str | None = None
    data: bytes | None = None

    def as_json(self) -> dict[str, str]:
        if self.data is not None:
            return {"base64": base64.b64encode(self.data).decode("ascii")}
        address = self.address or ""
        return {"s3" if address.startswith("s3://") else "url": address}


class Client:
    """Talks to one gateway over kept-alive connections. Use one client for each thread.

    Args:
        url: the gateway's address.
        api_key: sent as ``X-API-Key``.
        timeout: seconds to wait for an answer (5 at most to connect).
        retries: when to ask again.

    Every method raises the error of the segserve.errors tree that the server's answer stands for, with its
    ``request_id``; UnreachableError without a server, TimedOutError without an answer in time.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        api_key: str | None = None,
        timeout: float = 65.0,
        retries: Retries | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.timeout = (min(5.0, timeout), timeout)
        self.retries = retries or Retries()
        self._session = requests.Session()
        # A proxy that the environment names cannot reach the server on this machine.
        self._session.trust_env = not _is_loopback(self.url)
        if api_key is not None:
            self._session.headers["X-API-Key"] = api_key

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()

    def segment(
        self,
        image: ImageInput,
        text: str | None = None,
        *,
        model: str | None = None,
        points: Sequence[Sequence[float]] | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        objects: Sequence[Mapping[str, Any]] | None = None,
        render: Sequence[str] = (),
        **parameters: Any,
    ) -> Result:
        """Find and outline objects in one image, or with a semantic model, tell the class of every pixel.

        Args:
            text: phrases separated by full stops, e.g. ``"sofa. red chair."``, for a model that takes text.
            model: the name under which it is served, see models(); None leaves the choice to the server.
            points: ``(x, y, 1 foreground | 0 background)`` in pixels, all about one object.
            boxes: ``(x0, y0, x1, y1)`` in pixels, each about an object of its own.
            objects: several objects, each with ``points``, a ``box``, a ``mask`` (an instance's low_res, or logits of
                the same shape), or more than one of them, e.g. ``{"box": (10, 10, 90, 70), "points": [(20, 30, 0)]}``.
            render: pictures to be drawn by the server: overlay, cutout, mask, crops.
            parameters: the model's own, e.g. ``box_threshold=0.4``, of mask_rcnn ``score_threshold=0.5``, of semantic
                ``engine="onnx"``; None means the server's default.
        """
        outcome = self.segment_many(
            [image], text, model=model, points=points, boxes=boxes, objects=objects, render=render, **parameters
        )[0]
        if isinstance(outcome, SegserveError):
            raise outcome
        return outcome

    def segment_many(
        self,
        images: Sequence[ImageInput],
        text: str | Sequence[str] | None = None,
        *,
        model: str | None = None,
        points: Sequence[Sequence[float]] | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        objects: Sequence[Mapping[str, Any]] | None = None,
        render: Sequence[str] = (),
        **parameters: Any,
    ) -> list[Result | SegserveError]:
        """As segment, for many images: a result, or its error, for each, in their order.

        One bad image does not fail the others. text may be a list with one prompt for each image. The images go out
        in as few requests as the server's limits allow.
        """
        if not isinstance(text, str | None) and len(text) != len(images):
            raise ValueError(f"{len(images)} images need as many texts, came {len(text)}")
        given = {"points": points, "boxes": boxes, "objects": objects}
        fixed = {key: _plain(value) for key, value in given.items() if value is not None}
        prompts = [
            {**({} if one is None else {"text": one}), **fixed}
            for one in ([text] * len(images) if isinstance(text, str | None) else text)
        ]
        body: dict[str, Any] = {
            **({} if model is None else {"model": model}),
            "parameters": {key: value for key, value in parameters.items() if value is not None},
            "render": list(render),
        }
        outcomes: list[Result | SegserveError] = []
        sources = [_source(image) for image in images]
        for part in _portions(sources):
            body["prompt"] = prompts[part] if len(sources[part]) > 1 else prompts[part][0]
            outcomes += self._segment_portion(sources[part], body)
        return outcomes

    def tile(
        self,
        category: str,
        images: Sequence[ImageInput],
        *,
        room: str | None = None,
        product: ImageInput | None = None,
    ) -> list[Tiled | SegserveError]:
        """Lay a product over what the server's catalog names for the category: one picture, or error, for each image.

        Args:
            category: of the catalog, e.g. ``"Flooring"``.
            room: of the catalog, where the category has another product for it.
            product: image to use instead of the catalog's.
        """
        body: dict[str, Any] = {
            "categoryname": category,
            "images": [{**_source(image).as_json(), "_id": str(index)} for index, image in enumerate(images)],
        }
        if room is not None:
            body["roomName"] = room
        if product is not None:
            body["product_image"] = _source(product).as_json()
        answer = self._ask("POST", "/invocations", json=body)
        failed = {str(item.get("_id")): item for item in answer.get("errors") or ()}
        return [
            error_of(failed.get(str(index), {})) if encoded is None else Tiled(base64.b64decode(encoded))
            for index, encoded in enumerate(answer["processed_images"])
        ]

    def models(self) -> list[dict[str, Any]]:
        """What the server serves: name, kind, classes, version, whether it is ready, workers and more of each model."""
        answer = self._ask("GET", "/v1/models")
        listed = answer["models"] if isinstance(answer, dict) else answer
        return list(listed)

    def scale(self, model: str, minimum: int, maximum: int) -> dict[str, Any]:
        """Set how many workers a model has; returns what the server then says of it. Needs the admin key as api_key.

        Raises:
            UnauthorizedError: not the admin key, or the server has none.
            NotFoundError: no such model.
            InvalidRequestError: impossible numbers.
        """
        numbers = {"min_workers": minimum, "max_workers": maximum}
        described: dict[str, Any] = self._ask("PUT", f"/v1/models/{model}", params=numbers)
        return described

    def load(self, name: str, url: str) -> None:
        """Have the server load an archive under a name; returns when it is ready. Needs the admin key as api_key.

        Args:
            url: a path on the server, within its model store or its folder of models that may be loaded.

        Raises:
            InvalidRequestError: no archive is there, it may not be loaded, or it is broken.
            AlreadyLoadedError: the name is taken.
            NoRoomError: the server has not enough memory.
        """
        # Once: what was asked twice would find the name taken.
        self._ask("POST", "/models", Retries(attempts=1), json={"model_name": name, "url": url})

    def unload(self, name: str) -> None:
        """Have the server unload a model. Needs the admin key as api_key.

        Raises:
            NotFoundError: no such model is loaded.
        """
        self._ask("DELETE", f"/models/{quote(name, safe='')}", Retries(attempts=1))

    def ready(self) -> bool:
        """Whether the server answers and every model it serves is loaded."""
        try:
            self._ask("GET", "/readyz", retries=Retries(attempts=1))
        except (UnreachableError, NotReadyError, TimedOutError):
            return False
        return True

    def wait_until_ready(self, timeout: float = 120.0, pause: float = 0.25) -> None:
        """Return as soon as the server is ready.

        Raises:
            NotReadyError: it was not within timeout seconds; says what was missing last.
        """
        end = time.monotonic() + timeout
        while True:
            try:
                self._ask("GET", "/readyz", retries=Retries(attempts=1))
            except (UnreachableError, NotReadyError, TimedOutError) as error:
                if time.monotonic() + pause > end:
                    raise NotReadyError(f"not ready within {timeout:g} s: {error.message}") from error
                time.sleep(pause)
            else:
                return

    def _segment_portion(self, sources: Sequence[_Source], body: dict[str, Any]) -> list[Result | SegserveError]:
        try:
            if all(source.data is not None for source in sources):
                # As files: base64 would add a third to what is sent.
                files: list[tuple[str, Any]] = [("request", ("request.json", json.dumps(body), "application/json"))]
                files += [("image", (f"image{i}", source.data)) for i, source in enumerate(sources)]
                answer = self._ask("POST", "/v1/segment", files=files)
            else:
                body = {**body, "images": [source.as_json() for source in sources]}
                answer = self._ask("POST", "/v1/segment", json=body)
        except RequestError as error:
            if len(sources) == 1 and error.status in _STATUSES_OF_AN_IMAGE:
                return [error]
            raise
        timings = answer.get("timings_ms", {})
        pairs = zip(answer["results"], sources, strict=True)
        return [outcome_of(item, source.data, timings) for item, source in pairs]

    def _ask(self, method: str, path: str, retries: Retries | None = None, **content: Any) -> Any:
        """The decoded JSON of an answer; asks again as retries say."""
        retries = retries or self.retries
        headers = {"X-Request-Id": uuid.uuid4().hex}
        for attempt in range(retries.attempts):
            last = attempt + 1 == retries.attempts
            try:
                response = self._send(method, path, headers, content)
            except UnreachableError:
                if last:
                    raise
                time.sleep(retries.delay(attempt, None))
                continue
            if response.status_code < 400:
                return _json(response)
            if last or response.status_code not in _RETRIED_STATUSES:
                raise _error_in(response)
            time.sleep(retries.delay(attempt, _seconds(response.headers.get("Retry-After"))))
        raise ValueError("retries.attempts must be at least 1")

    def _send(self, method: str, path: str, headers: dict[str, str], content: dict[str, Any]) -> requests.Response:
        """One request, requests' exceptions translated."""
        try:
            # Headers first, body after: a connection that breaks within an answer is not one that never answered.
            response = self._session.request(
                method,
                self.url + path,
                headers=headers,
                timeout=self.timeout,
                allow_redirects=False,
                stream=True,
                **content,
            )
        except requests.ReadTimeout as error:
            raise TimedOutError(f"No answer from {self.url} within {self.timeout[1]:g} s.") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise UnreachableError(
                f"No segserve answers at {self.url}. Start one with `segserve serve`, or name another with --url."
            ) from error
        except requests.RequestException as error:
            raise RequestError(f"{self.url} cannot be asked: {error}.") from error
        try:
            _ = response.content
        except requests.RequestException as error:
            raise ServiceError(f"The answer of {self.url} broke off.", code="answer_broken") from error
        return response


def _is_loopback(url: str) -> bool:
    try:
        return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    except ValueError:
        # No address at all; asking it says so.
        return False


def _source(image: ImageInput) -> _Source:
    if isinstance(image, str) and image.startswith(("http://", "https://", "s3://")):
        return _Source(address=image)
    if isinstance(image, str | Path):
        return _Source(data=Path(image).read_bytes())
    if isinstance(image, bytes):
        return _Source(data=image)
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        return _Source(data=buffer.getvalue())
    return _Source(data=encode(np.ascontiguousarray(image)))


def _plain(value: Any) -> Any:
    """A prompt's coordinates, or objects, as JSON has them; a mask's logits as text."""
    if isinstance(value, Mapping):
        return {
            key: to_text(one) if key == "mask" and isinstance(one, np.ndarray) else _plain(one)
            for key, one in value.items()
            if one is not None
        }
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value


def _portions(sources: Sequence[_Source]) -> Iterator[slice]:
    """Runs of images that fit into one request each."""
    start = size = 0
    for index, source in enumerate(sources):
        length = len(source.data or b"")
        if index > start and (index - start == MAX_IMAGES or size + length > _MAX_REQUEST_BYTES):
            yield slice(start, index)
            start, size = index, 0
        size += length
    if start < len(sources):
        yield slice(start, len(sources))


def _error_in(response: requests.Response) -> SegserveError:
    """The error that a response stands for; also one that some proxy wrote."""
    request_id = response.headers.get("X-Request-Id")
    try:
        body = response.json()["error"]
        message, code = str(body["message"]), str(body["code"])
    except (requests.JSONDecodeError, KeyError, TypeError):
        message, code = f"{response.url} answered {response.status_code} {response.reason}.", None
    error = error_from_status(response.status_code, message, code)
    error.request_id = request_id
    return error


def _json(response: requests.Response) -> Any:
    try:
        return response.json()
    except requests.JSONDecodeError as error:
        raise InternalError(f"{response.url} answered with something other than JSON: is it segserve?") from error


def _seconds(text: str | None) -> float | None:
    """Retry-After's seconds; None when it is missing or a date."""
    return float(text) if text is not None and text.strip().isdigit() else None
