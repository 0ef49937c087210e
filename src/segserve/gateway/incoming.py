"""From an HTTP request to the native SegmentRequest: JSON, multipart or a raw image body."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from segserve.errors import InvalidRequestError
from segserve.gateway.multipart import decode
from segserve.schema import MAX_IMAGES, ImageSource, Parameters, SegmentRequest, parse, parse_json

_PARAMETERS = tuple(Parameters.model_fields)
_RAW_FIELDS = ("model", "text", "mask_format", "render", *_PARAMETERS)
_PLACEHOLDER = ImageSource()
"""Stands for an image whose bytes came in the body, so that the request's own validation counts it."""


def is_json(content_type: str) -> bool:
    """Whether a Content-Type says JSON."""
    kind = media_type(content_type)
    return kind == "application/json" or kind.endswith("+json")


def is_raw_image(content_type: str) -> bool:
    """Whether a Content-Type says that the body is one image."""
    kind = media_type(content_type)
    return kind.startswith("image/") or kind in ("application/x-image", "application/octet-stream")


def media_type(content_type: str) -> str:
    """The bare type in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def looks_like_json(body: bytes) -> bool:
    """Whether a body without a telling Content-Type is a JSON object (``curl -d`` names a form)."""
    return body[:64].lstrip()[:1] == b"{"


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        InvalidRequestError: empty, no JSON, or JSON of another kind.
    """
    if not body:
        raise InvalidRequestError("The body is empty (0 bytes): expected a JSON object.")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The body is not valid JSON: {_reason(error)}.") from error
    if not isinstance(value, dict):
        raise InvalidRequestError(f"The body must be a JSON object, came {type(value).__name__}.")
    return value


def from_json(body: bytes) -> SegmentRequest:
    """The native request of a JSON body.

    Raises:
        InvalidRequestError: names each wrong field.
    """
    if not body:
        raise InvalidRequestError('The body is empty (0 bytes): expected JSON with "images" and "prompt".')
    return parse_json(SegmentRequest, body)


def from_multipart(content_type: str, body: bytes) -> tuple[SegmentRequest, list[bytes]]:
    """The native request and the images of a form with ``image`` files and an optional ``request`` (JSON).

    Raises:
        InvalidRequestError: a broken form, an unknown field, no image, or images named in the JSON as well.
    """
    images: list[bytes] = []
    request: dict[str, Any] = {}
    for part in decode(content_type, body, max_parts=MAX_IMAGES + 8):
        if part.name == "image":
            images.append(part.data)
        elif part.name == "request":
            request = json_object(part.data)
        else:
            raise InvalidRequestError(
                f"The form field {part.name[:40]!r} is unknown: expected image (files) and request (JSON)."
            )
    if not images:
        raise InvalidRequestError("The form has no image: send at least one file in the field image.")
    if "images" in request:
        raise InvalidRequestError("request.images: leave it out, the images are the form's image files.")
    return parse(SegmentRequest, {**request, "images": [_PLACEHOLDER] * len(images)}, "request"), images


def from_raw(body: bytes, fields: Iterable[tuple[str, str]], where: str) -> SegmentRequest:
    """The native request for a body that is one image, described by text fields (query parameters, say).

    Args:
        body: the image; only whether there is one is looked at.
        fields: names and values; ``render`` may be given more than once, or with commas.
        where: what the fields are, for messages.

    Raises:
        InvalidRequestError: an empty body, an unknown field, one given twice, or a value of the wrong form.
    """
    if not body:
        raise InvalidRequestError("The body is empty (0 bytes): send the bytes of an image file.")
    request: dict[str, Any] = {"images": [_PLACEHOLDER]}
    parameters: dict[str, Any] = {}
    render: list[str] = []
    for name, value in fields:
        if name == "render":
            render += [kind.strip() for kind in value.split(",") if kind.strip()]
            continue
        target, key, kept = _placed(name, value, request, parameters, where)
        if key in target:
            raise InvalidRequestError(f"{where} {name}: given more than once.")
        target[key] = kept
    return parse(SegmentRequest, {**request, "parameters": parameters, "render": render}, where, as_text=True)


def _placed(
    name: str, value: str, request: dict[str, Any], parameters: dict[str, Any], where: str
) -> tuple[dict[str, Any], str, Any]:
    """Where in the request a text field belongs, under which key, and as what."""
    if name == "text":
        return request, "prompt", {"text": value}
    if name in ("model", "mask_format"):
        return request, name, value
    if name in _PARAMETERS:
        return parameters, name, value
    raise InvalidRequestError(f"{where} {name[:40]!r} is unknown: expected {', '.join(_RAW_FIELDS)}.")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return "too deeply nested" if isinstance(error, RecursionError) else "not UTF-8 text"
