"""TorchServe handler of the archive ``semantic``: a class for every pixel, computed by PyTorch or ONNX Runtime.

TorchServe imports this file in each worker; the package segserve has to be installed for the worker's Python.
Build the archive with: segserve archive semantic
"""

from __future__ import annotations

from pathlib import Path

from segserve.catalog import SEMANTIC
from segserve.models.semantic import Semantic, SemanticParameters
from segserve.schema import WorkerPrompt
from segserve.torchserve.base_handler import BaseHandler
from segserve.torchserve.handler_options import HandlerOptions


class SemanticHandler(BaseHandler):
    """Gives every pixel a class, or the scores of all classes."""

    entry = SEMANTIC

    def load(self, folder: Path, options: HandlerOptions) -> Semantic:
        """The model of the checkpoint folder with every engine that it has a file for."""
        self.defaults = SemanticParameters(engine=options.engine)
        self.model = Semantic.from_folder(
            folder,
            device=options.device,
            dtype=options.dtype,
            engine=options.engine,
            defaults=self.defaults,
            threads=options.threads,
        )
        return self.model

    def prompt(self, wanted: WorkerPrompt) -> SemanticParameters:
        """The request's parameters, laid over the archive's. There is nothing else to ask."""
        return self.defaults.overridden(wanted.parameters)
