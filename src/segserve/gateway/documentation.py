"""The OpenAPI document: what each route takes and answers, its errors included.

Routes read their bodies themselves, since most take several forms, so their documents are written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from segserve.gateway.action_answers import (
    ClickAction,
    ClickActionAnswer,
    NamedAction,
    TextAction,
    TextActionAnswer,
)
from segserve.gateway.area_detection import (
    DetectAllRequest,
    DetectBase64Answer,
    DetectBase64Request,
    DetectByNameRequest,
    DetectFailure,
    DetectFilesAnswer,
    DetectMessage,
)
from segserve.gateway.documented_answers import (
    CategoryList,
    ExecutionParameters,
    LoadedModel,
    LoadedModelList,
    ModelDescription,
    ModelList,
    PredictAnswer,
    Status,
    Up,
)
from segserve.gateway.infer_form import RESULT_TYPES, InferAnswer, InferFailure
from segserve.gateway.model_loading import ModelToLoad
from segserve.gateway.tiling import TilingAnswer, TilingRequest
from segserve.schema import ErrorAnswer, ImageSource, Parameters, SegmentAnswer, SegmentRequest

Docs = dict[str, Any]

_REFERENCE = "#/components/schemas/{model}"


_SCHEMAS: tuple[type[BaseModel], ...] = (
    SegmentRequest,
    SegmentAnswer,
    TilingRequest,
    TilingAnswer,
    DetectBase64Request,
    DetectBase64Answer,
    DetectAllRequest,
    DetectByNameRequest,
    DetectFilesAnswer,
    DetectMessage,
    DetectFailure,
    PredictAnswer,
    InferAnswer,
    InferFailure,
    NamedAction,
    TextAction,
    TextActionAnswer,
    ClickAction,
    ClickActionAnswer,
    Up,
    ErrorAnswer,
    ModelDescription,
    ModelList,
    ModelToLoad,
    LoadedModel,
    LoadedModelList,
    CategoryList,
    Status,
    ExecutionParameters,
)

_ERRORS = {
    400: "The request is not valid: malformed, of the wrong type, or out of range.",
    401: "An API key is asked for, and is missing or wrong.",
    404: "Unknown model, category or file.",
    409: "A model of that name is loaded, or is being loaded or unloaded at this moment.",
    413: "The body, an image or the answer is too large.",
    415: "The bytes are not an image that is read.",
    422: "An image that cannot be decoded, or a prompt that does not fit the model.",
    424: "An image URL could not, or may not, be fetched.",
    429: "The model's queue is full: try again after Retry-After seconds.",
    500: "A bug; the server's log has it under the request id.",
    503: "Not ready, or the worker was lost: try again after Retry-After seconds.",
    504: "No answer in time.",
    507: "The image does not fit into the device's memory; or one more model into the machine's.",
}


def _schema(model: type[BaseModel]) -> Docs:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _json(model: type[BaseModel]) -> Docs:
    return {"application/json": {"schema": _schema(model)}}


def _failures(*statuses: int) -> dict[int | str, Docs]:
    return {status: {"description": _ERRORS[status], "content": _json(ErrorAnswer)} for status in statuses}


def _answers(description: str, content: Mapping[str, Any], *failures: int) -> Docs:
    responses: dict[int | str, Docs] = {200: {"description": description, "content": dict(content)}}
    return {"response_model": None, "responses": responses | _failures(*failures)}


_BINARY: Docs = {"schema": {"type": "string", "format": "binary"}}
_NPY: Docs = {
    "schema": {
        "type": "string",
        "format": "binary",
        "description": "A NumPy file: masks N x H x W bool; of a semantic model the label map h x w uint8 or uint16, "
        "or logits or probabilities C x h x w float32, as the parameter output says.",
    }
}
_ALL_FAILURES = tuple(status for status in _ERRORS if status != 409)


def _parameter(name: str, schema: Docs, description: str, where: str = "query", required: bool = False) -> Docs:
    return {"name": name, "in": where, "required": required, "description": description, "schema": schema}


def _raw_parameters() -> list[Docs]:
    """The query parameters that describe a raw image body."""
    described = [
        _parameter("model", {"type": "string"}, "With a raw image body: the model; see /v1/models."),
        _parameter("text", {"type": "string"}, "With a raw image body: the prompt, e.g. sofa. floor."),
        _parameter("mask_format", {"enum": ["rle", "polygon", "png", "none"]}, "With a raw image body."),
        _parameter(
            "render",
            {"type": "string"},
            "With a raw image body: overlay, cutout, mask, crops (crops: of instances only).",
        ),
    ]
    properties = Parameters.model_json_schema()["properties"]
    return described + [
        _parameter(name, {key: value for key, value in schema.items() if key != "default"}, "With a raw image body.")
        for name, schema in properties.items()
    ]


SEGMENT: Docs = _answers(
    "The results in the order of the images. One that failed has its error in its place, unless it is the only one.",
    {**_json(SegmentAnswer), "image/png": _BINARY, "application/x-npy": _NPY},
    *_ALL_FAILURES,
) | {
    "openapi_extra": {
        "parameters": _raw_parameters(),
        "requestBody": {
            "required": True,
            "content": {
                **_json(SegmentRequest),
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["image"],
                        "properties": {
                            "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
                            "request": {"type": "string", "description": "A SegmentRequest in JSON without images."},
                        },
                    }
                },
                "image/*": _BINARY,
            },
        },
    }
}

INVOCATIONS: Docs = _answers(
    "As asked: a native answer, tiled images, an action's answer, or one file.",
    {
        "application/json": {
            "schema": {
                "anyOf": [
                    _schema(model)
                    for model in (SegmentAnswer, TilingAnswer, TextActionAnswer, ClickActionAnswer, Status)
                ]
            }
        },
        "image/png": _BINARY,
        "application/x-npy": _NPY,
    },
    *_ALL_FAILURES,
) | {
    "openapi_extra": {
        "parameters": [
            _parameter(
                "X-Amzn-SageMaker-Custom-Attributes",
                {"type": "string"},
                "With a raw image body, e.g. model=grounded_sam;text=sofa. floor.;threshold=0.3 or "
                "model=semantic;engine=onnx;output=logits;size=model; or route=GET%20/v1/models: answer as that route",
                where="header",
            ),
            _parameter(
                "X-Amzn-SageMaker-Target-Model",
                {"type": "string"},
                "The model to ask when the body names none: a served name, NAME.mar or NAME.tar.gz.",
                where="header",
            ),
            _parameter(
                "X-Amzn-SageMaker-Session-Id",
                {"type": "string"},
                "NEW_SESSION, or the id of a session that was opened here.",
                where="header",
            ),
            _parameter(
                "X-Amzn-SageMaker-Inference-Id",
                {"type": "string", "maxLength": 64},
                "Logged and returned.",
                where="header",
            ),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"anyOf": [_schema(model) for model in (SegmentRequest, TilingRequest, NamedAction)]}
                },
                "image/*": _BINARY,
                "application/x-image": _BINARY,
            },
        },
    }
}

_PREDICT_OPTIONS: dict[str, tuple[Docs, str]] = {
    "remove_colors": ({"type": "boolean", "default": False}, "Gray out what is not masked."),
    "threshold": ({"type": "number", "minimum": 0, "maximum": 1, "default": 0.5}, "Least score of an instance."),
    "model": ({"type": "string"}, "The served Mask R-CNN to ask, where there are several."),
}

PREDICT: Docs = _answers(
    "The picture with masks, boxes, labels and scores, or the same as JSON.",
    {"image/png": _BINARY, **_json(PredictAnswer)},
    *(status for status in _ALL_FAILURES if status != 424),
) | {
    "openapi_extra": {
        "parameters": [_parameter(name, *described) for name, described in _PREDICT_OPTIONS.items()],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["image"],
                        "properties": {
                            "image": {"type": "string", "format": "binary"},
                            **{
                                name: {**schema, "description": description}
                                for name, (schema, description) in _PREDICT_OPTIONS.items()
                            },
                        },
                    }
                },
                "image/*": _BINARY,
            },
        },
    }
}
PREDICT["responses"][200]["headers"] = {
    f"X-{part}-Percentage": {"description": f"{part} pixels, 0.00 to 100.00", "schema": {"type": "string"}}
    for part in ("Masked", "Unmasked")
}


def _detect(request: type[BaseModel], description: str, answers: Sequence[type[BaseModel]], *absent: int) -> Docs:
    """One of the detect-area routes; absent: the failures that it does not know."""
    body = {"required": True, "content": _json(request)}
    found = {"application/json": {"schema": {"anyOf": [_schema(answer) for answer in answers]}}}
    statuses = [status for status in _ALL_FAILURES if status not in (401, 424, *absent)]
    in_the_seeds_shape: dict[int | str, Docs] = {
        status: {"description": _ERRORS[status], "content": _json(DetectFailure)} for status in statuses
    }
    docs = _answers(description, found, 401)
    return {**docs, "responses": docs["responses"] | in_the_seeds_shape, "openapi_extra": {"requestBody": body}}


_ONE_FOR_EACH = "An entry for each picture, one that failed with its error; a message when there is none."
DETECT_BASE64: Docs = _detect(DetectBase64Request, "What was found.", [DetectBase64Answer])
DETECT_ALL: Docs = _detect(DetectAllRequest, _ONE_FOR_EACH, [DetectFilesAnswer, DetectMessage], 415, 422)
DETECT_BY_NAME: Docs = _detect(DetectByNameRequest, _ONE_FOR_EACH, [DetectFilesAnswer], 415, 422)
DETECT_BY_NAME["responses"][404]["content"]["application/json"]["schema"] = {
    "anyOf": [_schema(DetectMessage), _schema(DetectFailure)]
}
API: Docs = _answers("Up.", {"text/html": {"schema": {"type": "string"}}, **_json(Up)}, 401)


def _infer(field: str, image: Docs, *encodings: str) -> Docs:
    """One of seed 004's routes; field: the one of the image, which image describes."""
    form: Docs = {
        "type": "object",
        "required": ["infer_model_type", field],
        "properties": {
            "infer_model_type": {"enum": ["torch", "onnx"], "description": "The engine that computes."},
            "requested_results_types": {
                "type": "array",
                "items": {"enum": list(RESULT_TYPES)},
                "description": "Repeated; all three where it is left out.",
            },
            field: image,
        },
    }
    failures: dict[int | str, Docs] = {
        status: {"description": _ERRORS[status], "content": _json(InferFailure)}
        for status in (401, 404, 413, 429, 500, 503, 504, 507)
    }
    failures[401]["description"] = (
        "A value of the request is not valid, or an API key is missing or wrong: see the code."
    )
    failures[413]["description"] = "The body is too large."
    docs = _answers("The results that were asked for, at the size of the model's input.", _json(InferAnswer))
    body = {"required": True, "content": {encoding: {"schema": form} for encoding in encodings}}
    return {**docs, "responses": docs["responses"] | failures, "openapi_extra": {"requestBody": body}}


_MULTIPART = "multipart/form-data"
INFER_URL: Docs = _infer(
    "url_image",
    {"type": "string", "description": "The address of the image, http or https."},
    "application/x-www-form-urlencoded",
    _MULTIPART,
)
INFER_FILE: Docs = _infer("file", {"type": "string", "format": "binary"}, _MULTIPART)


def _action(fields: type[BaseModel], answer: type[BaseModel], description: str) -> Docs:
    """One of seed 002's forms."""
    body = {encoding: {"schema": _schema(fields)} for encoding in ("application/x-www-form-urlencoded", _MULTIPART)}
    docs = _answers(description, _json(answer), *_ALL_FAILURES)
    return {**docs, "openapi_extra": {"requestBody": {"required": True, "content": body}}}


SEGMENT_LANGSAM: Docs = _action(TextAction, TextActionAnswer, "What was found, or the picture and an error.")
SEGMENT_SAM2: Docs = _action(ClickAction, ClickActionAnswer, "The best mask.")
HEALTHCHECK: Docs = _answers("Up.", _json(Status), 401)

MODELS: Docs = _answers("All models.", _json(ModelList), 401)
MODEL: Docs = _answers("One model.", _json(ModelDescription), 401, 404)
_NUMBER: Docs = {"type": "integer", "minimum": 0, "maximum": 64}
SCALE: Docs = _answers("The model, scaled.", _json(ModelDescription), 400, 401, 404, 500, 503, 504) | {
    "openapi_extra": {
        "parameters": [
            _parameter("min_workers", _NUMBER, "At least so many workers; 0 ends all of them.", required=True),
            _parameter("max_workers", _NUMBER, "At most so many; default: as min_workers."),
        ]
    }
}
LOAD_MODEL: Docs = _answers("Loaded, and ready.", _json(LoadedModel), 400, 401, 409, 500, 503, 504, 507) | {
    "openapi_extra": {"requestBody": {"required": True, "content": _json(ModelToLoad)}}
}
LOADED_MODELS: Docs = _answers("One page of the models.", _json(LoadedModelList), 400, 401) | {
    "openapi_extra": {
        "parameters": [
            _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "Models a page."),
            _parameter("next_page_token", {"type": "string"}, "Of the page before: its nextPageToken."),
        ]
    }
}
LOADED_MODEL: Docs = _answers("The model.", _json(LoadedModel), 401, 404)
UNLOAD_MODEL: Docs = _answers("Unloaded.", _json(LoadedModel), 401, 404, 409, 500, 503, 504)
INVOKE_MODEL: Docs = INVOCATIONS
_RUNTIME_BODY: Docs = {"openapi_extra": {"requestBody": {"required": True, "content": {"*/*": _BINARY}}}}
_RUNTIME_FAILURES: dict[int | str, Docs] = {
    400: {"description": "ValidationError: the name, or the size of the body."},
    424: {"description": "ModelError: what the container answered with 4xx or 5xx, as OriginalMessage."},
}
INVOKE_ENDPOINT: Docs = _answers("What /invocations answers.", {"*/*": _BINARY}) | _RUNTIME_BODY
INVOKE_ENDPOINT["responses"].update(_RUNTIME_FAILURES)
INVOKE_ENDPOINT_STREAM: Docs = (
    _answers("What /invocations answers, as an event stream.", {"application/vnd.amazon.eventstream": _BINARY})
    | _RUNTIME_BODY
)
INVOKE_ENDPOINT_STREAM["responses"].update(_RUNTIME_FAILURES)
LIVEZ: Docs = _answers("Up.", _json(Status))
READYZ: Docs = _answers("Ready.", _json(Status), 503)
PING: Docs = _answers("Ready.", {**_json(Status), "text/plain": {"schema": {"type": "string"}}}, 503)
EXECUTION_PARAMETERS: Docs = _answers("Parameters for batch transform.", _json(ExecutionParameters), 401)
METRICS: Docs = _answers("Prometheus text format.", {"text/plain": {"schema": {"type": "string"}}}, 401)
OPENAPI: Docs = _answers("This document.", {"application/json": {"schema": {"type": "object"}}}, 401)
WEB_PAGE: Docs = _answers("The page.", {"text/html": {"schema": {"type": "string"}}})
CATEGORIES: Docs = _answers("The categories.", _json(CategoryList), 401)
PICTURE: Docs = _answers("The image.", {"image/*": _BINARY}, 400, 401, 413, 415, 422, 424, 504) | {
    "openapi_extra": {"requestBody": {"required": True, "content": _json(ImageSource)}}
}
PAGE: Docs = _answers("A page for people.", {"text/html": {"schema": {"type": "string"}}}, 401)


def install(app: FastAPI) -> None:
    """Let app.openapi() give the whole document, made once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, schemas = models_json_schema([(model, "validation") for model in _SCHEMAS], ref_template=_REFERENCE)
    components = document.setdefault("components", {})
    components["schemas"] = {**components.get("schemas", {}), **schemas["$defs"]}
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    # The empty alternative: without SEGSERVE_API_KEYS no key is asked for.
    document["security"] = [{}, {"bearer": []}, {"header": []}]
    return document
