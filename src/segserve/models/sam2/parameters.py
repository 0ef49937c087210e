"""How SAM 2 is to answer."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from segserve.models.text_prompt import Refine
from segserve.schema import Parameters


@dataclass(frozen=True)
class Sam2Parameters:
    """Parameters of one picture.

    Attributes:
        multimask: answer each object with three masks (of the whole, a part, a part of that, if all goes well)
            instead of one; None: so for a single point without a box or mask, which may mean any of them.
        low_res: also give each mask's logits as the decoder makes them, to be sent again with a correction.
        refine: smooth the masks' edges, drop specks, close holes; ``"polygon"``: keep the largest outline only.
    """

    multimask: bool | None = None
    low_res: bool = False
    refine: Refine = False

    def overridden(self, given: Parameters) -> Sam2Parameters:
        """These, with what a request gives laid over them."""
        values = {field.name: getattr(given, field.name) for field in fields(self)}
        return replace(self, **{name: value for name, value in values.items() if value is not None})
