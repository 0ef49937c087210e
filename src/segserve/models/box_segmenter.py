"""Masks for boxes: SAM (Kirillov et al., arXiv 2304.02643) and SAM-HQ (Ke et al., arXiv 2306.01567)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from segserve import masks as mask_geometry
from segserve.imaging import Rgb
from segserve.masks import Rle
from segserve.models.checkpoints import SEGMENTERS, load_model, load_processor
from segserve.models.device import Placement
from segserve.models.embedding_cache import Embedding, EmbeddingCache, encode_all, fingerprint
from segserve.models.text_prompt import Refine

MAX_BOXES_AT_ONCE = 128
"""Boxes in one decoder call; each takes about 30 MB in a full-sized SAM."""

ENLARGING_BYTES = 128 * 2**20
"""Float32 logits that exist at once while masks are enlarged to the picture's size."""


@dataclass(frozen=True)
class BoxMasks:
    """The masks of one picture's boxes, in their order, as large as the picture.

    cached says whether the picture's embedding was there already; None where none was asked for.
    """

    rles: list[Rle] = field(default_factory=list)
    cached: bool | None = None


class BoxSegmenter:
    """Outlines the object in each box.

    Args:
        model: a SAM or SAM-HQ of transformers.
        processor: its processor.
        placement: where to compute.
        cache: keeps the pictures' embeddings; None: every picture is encoded each time.
    """

    def __init__(self, model: Any, processor: Any, placement: Placement, cache: EmbeddingCache | None = None) -> None:
        # Convolutions are faster with channels last, on CPUs and GPUs alike.
        self._model = model.to(placement.device, memory_format=torch.channels_last)
        self._image_processor = processor.image_processor
        self._placement = placement
        self.cache = cache
        self._fingerprint = b"" if cache is None else fingerprint(model, self._image_processor, placement.dtype)

    @classmethod
    def from_folder(cls, folder: Path, placement: Placement, cache: EmbeddingCache | None = None) -> BoxSegmenter:
        """The segmenter of a checkpoint folder.

        Raises:
            NotFoundError, InvalidRequestError: see ``checkpoints.load_model``.
        """
        return cls(load_model(folder, SEGMENTERS), load_processor(folder), placement, cache)

    @torch.inference_mode()
    def segment(
        self, images: Sequence[Rgb], boxes: Sequence[NDArray[np.float32]], refine: Sequence[Refine]
    ) -> list[BoxMasks]:
        """One mask for each box of each picture.

        Pictures without boxes are not encoded; the others are encoded together, then decoded one by one with all
        their boxes in one call (up to 128). The decoder's single-mask answer is taken: a box is not ambiguous.

        Args:
            images: H x W x 3 uint8, of any sizes.
            boxes: for each (N, 4) ``[x0, y0, x1, y1]`` in pixels.
            refine: for each whether ``masks.refine`` cleans its masks.
        """
        found = [BoxMasks() for _ in images]
        wanted = [index for index, each in enumerate(boxes) if len(each)]
        encoded = encode_all([images[index] for index in wanted], self._encode, self.cache, self._fingerprint)
        for index, each in zip(wanted, encoded, strict=True):
            size, seen = images[index].shape[:2], each.embedding.seen
            inputs = _decoder_inputs(each.embedding)
            rles = [
                rle
                for prompts in torch.split(self._scaled(boxes[index], size, seen), MAX_BOXES_AT_ONCE)
                for masks in self._enlarge(self._decode(prompts, **inputs), size, seen)
                for rle in _encode_masks(masks, refine[index])
            ]
            found[index] = BoxMasks(rles, each.cached)
        return found

    def _encode(self, images: Sequence[Rgb]) -> list[Embedding]:
        # Without the format said, a picture of one or three rows would be taken for one whose channels come first.
        inputs = self._image_processor(
            list(images), return_tensors="pt", device=self._placement.device, input_data_format="channels_last"
        )
        with self._placement.precision():
            made = self._model.get_image_embeddings(inputs["pixel_values"])
        # SAM-HQ's decoder also reads the encoder's inner layers.
        tensors = [made] if isinstance(made, Tensor) else [made[0], *made[1]]
        sizes = [(int(height), int(width)) for height, width in inputs["reshaped_input_sizes"]]
        return [Embedding.owned(tensors, row, seen) for row, seen in enumerate(sizes)]

    def _scaled(self, boxes: NDArray[np.float32], size: tuple[int, ...], seen: tuple[int, ...]) -> Tensor:
        height, width = size
        scale = np.array([seen[1] / width, seen[0] / height] * 2)
        return torch.from_numpy((boxes * scale).astype(np.float32)).to(self._placement.device)

    def _decode(self, boxes: Tensor, **encoded: Any) -> Tensor:
        """(N, 1, h, w) mask logits of N boxes."""
        with self._placement.precision():
            output = self._model(input_boxes=boxes[None], multimask_output=False, **encoded)
        logits: Tensor = output.pred_masks[0].float()
        return logits

    def _enlarge(self, logits: Tensor, size: tuple[int, ...], seen: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
        """Masks (n, H, W) uint8 0/1 of the logits, some at a time: padding cut off, enlarged, thresholded at 0."""
        padded = self._image_processor.pad_size
        most = max(size[0] * size[1], padded["height"] * padded["width"])
        for chunk in torch.split(logits, max(1, ENLARGING_BYTES // (4 * most))):
            wide = functional.interpolate(chunk, (padded["height"], padded["width"]), mode="bilinear")
            wide = functional.interpolate(wide[..., : seen[0], : seen[1]], size, mode="bilinear")
            # Columns first in memory: the order in which the run-length encoder reads, so that it need not copy.
            columns = (wide[:, 0] > 0).transpose(1, 2).to(torch.uint8).contiguous()
            yield columns.cpu().numpy().transpose(0, 2, 1)


def _decoder_inputs(embedding: Embedding) -> dict[str, Tensor | list[Tensor]]:
    first, *inner = (tensor.float() for tensor in embedding.tensors)
    return {"image_embeddings": first} | ({"intermediate_embeddings": inner} if inner else {})


def _encode_masks(masks: NDArray[np.uint8], refine: Refine) -> list[Rle]:
    if not refine:
        return mask_geometry.encode_rles(masks)
    polygon = refine == "polygon"
    return [mask_geometry.encode_rle(mask_geometry.refine(mask > 0, polygon=polygon)) for mask in masks]
