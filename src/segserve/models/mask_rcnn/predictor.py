"""Instances of the classes that a Mask R-CNN was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from segserve import masks
from segserve.errors import InvalidRequestError
from segserve.imaging import Rgb
from segserve.models.device import Placement, choose_placement
from segserve.models.mask_rcnn.checkpoint import load_checkpoint
from segserve.models.mask_rcnn.heads import Detected, Limits
from segserve.models.mask_rcnn.network import MaskRcnnNetwork, in_channels_last
from segserve.models.mask_rcnn.parameters import MaskRcnnParameters
from segserve.models.mask_rcnn.pictures import Size, as_batch, input_size, padded_size, paste_mask, resize
from segserve.models.pictures import check_pictures
from segserve.models.segmentation import Instance, Segmentation


class MaskRcnn:
    """The predictor of the model ``mask_rcnn``.

    An answer does not depend on what else is in the batch, within float rounding: pictures run together only when
    their inputs have the same padded size.

    Args:
        network: float32, on the CPU.
        placement: where it runs, and in which precision.
        defaults: the parameters that a handler lays a request's over.
    """

    def __init__(
        self, network: MaskRcnnNetwork, placement: Placement, defaults: MaskRcnnParameters | None = None
    ) -> None:
        self.placement = placement
        self.network = in_channels_last(network.eval().to(placement.device))
        self.defaults = defaults or MaskRcnnParameters()

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        defaults: MaskRcnnParameters | None = None,
    ) -> MaskRcnn:
        """The predictor of a checkpoint folder (see ``checkpoint``).

        Args:
            device: see ``choose_placement``.
            dtype: as there, but ``auto`` is float32 on GPUs too: bfloat16 has moved boxes of detectron2's reference
                checkpoint by up to 14 pixels and scores by 0.36, float16 boxes by 1.4 pixels and scores by 0.17.
            defaults: see the class.

        Raises:
            NotFoundError: the folder or a file of it is missing.
            InvalidRequestError: a checkpoint of another model or a broken one; an unknown device or dtype.
        """
        placement = choose_placement(device, "float32" if dtype == "auto" else dtype)
        return cls(load_checkpoint(Path(folder)), placement, defaults)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that instances may have."""
        classes: tuple[str, ...] = self.network.architecture.classes
        return classes

    def predict(self, images: Sequence[Rgb], prompts: Sequence[MaskRcnnParameters]) -> list[Segmentation]:
        """The instances of each picture, by falling score.

        Args:
            images: H x W x 3 uint8 RGB, of any sizes.
            prompts: one for each picture.

        Raises:
            InvalidRequestError: not as many prompts as pictures, or no pictures of H x W x 3 uint8.
            torch.OutOfMemoryError: the batch does not fit into the device's memory.
        """
        if len(images) != len(prompts):
            raise InvalidRequestError(f"prompts: expected {len(images)}, one a picture, came {len(prompts)}.")
        check_pictures(images)
        shape = self.network.architecture.input
        sizes = [input_size(image.shape[0], image.shape[1], shape) for image in images]
        together: dict[Size, list[int]] = {}
        for index, size in enumerate(sizes):
            together.setdefault(padded_size(size), []).append(index)
        results: dict[int, Segmentation] = {}
        for group in together.values():
            batch = as_batch([resize(images[index], sizes[index]) for index in group], shape, self.placement.device)
            limits = [self._limits(prompts[index]) for index in group]
            with self.placement.precision():
                found = self.network.detect(batch, [sizes[index] for index in group], limits)
            for index, each in zip(group, found, strict=True):
                results[index] = self._segmentation(images[index], sizes[index], each, prompts[index])
        return [results[index] for index in range(len(images))]

    def warm_up(self) -> None:
        """Run once on a small picture, so that the first request does not pay for the preparations."""
        image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        self.predict([image], [MaskRcnnParameters(score_threshold=0.0, max_instances=1)])

    def _limits(self, given: MaskRcnnParameters) -> Limits:
        own = self.network.architecture.box_head
        return Limits(
            own.score_threshold if given.score_threshold is None else given.score_threshold,
            own.nms_iou if given.nms_iou is None else given.nms_iou,
            own.max_instances if given.max_instances is None else given.max_instances,
        )

    def _segmentation(self, image: Rgb, size: Size, found: Detected, given: MaskRcnnParameters) -> Segmentation:
        """Detections in pixels of the input, in pixels of the picture."""
        height, width = image.shape[:2]
        scale = torch.tensor([width / size[1], height / size[0]] * 2, device=found.boxes.device)
        boxes = (found.boxes * scale).clamp(min=0).minimum(torch.tensor([width, height] * 2).to(scale))
        instances = []
        for box, score, label, probabilities in zip(
            boxes.cpu(), found.scores.tolist(), found.classes.tolist(), found.masks.cpu(), strict=True
        ):
            x0, y0, x1, y1 = box.tolist()
            if x1 <= x0 or y1 <= y0:
                continue
            mask = paste_mask(probabilities, (x0, y0, x1, y1), (height, width))
            if given.refine:
                mask = masks.refine(mask, polygon=given.refine == "polygon")
            instances.append(Instance.from_mask(self.classes[label], score, (x0, y0, x1, y1), mask))
        return Segmentation(width, height, instances)
