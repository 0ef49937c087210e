"""TorchServe handler of the archive ``mask_rcnn``: Mask R-CNN, which finds every object of its classes.

TorchServe imports this file in each worker; the package segserve has to be installed for the worker's Python.
Build the archive with: segserve archive mask_rcnn --weights model_final.pth --config config.yaml --labels labels.txt
"""

from __future__ import annotations

from pathlib import Path

from segserve.catalog import MASK_RCNN
from segserve.models.mask_rcnn import MaskRcnn, MaskRcnnParameters
from segserve.schema import WorkerPrompt
from segserve.torchserve.base_handler import BaseHandler, Predictor
from segserve.torchserve.handler_options import HandlerOptions


class MaskRcnnHandler(BaseHandler):
    """Finds and outlines the objects of its classes."""

    entry = MASK_RCNN

    def load(self, folder: Path, options: HandlerOptions) -> Predictor:
        """The model of the checkpoint folder, under the engine that the archive's yaml names."""
        self.defaults = MaskRcnnParameters(**options.defaults)
        placement = {"device": options.device, "dtype": options.dtype, "defaults": self.defaults}
        if options.engine == "detectron2":
            # Only this engine needs the package detectron2.
            from segserve.models.mask_rcnn.detectron2_engine import Detectron2MaskRcnn

            return Detectron2MaskRcnn.from_folder(folder, **placement)
        return MaskRcnn.from_folder(folder, **placement)

    def prompt(self, wanted: WorkerPrompt) -> MaskRcnnParameters:
        """The request's parameters, laid over the archive's. There is nothing else to ask."""
        return self.defaults.overridden(wanted.parameters)
