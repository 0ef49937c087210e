"""Objects named by text, with their masks: Grounding DINO finds them, SAM outlines them.

The combination is that of Grounded SAM (Ren et al., arXiv 2401.14159).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segserve.errors import InvalidRequestError
from segserve.imaging import Rgb
from segserve.masks import Rle
from segserve.models.box_segmenter import BoxSegmenter
from segserve.models.device import choose_placement
from segserve.models.embedding_cache import EmbeddingCache, without_cache
from segserve.models.pictures import check_pictures
from segserve.models.segmentation import Instance, Segmentation
from segserve.models.text_detector import Detections, TextDetector
from segserve.models.text_prompt import GroundedSamParameters, TextPrompt
from segserve.models.thin_picture import ThickPicture, thicken

DETECTOR_FOLDER = "grounding_dino"
SEGMENTER_FOLDER = "sam"


class GroundedSam:
    """The predictor of the model ``grounded_sam``.

    An answer does not depend on what else is in the batch, within float rounding.

    Args:
        detector: text to boxes.
        segmenter: boxes to masks.
        defaults: the parameters of prompts made by ``prompt``.
    """

    def __init__(
        self, detector: TextDetector, segmenter: BoxSegmenter, defaults: GroundedSamParameters | None = None
    ) -> None:
        self.detector = detector
        self.segmenter = segmenter
        self.defaults = defaults or GroundedSamParameters()

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        defaults: GroundedSamParameters | None = None,
        cache: EmbeddingCache | None = None,
    ) -> GroundedSam:
        """The predictor of a folder with the sub-folders ``grounding_dino`` and ``sam``.

        Args:
            folder: each sub-folder is a checkpoint of transformers: Grounding DINO or MM Grounding DINO, SAM or SAM-HQ.
            device, dtype: see ``device.choose_placement``.
            defaults: see the class.
            cache: keeps SAM's embeddings of the pictures, for further prompts on them.

        Raises:
            NotFoundError: a folder or a file of it is missing.
            InvalidRequestError: a checkpoint of another model or a broken one; an unknown device or dtype.
        """
        placement = choose_placement(device, dtype)
        root = Path(folder)
        detector = TextDetector.from_folder(root / DETECTOR_FOLDER, placement)
        return cls(detector, BoxSegmenter.from_folder(root / SEGMENTER_FOLDER, placement, cache), defaults)

    def predict(self, images: Sequence[Rgb], prompts: Sequence[TextPrompt]) -> list[Segmentation]:
        """The instances of each picture's own prompt, by falling score.

        Args:
            images: H x W x 3 uint8 RGB, of any sizes.
            prompts: one for each picture, each with its own phrases and parameters.

        Raises:
            InvalidPromptError: a prompt has no words or more tokens than the detector reads.
            InvalidRequestError: not as many prompts as pictures, or no pictures of H x W x 3 uint8.
            torch.OutOfMemoryError: the batch does not fit into the device's memory.
        """
        if len(images) != len(prompts):
            raise InvalidRequestError(f"prompts: expected {len(images)}, one a picture, came {len(prompts)}.")
        check_pictures(images)
        shown = [thicken(image) for image in images]
        pictures = [each.image for each in shown]
        found = self.detector.detect(pictures, prompts)
        # A thickened picture's masks are refined once they are back in its own pixels.
        refine = [
            prompt.parameters.refine if each.is_original else False for each, prompt in zip(shown, prompts, strict=True)
        ]
        outlined = self.segmenter.segment(pictures, [each.boxes for each in found], refine)
        instances = [
            _instances(each, prompt, detections, masks.rles)
            for each, prompt, detections, masks in zip(shown, prompts, found, outlined, strict=True)
        ]
        return [
            Segmentation(image.shape[1], image.shape[0], each, masks.cached)
            for image, each, masks in zip(images, instances, outlined, strict=True)
        ]

    def check(self, prompt: TextPrompt) -> None:
        """Whether the model can read a prompt, before it is run.

        Raises:
            InvalidPromptError: it has no words or more tokens than the detector reads.
        """
        self.detector.tokenizer.encode(prompt.phrases)

    def warm_up(self) -> None:
        """Run both models once on a small picture, so that the first request does not pay for their preparations."""
        image = np.full((64, 64, 3), 128, dtype=np.uint8)
        with without_cache(self.segmenter):
            self.predict([image], [TextPrompt(("chair",))])
            self.segmenter.segment([image], [np.array([[8, 8, 56, 56]], dtype=np.float32)], [False])


def _instances(shown: ThickPicture, prompt: TextPrompt, found: Detections, rles: Sequence[Rle]) -> list[Instance]:
    boxes = shown.original_boxes(found.boxes)
    masks = [shown.original_mask(rle, prompt.parameters.refine) for rle in rles]
    return [
        Instance(label, float(score), (float(x0), float(y0), float(x1), float(y1)), rle)
        for label, score, (x0, y0, x1, y1), rle in zip(found.labels, found.scores, boxes, masks, strict=True)
    ]
