"""TorchServe handler of the archive ``sam2``: SAM 2, which outlines what is clicked on or is in a box.

TorchServe imports this file in each worker; the package segserve has to be installed for the worker's Python.
Build the archive with: segserve archive sam2
"""

from __future__ import annotations

from pathlib import Path

from segserve.catalog import SAM2
from segserve.imaging import Rgb
from segserve.models.sam2 import ClickPrompt, Sam2, Sam2Parameters
from segserve.schema import WorkerPrompt
from segserve.torchserve.base_handler import BaseHandler
from segserve.torchserve.handler_options import HandlerOptions


class Sam2Handler(BaseHandler):
    """Outlines objects that points, boxes and earlier masks tell of."""

    entry = SAM2

    def load(self, folder: Path, options: HandlerOptions) -> Sam2:
        """The model of the checkpoint folder; it keeps the embeddings of the latest pictures."""
        defaults = Sam2Parameters(**options.defaults)
        self.model = Sam2.from_folder(
            folder, device=options.device, dtype=options.dtype, defaults=defaults, cache=self.embedding_cache
        )
        return self.model

    def prompt(self, wanted: WorkerPrompt) -> ClickPrompt:
        """The objects to outline, with the request's parameters laid over the archive's."""
        return ClickPrompt.from_wire(wanted, self.model.defaults.overridden(wanted.parameters))

    def check(self, prompt: ClickPrompt, image: Rgb) -> None:
        """Points and boxes lie in the picture, masks are as large as the model makes them."""
        self.model.check(prompt, image)
