"""Batches for the demo semantic model: scenes made on the fly, scaled as the predictor scales pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segserve.training.scenes import Scene, default_size, make_scene
from segserve.training.segmenter_batches import scene_seed

IGNORED = 255
LABEL_STRIDE = 2
SCALES = (0.6, 1.0)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Size = tuple[int, int]


@dataclass(frozen=True)
class SemanticBatch:
    """Model inputs and targets of one step.

    Attributes:
        pixel_values: (B, 3, H, W) float, normalized as the predictor does.
        labels: (B, H / 2, W / 2) int64, the index in CATEGORIES, or IGNORED. Half the input's size: the logits
            are no finer, and the loss costs a quarter.
    """

    pixel_values: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> SemanticBatch:
        """The same on a device."""
        return SemanticBatch(self.pixel_values.to(device), self.labels.to(device))


def make_semantic_batch(run_seed: int, step: int, batch_size: int, size: Size) -> SemanticBatch:
    """The batch of a step: a function of its arguments alone, so that a resumed run sees the same data.

    Scenes are drawn at 0.6 to 1 times their own size, so that the model sees sharper and softer pictures.

    Args:
        run_seed: chooses the scenes, together with the step.
        step: 0-based.
        batch_size: scenes.
        size: (height, width) of the input, both even.
    """
    rng = np.random.default_rng((run_seed, step))
    pictures, labels = [], []
    for index in range(batch_size):
        seed = scene_seed(run_seed, step * batch_size + index)
        scale = rng.uniform(*SCALES)
        height, width = default_size(seed)
        scene = make_scene(seed, (round(scale * height), round(scale * width)))
        pictures.append(_scaled(scene.image, size))
        labels.append(_label_map(scene, size))
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)  # channels last in memory
    mean, deviation = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(DEVIATION).view(3, 1, 1)
    return SemanticBatch((pixels / 255.0 - mean) / deviation, torch.from_numpy(np.stack(labels)).long())


def scored_labels(semantic: NDArray[np.uint8], ignored: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A label map with IGNORED at the pixels to leave out. Both: (H, W)."""
    return np.where(ignored, np.uint8(IGNORED), semantic)


def _scaled(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    scaled = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(scaled)


def _label_map(scene: Scene, size: Size) -> NDArray[np.uint8]:
    ids = [each.id for each in scene.objects if each.ignore]
    labels = scored_labels(scene.semantic, np.isin(scene.instances, ids)) if ids else scene.semantic
    target = (size[1] // LABEL_STRIDE, size[0] // LABEL_STRIDE)
    return np.asarray(cv2.resize(labels, target, interpolation=cv2.INTER_NEAREST_EXACT))
