"""How a semantic model is asked: by which engine, for what, at which size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from segserve.schema import Parameters

Engine = Literal["torch", "onnx"]
Output = Literal["label_map", "logits", "probabilities"]
OutputSize = Literal["original", "model"]


@dataclass(frozen=True)
class SemanticParameters:
    """Parameters of one picture.

    Attributes:
        engine: what computes.
        output: what is wanted for every pixel: the best class, or the logits or probabilities of all of them as well.
        size: of the output: the picture's, or that of the model's input.
    """

    engine: Engine = "torch"
    output: Output = "label_map"
    size: OutputSize = "original"

    def overridden(self, given: Parameters) -> SemanticParameters:
        """These, with what a request gives laid over them."""
        names = ("engine", "output", "size")
        return replace(self, **{name: value for name in names if (value := getattr(given, name)) is not None})
