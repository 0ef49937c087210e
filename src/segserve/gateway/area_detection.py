"""Seed 001's detection: what its requests say, what its answers hold, and the work between the two.

A picture's answer holds the boxes, the picture drawn on, and each instance cut out of it; all of that also goes into
the folder of detections, where there is one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from segserve import render
from segserve.catalog import MASK_RCNN
from segserve.errors import InvalidRequestError, NotFoundError, SegserveError
from segserve.gateway.detection_folder import DetectionFolder, name_fault
from segserve.gateway.drawing import base64_text, decoded, drawings_of
from segserve.gateway.images import ImageFetcher
from segserve.gateway.segmenting import Found, Job, Load, Segmenter, check_answer
from segserve.gateway.served_models import ServedModels
from segserve.imaging import SUFFIXES, ImageLimits, encode
from segserve.schema import MAX_IMAGES, Base64, ErrorBody, ImageSource, Parameters, SegmentRequest

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_JSON_BYTES_OF_INSTANCE = 300
"""About what an instance takes in an answer beside its picture."""


def _threshold(value: Any) -> float:
    """A number from 0 to 1, or a text that is one, as Flask's clients send from forms."""
    number: float | int | None = None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    if number is None or not 0 <= number <= 1:
        raise PydanticCustomError("threshold", 'expected a number from 0 to 1, e.g. 0.5 or "0.5"')
    return float(number)


def _name(value: str) -> str:
    fault = name_fault(value)
    if fault is not None:
        raise PydanticCustomError("file_name", "{fault}", {"fault": fault})
    return value


Threshold = Annotated[
    float,
    BeforeValidator(_threshold),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "example": "0.5"}]}),
]
FileName = Annotated[str, AfterValidator(_name)]


class _Payload(BaseModel):
    """Fields that the seed's clients send beyond these are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class DetectBase64Request(_Payload):
    """One picture in base64 (a data URL is taken too), and the names of its files.

    Attributes:
        threshold_value: least score of an instance.
        output_image_name: of the drawn picture; its ending decides on the format.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "input_image_name": "my_input_image.png",
                "output_image_name": "my_output_image.png",
                "threshold_value": 0.5,
                "image_string": "iVBORw0KGgo…",
            }
        }
    )

    threshold_value: Threshold
    image_string: Base64
    output_image_name: FileName
    input_image_name: FileName


class DetectAllRequest(_Payload):
    """Every picture of input/images. threshold_value: least score of an instance."""

    model_config = ConfigDict(json_schema_extra={"example": {"threshold_value": 0.5}})

    threshold_value: Threshold


class DetectByNameRequest(_Payload):
    """Pictures of input/images by name. threshold_value: least score of an instance."""

    model_config = ConfigDict(json_schema_extra={"example": {"image_names": ["0.png", "1.png"]}})

    image_names: Annotated[list[FileName], Field(min_length=1, max_length=MAX_IMAGES)]
    threshold_value: Threshold = 0.5


class DetectedAreas(BaseModel):
    """What was found in a picture, by falling score.

    Attributes:
        detected_bounding_boxes: for each instance {"box_0": [x0, y0, x1, y1]} and {"score_0": 0.97}, numbered.
        output_image: the drawn picture, base64.
        partial_images: each instance cut out of the picture, {"partial_image_0": base64 JPEG}.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "detected_bounding_boxes": [[{"box_0": [133.1, 52.9, 152.5, 71.0]}, {"score_0": 0.97}]],
                "output_image": "iVBORw0KGgo…",
                "partial_images": [{"partial_image_0": "/9j/4AAQSkZJRg…"}],
            }
        }
    )

    detected_bounding_boxes: list[tuple[dict[str, tuple[float, float, float, float]], dict[str, float]]]
    output_image: str
    partial_images: list[dict[str, str]]


class DetectedFile(DetectedAreas):
    """What was found in a file of input/images; a file that failed has its name and its error only."""

    model_config = ConfigDict(json_schema_extra={})

    input_image_name: str
    error: ErrorBody | None = None


class SkippedFile(BaseModel):
    """A file of input/images that was passed over. reason: what its name or its kind should be."""

    name: str
    reason: str


class DetectBase64Answer(BaseModel):
    """The answer for one picture."""

    data: DetectedAreas
    status_code: Literal[200]


class DetectFilesAnswer(BaseModel):
    """The answer for files, in the order of their names, or in the order asked. skipped: only where there are some."""

    data: list[DetectedFile]
    status_code: Literal[200]
    skipped: list[SkippedFile] | None = None


class DetectMessage(BaseModel):
    """Why there is nothing to answer: no input files (status 200), or no such image NAME (status 404)."""

    message: str
    skipped: list[SkippedFile] | None = None


class DetectFailure(BaseModel):
    """A failed request in the seed's shape, with segserve's own error object.

    Attributes:
        data: "Wrong payload" with the HTTP status 400.
        status_code: the HTTP status; 500, as the seed has it, when a field is missing (the HTTP status is 400 then).
    """

    data: Literal["Wrong payload"] | None = None
    status_code: int
    error: ErrorBody


@dataclass(frozen=True)
class Detection:
    """What was found in one picture, by falling score.

    Attributes:
        boxes: [x0, y0, x1, y1] in pixels of the upright picture.
        scores: 0..1, one for each box.
        drawn: the picture with everything drawn on it, as a file.
        partials: the content of each box, as JPEG files.
    """

    boxes: list[list[float]]
    scores: list[float]
    drawn: bytes
    partials: list[bytes]

    def to_dict(self) -> dict[str, Any]:
        """As DetectedAreas."""
        return {
            "detected_bounding_boxes": [
                [{f"box_{index}": box}, {f"score_{index}": score}]
                for index, (box, score) in enumerate(zip(self.boxes, self.scores, strict=True))
            ],
            "output_image": base64_text(self.drawn),
            "partial_images": [
                {f"partial_image_{index}": base64_text(data)} for index, data in enumerate(self.partials)
            ],
        }

    def size(self) -> int:
        """About how many bytes its answer has."""
        pictures = sum(4 * (len(data) + 2) // 3 for data in (self.drawn, *self.partials))
        return pictures + _JSON_BYTES_OF_INSTANCE * (len(self.boxes) + 1)


@dataclass(frozen=True)
class AreaDetector:
    """Finds the instances of pictures with the Mask R-CNN that is served. Collaborators are passed in.

    Attributes:
        folder: None: answers only, no files.
        limits: of one image.
        max_answer_bytes: of an answer.
    """

    folder: DetectionFolder | None
    segmenter: Segmenter
    served_models: ServedModels
    fetcher: ImageFetcher
    limits: ImageLimits
    max_answer_bytes: int

    def opened_folder(self) -> DetectionFolder:
        """The folder of detections.

        Raises:
            NotFoundError: the operator set none.
        """
        if self.folder is None:
            raise NotFoundError(
                "This service has no folder of pictures: SEGSERVE_DETECTION_DIR (segserve serve --detection-dir) turns "
                "it on. /api/detect-area-base64 works without.",
                code="no_detection_folder",
            )
        return self.folder

    def sent(self, text: str) -> Load:
        """The picture that an image_string is."""

        async def load() -> bytes:
            try:
                return await self.fetcher.get(ImageSource.model_construct(base64=text))
            except SegserveError as error:
                raise type(error)(f"image_string: {error.message}", code=error.error_code) from error

        return load

    def filed(self, name: str) -> Load:
        """The picture that a file of input/images is."""
        folder = self.opened_folder()

        async def load() -> bytes:
            return await asyncio.to_thread(folder.read, name, self.limits.max_bytes)

        return load

    def job(self, pictures: Sequence[Load], threshold: float) -> Job:
        """What to ask the model, checked.

        Raises:
            NotFoundError: no Mask R-CNN is served.
        """
        native = SegmentRequest(
            model=self.served_models.named(MASK_RCNN.name),
            images=[ImageSource()] * len(pictures),
            parameters=Parameters(score_threshold=threshold),
        )
        return Job.from_request(native, self.served_models, pictures)

    async def detect(
        self, job: Job, output_names: Sequence[str], way_out: str, received_as: str | None = None
    ) -> list[dict[str, Any] | SegserveError]:
        """DetectedAreas of each picture, or its error; the files of each are written once it is done.

        Args:
            job: with one picture for each name.
            output_names: of the drawn pictures.
            way_out: what to do about an answer that is too large.
            received_as: the name for the input picture's own file, where it came with the request.

        Raises:
            NotReadyError, NotFoundError: the model cannot be asked at all.
        """
        size = 0

        async def finish(found: Found) -> dict[str, Any]:
            nonlocal size
            received = None if received_as is None else (received_as, found.data)
            detection = await asyncio.to_thread(self._finished, found, output_names[found.index], received)
            # Counted on the way, so that an answer that cannot be sent does not pile up in memory first.
            check_answer(size + detection.size(), self.max_answer_bytes, way_out)
            size += detection.size()
            return await asyncio.to_thread(detection.to_dict)

        return await self.segmenter.run(job, finish)

    def _finished(self, found: Found, output_name: str, received: tuple[str, bytes] | None) -> Detection:
        detection = detected(found, output_name, self.limits)
        if self.folder is not None:
            self.folder.store(output_name, detection.drawn, detection.partials, received)
        return detection


def detected(found: Found, output_name: str, limits: ImageLimits) -> Detection:
    """What a worker found in a picture, drawn and cut out. Blocks on pixels.

    Raises:
        UndecodableImageError: the image cannot be drawn on.
        TooLargeError: a format cannot hold a picture as long as this.
        InternalError: the worker's masks are broken.
    """
    picture = decoded(found.data, found.result, limits)
    drawings = sorted(drawings_of(found.result), key=lambda drawing: -drawing.score)
    boxes = [[float(side) for side in drawing.box] for drawing in drawings]
    return Detection(
        boxes,
        [drawing.score for drawing in drawings],
        encode(
            render.overlay(picture, drawings, boxes=True, labels=found.classes),
            SUFFIXES[PurePath(output_name).suffix.lower()],
        ),
        [encode(part, "JPEG") for part in render.crops(picture, boxes)],
    )


def check_fields(payload: type[BaseModel], body: dict[str, Any]) -> None:
    """Whether a body has every field that a payload needs.

    Raises:
        InvalidRequestError: names what is missing (code missing_field).
    """
    missing = [name for name, about in payload.model_fields.items() if about.is_required() and name not in body]
    if missing:
        needed = ", ".join(name for name, about in payload.model_fields.items() if about.is_required())
        raise InvalidRequestError(f"{', '.join(missing)}: missing; expected {needed}.", code="missing_field")
