"""What seed 004's clients send, and what they are answered: a form with an engine, the results wanted and an image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from pydantic import BaseModel, Field

from segserve.errors import InvalidRequestError
from segserve.gateway.form import read_form
from segserve.gateway.multipart import Part
from segserve.schema import ErrorBody

Engine = Literal["torch", "onnx"]
ImageType = Literal["url", "file"]
IMAGE_FIELDS: dict[ImageType, str] = {"url": "url_image", "file": "file"}
"""The field that holds the image, or says where it is."""

RESULT_TYPES = ("logits", "pixels_distribution", "segmentation_map")
UNSUPPORTED = "result type not supported"
"""Stands in the answer under the name of a result type that is not known."""

_ENGINE_FIELD = "infer_model_type"
_RESULTS_FIELD = "requested_results_types"
_MOST_TYPES = 16
_LONGEST_TYPE = 100
_LONGEST_LIST = 4096

Plane = list[list[float]]


class RequestedResults(BaseModel):
    """Those that were asked for, in that order; an unknown name has the text "result type not supported".

    H x W is the size of the model's input.
    """

    logits: list[Plane] | None = Field(None, description="C x H x W, float32")
    pixels_distribution: list[Plane] | None = Field(None, description="C x H x W: the softmax over the classes")
    segmentation_map: list[list[int]] | None = Field(None, description="H x W: the number of each pixel's class")


class InferAnswer(BaseModel):
    """Seed 004's answer."""

    Status: Literal["OK"]
    infer_model_type: Engine
    image_type: ImageType
    requested_results: RequestedResults


class InferFailure(BaseModel):
    """Seed 004's body of a failed request, and the error object of every other route."""

    detail: str = Field(description='"Fail! Value error: …" with status 401, else "Fail! Error: …"')
    error: ErrorBody


@dataclass(frozen=True)
class InferRequest:
    """A form that was read.

    Attributes:
        engine: which computes.
        results: the wanted result types, known or not, each once.
        image: a file's bytes, or a URL's text.
    """

    engine: Engine
    results: tuple[str, ...]
    image: bytes

    @classmethod
    def read(cls, content_type: str, body: bytes, image_type: ImageType) -> InferRequest:
        """The request in a form. Fields that are not known are ignored, as the seed did.

        Raises:
            InvalidRequestError: no form, a field missing or given twice, or a value that is not allowed.
        """
        parts = read_form(content_type, body)
        engine = _one(parts, _ENGINE_FIELD, "torch or onnx").decode("utf-8", "replace").strip()
        if engine not in get_args(Engine):
            raise InvalidRequestError(f"{_ENGINE_FIELD}: expected torch or onnx, came {engine[:40]!r}.")
        wanted = [part.data.decode("utf-8", "replace") for part in parts if part.name == _RESULTS_FIELD]
        expected = "the address of an image" if image_type == "url" else "an image file"
        image = _one(parts, IMAGE_FIELDS[image_type], expected)
        return cls(cast(Engine, engine), _result_types(wanted), image)


def _one(parts: Sequence[Part], name: str, expected: str) -> bytes:
    found = [part.data for part in parts if part.name == name]
    if len(found) > 1:
        raise InvalidRequestError(f"{name}: expected once, came {len(found)} times.")
    if not found or not found[0].strip():
        came = "it is empty" if found else "the form does not have it"
        raise InvalidRequestError(f"{name}: expected {expected}; {came}.", code="missing_field")
    return found[0]


def _result_types(values: Iterable[str]) -> tuple[str, ...]:
    """The names in the field's values; all result types where there is none.

    The field is repeated; a value may also be a JSON list or names with commas, as some clients send lists.
    """
    names = [name.strip() for value in values for name in _listed(value.strip())]
    wanted = tuple(dict.fromkeys(name for name in names if name)) or RESULT_TYPES
    if len(wanted) > _MOST_TYPES or any(len(name) > _LONGEST_TYPE for name in wanted):
        known = ", ".join(RESULT_TYPES)
        raise InvalidRequestError(f"{_RESULTS_FIELD}: expected some of {known}; came too many names, or too long ones.")
    return wanted


def _listed(value: str) -> list[str]:
    if not value.startswith("["):
        return value.split(",", maxsplit=_MOST_TYPES)
    names: Any = None
    if len(value) <= _LONGEST_LIST:
        try:
            names = json.loads(value)
            "".join(names).encode("utf-8")
        except (ValueError, TypeError, RecursionError):
            names = None
    if not isinstance(names, list):
        raise InvalidRequestError(
            f'{_RESULTS_FIELD}: a value that begins with [ must be a JSON list of names, e.g. ["segmentation_map"]; '
            f"came {value[:60]!r}."
        )
    return names
