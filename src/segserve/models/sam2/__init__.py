"""SAM 2 (Ravi et al., arXiv 2408.00714) on single pictures: masks for points, boxes and earlier masks."""

from segserve.models.sam2.parameters import Sam2Parameters
from segserve.models.sam2.predictor import Sam2
from segserve.models.sam2.prompts import ClickPrompt, Target

__all__ = ["ClickPrompt", "Sam2", "Sam2Parameters", "Target"]
