"""A text prompt with everything that decides its answer."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from segserve.errors import InvalidPromptError, InvalidRequestError
from segserve.schema import MAX_PHRASES, Parameters, split_phrases

Refine = bool | Literal["polygon"]


@dataclass(frozen=True)
class GroundedSamParameters:
    """How Grounding DINO and SAM answer one prompt.

    Attributes:
        box_threshold: a box is kept when its best word scores more than this, 0..1.
        text_threshold: a phrase may label a box when its words score more than this, 0..1: its best word for the
            phrase that fits the box best, every word for a further, overlapping phrase.
        nms_iou: of two boxes of one phrase that overlap more than this, the lower-scored is dropped, 0..1.
        nms_across_phrases: also between boxes of different phrases.
        max_instances: so many of the best are kept.
        refine: smooth the masks' edges, drop specks, close holes; ``"polygon"``: keep the largest outline only.
    """

    box_threshold: float = 0.3
    text_threshold: float = 0.25
    nms_iou: float = 0.7
    nms_across_phrases: bool = False
    max_instances: int = 100
    refine: Refine = False

    def __post_init__(self) -> None:
        for name in ("box_threshold", "text_threshold", "nms_iou"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InvalidRequestError(f"{name}: expected 0 to 1, came {value}.")
        if self.max_instances < 1:
            raise InvalidRequestError(f"max_instances: expected at least 1, came {self.max_instances}.")

    def overridden(self, parameters: Parameters) -> GroundedSamParameters:
        """These values, but those that a request sets."""
        given = {field.name: getattr(parameters, field.name) for field in fields(self)}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class TextPrompt:
    """What to look for in one picture.

    Attributes:
        phrases: lower case, each once; an answer's labels are these.
        parameters: how to answer.
    """

    phrases: tuple[str, ...]
    parameters: GroundedSamParameters = GroundedSamParameters()

    def __post_init__(self) -> None:
        if not 1 <= len(self.phrases) <= MAX_PHRASES:
            raise InvalidPromptError(f"A text prompt has 1 to {MAX_PHRASES} phrases, came {len(self.phrases)}.")

    @classmethod
    def from_text(cls, text: str, parameters: GroundedSamParameters | None = None) -> TextPrompt:
        """The prompt of a text such as ``"sofa. red chair."``.

        Raises:
            InvalidPromptError: no phrase, or more than 32.
        """
        return cls(tuple(split_phrases(text)), parameters or GroundedSamParameters())
