"""Reading one request of a batch, in each of the forms that a worker accepts.

TorchServe hands over a dict: the fields of a multipart body by name, or the whole body as ``body``. Query parameters
do not reach a worker, which is why a raw image brings its prompt in a header.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segserve.errors import InvalidRequestError
from segserve.schema import Strict, WorkerPrompt, parse, parse_json

PROMPT_HEADER = "x-segserve-prompt"

_FORMS = (
    "Send multipart fields image (file) and prompt (JSON); or the image itself as body with the JSON prompt in the "
    'header X-Segserve-Prompt; or the JSON body {"image": "<base64>", "prompt": {"text": "sofa."}}.'
)


@dataclass(frozen=True)
class Item:
    """One request: the image file as received, and what is asked about it."""

    image: bytes
    prompt: WorkerPrompt


class _JsonBody(Strict):
    image: str
    prompt: WorkerPrompt = WorkerPrompt()


def read_item(fields: Mapping[str, Any], headers: Mapping[str, Any]) -> Item:
    """The image and prompt of one request.

    Args:
        fields: multipart fields by name, or the body under ``body`` (``data`` where a client named it so).
        headers: the request's headers; their case does not matter.

    Raises:
        InvalidRequestError: none of the forms, broken JSON or base64, or a wrong field; says which.
    """
    if "image" in fields:
        return Item(_bytes_of(fields["image"]), _prompt_of(fields.get("prompt"), "prompt"))
    body = fields.get("body", fields.get("data"))
    if body is None or len(body) == 0:
        raise InvalidRequestError(f"The request has no image. {_FORMS}")
    lower = {name.lower(): value for name, value in headers.items()}
    if _is_json(body, str(lower.get("content-type", ""))):
        return _from_json(body)
    return Item(_bytes_of(body), _prompt_of(lower.get(PROMPT_HEADER), "X-Segserve-Prompt"))


def _is_json(body: Any, content_type: str) -> bool:
    if isinstance(body, dict) or "json" in content_type.lower():
        return True
    # Sent without its content type, JSON is still told apart: no image format begins with a brace.
    return _bytes_of(body)[:64].lstrip()[:1] == b"{"


def _from_json(body: Any) -> Item:
    parsed = parse(_JsonBody, body) if isinstance(body, dict) else parse_json(_JsonBody, _bytes_of(body))
    try:
        image = base64.b64decode("".join(parsed.image.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError("image: expected the image file in base64; it cannot be decoded.") from error
    return Item(image, parsed.prompt)


def _prompt_of(value: Any, where: str) -> WorkerPrompt:
    if value is None:
        return WorkerPrompt()
    if isinstance(value, dict):
        return parse(WorkerPrompt, value, where)
    return parse_json(WorkerPrompt, _bytes_of(value), where)


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise InvalidRequestError(f"The request cannot be read. {_FORMS}")
