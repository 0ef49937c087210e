"""Mask R-CNN: the network, its checkpoints, and the predictor that runs it."""

from segserve.models.mask_rcnn.architecture import Architecture
from segserve.models.mask_rcnn.parameters import MaskRcnnParameters
from segserve.models.mask_rcnn.predictor import MaskRcnn

__all__ = ["Architecture", "MaskRcnn", "MaskRcnnParameters"]
