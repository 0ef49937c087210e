"""TorchServe handler of the archive ``grounded_sam``: Grounding DINO and SAM, prompted by text.

TorchServe imports this file in each worker; the package segserve has to be installed for the worker's Python.
Build the archive with: segserve archive demo
"""

from __future__ import annotations

from pathlib import Path

from segserve.catalog import GROUNDED_SAM
from segserve.models.grounded_sam import GroundedSam
from segserve.models.text_prompt import GroundedSamParameters, TextPrompt
from segserve.schema import WorkerPrompt
from segserve.torchserve.base_handler import BaseHandler
from segserve.torchserve.handler_options import HandlerOptions


class GroundedSamHandler(BaseHandler):
    """Finds what the text names and outlines it."""

    entry = GROUNDED_SAM

    def load(self, folder: Path, options: HandlerOptions) -> GroundedSam:
        """The two models of the checkpoint folder; thresholds come from the archive's yaml."""
        defaults = GroundedSamParameters(**options.defaults)
        self.model = GroundedSam.from_folder(
            folder, device=options.device, dtype=options.dtype, defaults=defaults, cache=self.embedding_cache
        )
        return self.model

    def prompt(self, wanted: WorkerPrompt) -> TextPrompt:
        """The phrases, with the request's parameters laid over the archive's."""
        prompt = TextPrompt.from_text(wanted.text or "", self.model.defaults.overridden(wanted.parameters))
        self.model.check(prompt)
        return prompt
