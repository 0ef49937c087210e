"""What SAM 2 is shown of the objects to outline: clicks, boxes, earlier masks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segserve import mask_logits, schema
from segserve.errors import InvalidPromptError
from segserve.models.sam2.parameters import Sam2Parameters
from segserve.schema import MAX_OBJECTS, Box, Point


@dataclass(frozen=True, eq=False)
class Target:
    """One object, by at least one of points, box and mask.

    Attributes:
        points: ``(x, y, label)`` in pixels of the picture; label 1 on the object, 0 beside it.
        box: ``(x0, y0, x1, y1)`` in pixels of the picture.
        mask: h x w float32 logits of an earlier answer (``Instance.low_res``).
        name: of this target in a request, for messages.
    """

    points: tuple[Point, ...] = ()
    box: Box | None = None
    mask: NDArray[np.float32] | None = None
    name: str = "prompt"

    def __post_init__(self) -> None:
        if not self.points and self.box is None and self.mask is None:
            raise InvalidPromptError(f"{self.name}: expected points, a box or a mask, came none of them.")

    @property
    def is_ambiguous(self) -> bool:
        """Whether it may mean a part as well as the whole, by SAM's authors' rule: a single point says so."""
        return len(self.points) == 1 and self.box is None and self.mask is None

    def check_within(self, width: int, height: int) -> None:
        """Whether every point lies in a picture of width x height pixels, and the box in part.

        Raises:
            InvalidPromptError: says which does not.
        """
        for x, y, _ in self.points:
            if not (0 <= x <= width and 0 <= y <= height):
                raise InvalidPromptError(
                    f"{self.name}: the point [{x:g}, {y:g}] lies outside the picture of {width} x {height} pixels. "
                    "Coordinates are pixels of the upright picture, from the top left."
                )
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if not (min(x1, width) > max(x0, 0) and min(y1, height) > max(y0, 0)):
                raise InvalidPromptError(
                    f"{self.name}: the box [{x0:g}, {y0:g}, {x1:g}, {y1:g}] has no area in the picture of "
                    f"{width} x {height} pixels. Expected [x0, y0, x1, y1] in pixels of the upright picture."
                )


@dataclass(frozen=True)
class ClickPrompt:
    """What to outline in one picture.

    Attributes:
        targets: 1 to 64 objects.
        parameters: how to answer.
    """

    targets: tuple[Target, ...]
    parameters: Sam2Parameters = field(default_factory=Sam2Parameters)

    def __post_init__(self) -> None:
        if not 1 <= len(self.targets) <= MAX_OBJECTS:
            raise InvalidPromptError(f"A prompt has 1 to {MAX_OBJECTS} objects, came {len(self.targets)}.")

    @classmethod
    def from_wire(cls, prompt: schema.Prompt, parameters: Sam2Parameters | None = None) -> ClickPrompt:
        """The prompt of a request that has passed ``schema.check_prompt``.

        Points alone are one object, with one box the object in it; boxes alone are an object each.

        Raises:
            InvalidRequestError, InvalidPromptError: a mask that cannot be read; nothing to outline.
        """
        return cls(_targets(prompt), parameters or Sam2Parameters())

    def multimask(self, target: Target) -> bool:
        """Whether the target is answered with three masks."""
        wanted = self.parameters.multimask
        return target.is_ambiguous if wanted is None else wanted


def _targets(prompt: schema.Prompt) -> tuple[Target, ...]:
    if prompt.objects is not None:
        return tuple(_target(each, f"prompt.objects.{index}") for index, each in enumerate(prompt.objects))
    boxes = prompt.boxes or []
    if prompt.points is not None and len(boxes) <= 1:
        return (Target(tuple(prompt.points), boxes[0] if boxes else None, name="prompt.points"),)
    return tuple(Target(box=box, name=f"prompt.boxes.{index}") for index, box in enumerate(boxes))


def _target(given: schema.ObjectPrompt, name: str) -> Target:
    mask = None if given.mask is None else mask_logits.from_text(given.mask, f"{name}.mask")
    return Target(tuple(given.points or ()), given.box, mask, name)
