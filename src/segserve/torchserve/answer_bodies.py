"""What a worker answers for one picture: JSON, or a NumPy file where scores of every pixel are asked for."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np

from segserve import label_maps, mask_logits
from segserve.errors import TooLargeError
from segserve.models.segmentation import Instance, LabelMap, Segmentation
from segserve.torchserve.configuration import MAX_RESPONSE_BYTES

JSON = "application/json"
NPY = "application/x-npy"


def encode(result: Segmentation | LabelMap, limit: int = MAX_RESPONSE_BYTES) -> tuple[bytes, str]:
    """Body and content type: JSON of schema.WorkerResult, of a label map, or a NumPy file of its scores.

    Args:
        limit: most bytes of the body. TorchServe takes a larger one for a broken connection, and ends the worker.

    Raises:
        TooLargeError: the body is larger.
    """
    if isinstance(result, LabelMap):
        body, content_type = (_label_map(result), JSON) if result.scores is None else (_npy(result.scores, limit), NPY)
    else:
        body, content_type = _instances(result), JSON
    _check_size(len(body), limit)
    return body, content_type


def _instances(result: Segmentation) -> bytes:
    instances = [_instance(instance) for instance in result.instances]
    return _json({"width": result.width, "height": result.height, "instances": instances})


def _instance(instance: Instance) -> dict[str, Any]:
    body: dict[str, Any] = {
        "label": instance.label,
        "score": round(instance.score, 4),
        "box": [round(value, 2) for value in instance.box],
        "area": instance.area,
        "mask": instance.rle,
    }
    if instance.object is not None:
        body["object"] = instance.object
    if instance.low_res is not None:
        body["low_res"] = mask_logits.to_text(instance.low_res)
    return body


def _label_map(result: LabelMap) -> bytes:
    """The labels go as a gray PNG of 8 or 16 bits: a value of the picture is the index of a class."""
    return _json(
        {
            "width": result.width,
            "height": result.height,
            "classes": list(result.classes),
            "label_map": base64.b64encode(label_maps.encode_png(result.labels)).decode("ascii"),
            "pixel_fraction": {label: round(share, 6) for label, share in result.pixel_fraction().items()},
        }
    )


def _npy(scores: np.ndarray[Any, np.dtype[np.float32]], limit: int) -> bytes:
    # Before the copy: the scores may be all that fits into the memory.
    _check_size(scores.nbytes, limit)
    stream = io.BytesIO()
    np.save(stream, scores, allow_pickle=False)
    return stream.getvalue()


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLargeError(
            f"The answer would have {size:,} bytes; at most {limit:,} are possible. Ask for less of it, e.g. "
            'parameters.output "label_map" instead of scores, or parameters.size "model".',
            code="answer_too_large",
        )
