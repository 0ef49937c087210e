"""Boxes for phrases: Grounding DINO (Liu et al., arXiv 2303.05499) and MM Grounding DINO (Zhao et al., 2401.02361)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segserve import boxes as box_geometry
from segserve.imaging import Rgb
from segserve.models.checkpoints import DETECTORS, load_model, load_processor
from segserve.models.device import Placement
from segserve.models.phrase_tokens import Caption, PhraseTokenizer, match_phrases
from segserve.models.text_prompt import GroundedSamParameters, TextPrompt


@dataclass(frozen=True)
class Detections:
    """The boxes found in one picture, by falling score.

    Attributes:
        boxes: (N, 4) float32 ``[x0, y0, x1, y1]`` in pixels, within the picture.
        scores: (N,) float32, 0..1.
        labels: the phrase of each.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: list[str]

    @classmethod
    def none(cls) -> Detections:
        """Nothing found."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), [])


class TextDetector:
    """Finds what phrases name.

    Args:
        model: a Grounding DINO of transformers.
        processor: its processor.
        placement: where to compute.
    """

    def __init__(self, model: Any, processor: Any, placement: Placement) -> None:
        # Convolutions are faster with channels last, on CPUs and GPUs alike.
        self._model = model.to(placement.device, memory_format=torch.channels_last)
        self._image_processor = processor.image_processor
        self._placement = placement
        self.tokenizer = PhraseTokenizer(processor.tokenizer, model.config.max_text_len)

    @classmethod
    def from_folder(cls, folder: Path, placement: Placement) -> TextDetector:
        """The detector of a checkpoint folder.

        Raises:
            NotFoundError, InvalidRequestError: see ``checkpoints.load_model``.
        """
        return cls(load_model(folder, DETECTORS), load_processor(folder), placement)

    @torch.inference_mode()
    def detect(self, images: Sequence[Rgb], prompts: Sequence[TextPrompt]) -> list[Detections]:
        """The boxes of each picture's own prompt.

        Pictures run together only when they are equally large as the model sees them: padding one to the size of
        another would change its answer (the backbone sees the padding).

        Args:
            images: H x W x 3 uint8, of any sizes.
            prompts: as many.

        Raises:
            InvalidPromptError: a prompt has no words or more tokens than the model reads.
        """
        captions = [self.tokenizer.encode(prompt.phrases) for prompt in prompts]
        results = [Detections.none() for _ in images]
        groups: dict[tuple[int, ...], list[tuple[int, Tensor, Tensor]]] = {}
        for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
            if caption.token_ids:
                pixels, valid = self._preprocess(image)
                groups.setdefault(tuple(pixels.shape), []).append((index, pixels, valid))
        for members in groups.values():
            indices, pixels_of, valid_of = zip(*members, strict=True)
            scores, boxes = self._run(torch.stack(pixels_of), torch.stack(valid_of), [captions[i] for i in indices])
            for row, index in enumerate(indices):
                height, width = images[index].shape[:2]
                scale = np.array([width, height, width, height], dtype=np.float32)
                corners = box_geometry.clip(boxes[row] * scale, width, height)
                results[index] = select(scores[row], corners, captions[index], prompts[index].parameters)
        return results

    def _preprocess(self, image: Rgb) -> tuple[Tensor, Tensor]:
        """(3, h, w) pixels as the model sees them, and (h, w) 1 where they are not padding of the processor's own."""
        # Without the format said, a picture of one or three rows would be taken for one whose channels come first.
        inputs = self._image_processor(
            image, return_tensors="pt", device=self._placement.device, input_data_format="channels_last"
        )
        pixels: Tensor = inputs["pixel_values"][0]
        valid = inputs["pixel_mask"][0] if "pixel_mask" in inputs else torch.ones_like(pixels[0], dtype=torch.long)
        return pixels, valid

    def _run(
        self, pixels: Tensor, valid: Tensor, captions: Sequence[Caption]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Token probabilities (B, Q, T) and boxes (B, Q, 4) as corners in 0..1."""
        length = max(len(caption.token_ids) for caption in captions)
        ids = torch.zeros((len(captions), length), dtype=torch.long)
        attention = torch.zeros_like(ids)
        for row, caption in enumerate(captions):
            ids[row, : len(caption.token_ids)] = torch.tensor(caption.token_ids)
            attention[row, : len(caption.token_ids)] = 1
        device = self._placement.device
        with self._placement.precision():
            output = self._model(
                pixel_values=pixels, pixel_mask=valid, input_ids=ids.to(device), attention_mask=attention.to(device)
            )
        scores = output.logits[..., :length].float().sigmoid()
        centers, sides = output.pred_boxes.float().split(2, dim=-1)
        corners = torch.cat([centers - sides / 2, centers + sides / 2], dim=-1)
        return scores.cpu().numpy(), corners.cpu().numpy()


def select(
    token_scores: NDArray[np.float32],
    boxes: NDArray[np.float32],
    caption: Caption,
    parameters: GroundedSamParameters,
) -> Detections:
    """The detections of one picture: phrases matched, duplicates removed, the best kept.

    Args:
        token_scores: (Q, T) probabilities.
        boxes: (Q, 4) corners in pixels.
    """
    likely = np.flatnonzero(token_scores.max(axis=1) > parameters.box_threshold)
    queries, phrases, scores = match_phrases(
        token_scores[likely], caption, parameters.box_threshold, parameters.text_threshold
    )
    found = boxes[likely[queries]]
    labels = [caption.phrases[phrase] for phrase in phrases]
    if parameters.nms_across_phrases:
        kept = box_geometry.non_maximum_suppression(found, scores, parameters.nms_iou)
    else:
        kept = box_geometry.non_maximum_suppression_by_label(found, scores, labels, parameters.nms_iou)
    kept = kept[: parameters.max_instances]
    return Detections(found[kept], scores[kept], [labels[index] for index in kept])
