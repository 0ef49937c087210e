"""The wire types: what a request may say, checked field by field, and what an answer holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
)

from segserve.catalog import ModelEntry
from segserve.errors import InvalidPromptError, InvalidRequestError
from segserve.json_values import AS_TEXT, ONE, SEVERAL, describe, number, one_or_several, switch, switch_or_polygon

MAX_IMAGES = 32
MAX_TEXT_CHARACTERS = 256
MAX_PHRASES = 32
MAX_POINTS = 64
MAX_BOXES = 64
MAX_OBJECTS = 64
MAX_MASK_CHARACTERS = 1_500_000
"""Of a low-resolution mask in base64: enough for 512 x 512 float32, four times as many numbers as SAM 2 takes."""

MaskFormat = Literal["rle", "polygon", "png", "none"]
RenderKind = Literal["overlay", "cutout", "mask", "crops"]
Switch = Annotated[bool, BeforeValidator(switch)]
Unit = Annotated[float, BeforeValidator(number), Field(ge=0, le=1, allow_inf_nan=False)]
Coordinate = Annotated[float, BeforeValidator(number), Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Base64 = Annotated[str, StringConstraints(strip_whitespace=True)]
Point = tuple[Coordinate, Coordinate, Annotated[Literal[0, 1], BeforeValidator(number)]]
Box = tuple[Coordinate, Coordinate, Coordinate, Coordinate]


class Strict(BaseModel):
    """Frozen; unknown fields are refused rather than ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageSource(Strict):
    """Where one image comes from: exactly one of url, base64 and s3."""

    url: str | None = None
    base64: Base64 | None = None
    s3: str | None = None


class ObjectPrompt(Strict):
    """One object to outline, by at least one of points, box and mask; coordinates as in Prompt.

    Attributes:
        points: clicks on the object (label 1) and beside it (label 0).
        box: around the object.
        mask: of an earlier answer to be corrected: an instance's ``low_res``, a NumPy file in base64.
    """

    points: list[Point] | None = None
    box: Box | None = None
    mask: Annotated[Base64, Field(max_length=MAX_MASK_CHARACTERS)] | None = None


class Prompt(Strict):
    """What the caller asks for; see the model for which kinds it takes.

    Attributes:
        text: phrases separated by full stops, e.g. ``"sofa. red chair."``.
        points: ``[x, y, label]`` in pixels of the upright image; label 1 foreground, 0 background. All of them are
            about one object, with one box also about the object in it.
        boxes: ``[x0, y0, x1, y1]`` in pixels of the upright image; each is about an object of its own.
        objects: several objects, each with points, a box or both.
    """

    text: str | None = None
    points: list[Point] | None = None
    boxes: list[Box] | None = None
    objects: list[ObjectPrompt] | None = None


class Parameters(Strict):
    """How to answer; None means the archive's default.

    Attributes:
        box_threshold: least score of a detection (Grounding DINO), 0..1.
        text_threshold: least score of a word to belong to its label (Grounding DINO), 0..1.
        score_threshold: least score of an instance (Mask R-CNN), 0..1.
        nms_iou: boxes of one phrase that overlap more than this are duplicates, 0..1.
        nms_across_phrases: also drop overlapping boxes of different phrases.
        max_instances: the best so many are kept, 1..300.
        refine: false, true (smooth edges, drop specks, close holes) or "polygon" (also keep the largest outline only).
        engine: what computes (semantic): "torch" or "onnx".
        output: what is wanted for every pixel (semantic): "label_map" (the best class), "logits" or "probabilities";
            the two latter come as a NumPy file only.
        size: of the output (semantic): "original", the picture's, or "model", that of the model's input.
        multimask: answer an object with all the masks that its prompt may mean (SAM 2: three) instead of one; by
            default so for a single point without a box or mask.
        low_res: also answer each mask's low-resolution logits, to be sent again with a correction (SAM 2).
    """

    box_threshold: Unit | None = None
    text_threshold: Unit | None = None
    score_threshold: Unit | None = None
    nms_iou: Unit | None = None
    nms_across_phrases: Switch | None = None
    max_instances: Annotated[int, BeforeValidator(number), Field(ge=1, le=300)] | None = None
    refine: Annotated[bool | Literal["polygon"], BeforeValidator(switch_or_polygon)] | None = None
    engine: Literal["torch", "onnx"] | None = None
    output: Literal["label_map", "logits", "probabilities"] | None = None
    size: Literal["original", "model"] | None = None
    multimask: Switch | None = None
    low_res: Switch | None = None


class WorkerPrompt(Prompt):
    """The ``prompt`` part of a request to a worker: one prompt with its parameters."""

    parameters: Parameters = Parameters()


class SegmentRequest(Strict):
    """The native request; every other route is translated into it.

    Attributes:
        model: None leaves the choice to the server.
        mask_format: of instances' masks. A label map is always a PNG, which "none" leaves out.
        render: pictures to be drawn; crops of instances only.
    """

    model: str | None = None
    images: Annotated[list[ImageSource], Field(min_length=1, max_length=MAX_IMAGES)]
    prompt: Annotated[
        Annotated[Prompt, Tag(ONE)] | Annotated[list[Prompt], Tag(SEVERAL)], Discriminator(one_or_several)
    ] = Prompt()
    parameters: Parameters = Parameters()
    mask_format: MaskFormat = "rle"
    render: list[RenderKind] = []

    @field_validator("render")
    @classmethod
    def _each_once(cls, kinds: list[RenderKind]) -> list[RenderKind]:
        return list(dict.fromkeys(kinds))


class RleMask(BaseModel):
    """COCO compressed run-length encoding."""

    size: tuple[int, int] = Field(description="[height, width] in pixels")
    counts: str


class WorkerInstance(BaseModel):
    """One object as a worker finds it; object and low_res as in Instance."""

    label: str
    score: float = Field(ge=0, le=1)
    box: tuple[float, float, float, float]
    area: int
    mask: RleMask
    object: int | None = None
    low_res: str | None = None


class WorkerResult(BaseModel):
    """A worker's answer for one image. width and height in pixels of the upright image."""

    width: int
    height: int
    instances: list[WorkerInstance]


class WorkerLabelMap(BaseModel):
    """A worker's answer for one image of a semantic model. width and height in pixels of the upright image."""

    width: int
    height: int
    classes: list[str] = Field(description="names, by index")
    label_map: str = Field(description="gray PNG, base64: for every pixel the index of its class")
    pixel_fraction: dict[str, float] = Field(description="of each class that the label map shows, 0..1")


class Instance(BaseModel):
    """One object found; mask is an RLE, polygons, a base64 PNG, or absent, as mask_format says.

    Of models that are told where to look, object is the index of the prompt's object that it answers, and low_res,
    where parameters.low_res asks for it, a NumPy file (float16, in base64) to be sent as that object's mask.
    """

    label: str
    score: float = Field(ge=0, le=1)
    box: tuple[float, float, float, float]
    area: int
    mask: RleMask | list[list[tuple[float, float]]] | str | None = None
    object: int | None = None
    low_res: str | None = None


class ErrorBody(BaseModel):
    """What went wrong with a request or one of its images."""

    code: str
    message: str
    request_id: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every failed request."""

    error: ErrorBody


class ImageResult(BaseModel):
    """The answer for one image: instances, or of a semantic model classes, label_map and pixel_fraction, or an error.

    label_map is a gray PNG in base64, of 8 bits (16 from 257 classes on), that holds for every pixel the index of its
    class; it is left out with mask_format "none". pixel_fraction is the share, 0..1, of each class that it shows.
    """

    width: int | None = None
    height: int | None = None
    instances: list[Instance] | None = None
    classes: list[str] | None = None
    label_map: str | None = None
    pixel_fraction: dict[str, float] | None = None
    renders: dict[str, str | list[str]] | None = None
    error: ErrorBody | None = None


class Timings(BaseModel):
    """Milliseconds spent in each stage, of the slowest image where there are several; total: the whole request's."""

    fetch: float
    model: float
    render: float
    total: float


class SegmentAnswer(BaseModel):
    """The native answer; results are in the order of the images."""

    model: str
    version: str
    results: list[ImageResult]
    timings_ms: Timings


Parsed = TypeVar("Parsed", bound=BaseModel)


def parse(kind: type[Parsed], value: Any, where: str = "", *, as_text: bool = False) -> Parsed:
    """value, already decoded from JSON, as kind; as_text: its numbers came as text (form fields, query parameters).

    Raises:
        InvalidRequestError: names each wrong field (under where), what was expected and what came.
    """
    try:
        return kind.model_validate(value, context=AS_TEXT if as_text else None)
    except ValidationError as error:
        raise InvalidRequestError(describe(error, where, as_text=as_text)) from None


def parse_json(kind: type[Parsed], data: bytes | str, where: str = "") -> Parsed:
    """As parse, from JSON text."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise InvalidRequestError(describe(error, where)) from None


_SEPARATOR = re.compile(r"[.\n;。．]+")


def split_phrases(text: str) -> list[str]:
    """The phrases of a text prompt, lower case, in order, each once: ``"Sofa. red  chair."`` → sofa, red chair.

    Full stops (also of East Asian scripts), semicolons and line breaks separate; white space is collapsed.
    """
    parts = (" ".join(part.split()).lower() for part in _SEPARATOR.split(text))
    return list(dict.fromkeys(part for part in parts if part))


_EXAMPLES = {
    "text": '{"text": "sofa. floor."}',
    "points": '{"points": [[120, 80, 1]]}',
    "boxes": '{"boxes": [[10, 10, 90, 70]]}',
    "objects": '{"objects": [{"points": [[120, 80, 1]]}]}',
}


def check_prompt(prompt: Prompt, entry: ModelEntry) -> None:
    """Whether the prompt fits the model.

    Raises:
        InvalidPromptError: a kind that the model does not take, none of those it needs, kinds that do not go
            together, or over a limit.
    """
    given = [kind for kind in _EXAMPLES if getattr(prompt, kind) is not None]
    for kind in given:
        if kind not in entry.prompts:
            takes = _listed(entry.prompts, "and") or "no prompt"
            raise InvalidPromptError(f"prompt.{kind}: the model {entry.name} takes {takes}; leave {kind} out.")
    if entry.required and not any(kind in entry.required for kind in given):
        wanted = _listed([f"prompt.{kind}" for kind in entry.required], "or")
        raise InvalidPromptError(f"The model {entry.name} needs {wanted}, e.g. {_EXAMPLES[entry.required[0]]}.")
    if prompt.text is not None:
        _check_text(prompt.text)
    _check_count(prompt.points, MAX_POINTS, "prompt.points")
    _check_count(prompt.boxes, MAX_BOXES, "prompt.boxes")
    _check_count(prompt.objects, MAX_OBJECTS, "prompt.objects")
    _check_objects(prompt)


def _listed(words: Sequence[str], conjunction: str) -> str:
    """``a, b and c``."""
    return f" {conjunction} ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def _check_count(values: Sequence[Any] | None, limit: int, field: str) -> None:
    if values is not None and not 1 <= len(values) <= limit:
        raise InvalidPromptError(f"{field}: expected 1 to {limit}, came {len(values)}.")


def _check_objects(prompt: Prompt) -> None:
    """Whether points and boxes say which object each of them is about, and whether boxes have an area."""
    if prompt.objects is not None and (prompt.points is not None or prompt.boxes is not None):
        raise InvalidPromptError("prompt.objects: give points and boxes within the objects, not beside them.")
    if prompt.points is not None and prompt.boxes is not None and len(prompt.boxes) > 1:
        raise InvalidPromptError(
            f"prompt.points: with {len(prompt.boxes)} boxes it is not said which of them the points are about; use "
            'prompt.objects, e.g. [{"box": [10, 10, 90, 70], "points": [[120, 80, 1]]}].'
        )
    for index, box in enumerate(prompt.boxes or []):
        _check_box(box, f"prompt.boxes.{index}")
    for index, each in enumerate(prompt.objects or []):
        field = f"prompt.objects.{index}"
        if each.points is None and each.box is None and each.mask is None:
            raise InvalidPromptError(f"{field}: expected points, box or mask, came none of them.")
        _check_count(each.points, MAX_POINTS, f"{field}.points")
        if each.box is not None:
            _check_box(each.box, f"{field}.box")


def _check_box(box: Box, field: str) -> None:
    if not (box[0] < box[2] and box[1] < box[3]):
        raise InvalidPromptError(f"{field}: expected [x0, y0, x1, y1] with x0 < x1 and y0 < y1, came {list(box)}.")


def _check_text(text: str) -> None:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidPromptError(
            f"prompt.text: at most {MAX_TEXT_CHARACTERS} characters, came {len(text)}. Ask in several requests."
        )
    count = len(split_phrases(text))
    if count == 0:
        raise InvalidPromptError('prompt.text: expected at least one phrase, e.g. "sofa. floor."; it is empty.')
    if count > MAX_PHRASES:
        raise InvalidPromptError(f"prompt.text: at most {MAX_PHRASES} phrases, came {count}. Ask in several requests.")


def check_output(request: SegmentRequest, entry: ModelEntry) -> None:
    """Whether what the model returns can be answered in the form that the request asks for, renders included.

    Raises:
        InvalidRequestError: crops or polygons of a model that returns no instances.
    """
    if entry.returns == "instances":
        return
    if "crops" in request.render:
        raise InvalidRequestError(
            f"render: crops are cut around instances, and the model {entry.name} returns a label map; "
            "ask for overlay, cutout or mask."
        )
    if request.mask_format == "polygon":
        raise InvalidRequestError(
            f"mask_format: polygon is of instances, and the model {entry.name} returns a label map; ask for png "
            "(a gray PNG) or none."
        )


def check_parameters(parameters: Parameters, entry: ModelEntry) -> None:
    """Whether the model knows every parameter that is given.

    Raises:
        InvalidRequestError: names the parameter and lists the known ones.
    """
    for name in parameters.model_fields_set:
        if getattr(parameters, name) is not None and name not in entry.parameters:
            known = ", ".join(entry.parameters)
            raise InvalidRequestError(f"parameters.{name}: the model {entry.name} does not know it; it knows {known}.")
