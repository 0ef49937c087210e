"""Semantic segmentation: a class for every pixel, by networks of torchvision or transformers, in torch or ONNX."""

from segserve.models.semantic.architecture import SemanticConfig
from segserve.models.semantic.parameters import SemanticParameters
from segserve.models.semantic.predictor import Semantic

__all__ = ["Semantic", "SemanticConfig", "SemanticParameters"]
