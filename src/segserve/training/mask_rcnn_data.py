"""Training pictures of Mask R-CNN: read, flipped, scaled and batched, the same for a seed whatever loads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from segserve.imaging import Rgb
from segserve.models.mask_rcnn.architecture import InputShape
from segserve.models.mask_rcnn.heads import Target
from segserve.models.mask_rcnn.pictures import Size, as_batch, input_size, resize
from segserve.training.coco import Dataset, LabeledPicture, read_picture

_SMALLEST_SIDE = 1.0
"""Of a box in pixels of the input: what is smaller cannot be learned."""


@dataclass(frozen=True)
class Variation:
    """How pictures are varied from epoch to epoch.

    Attributes:
        flip: mirror every other picture left to right.
        scale: the input's size is multiplied by a number between these two.
    """

    flip: bool = True
    scale: tuple[float, float] = (0.8, 1.25)


@dataclass
class Batch:
    """One step's pictures: images (N, 3, H, W), normalized and padded; sizes without the padding; the truth."""

    images: Tensor
    sizes: list[Size]
    targets: list[Target]

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        targets = [{name: tensor.to(device) for name, tensor in target.items()} for target in self.targets]
        return Batch(self.images.to(device), self.sizes, targets)


class Pictures(TorchDataset[tuple[Rgb, Target]]):
    """Varied pictures by (epoch, index); what an item is depends on the seed and those two alone."""

    def __init__(self, dataset: Dataset, shape: InputShape, variation: Variation, seed: int) -> None:
        self.pictures = dataset.pictures
        self.shape = shape
        self.variation = variation
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Rgb, Target]:
        """The picture, H x W x 3 uint8 RGB, and its truth."""
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        picture = self.pictures[index]
        image = read_picture(picture)
        height, width = input_size(picture.height, picture.width, self.shape)
        factor = rng.uniform(*self.variation.scale)
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        flipped = self.variation.flip and rng.random() < 0.5
        image = resize(image, size)
        target = _target(picture, size, flipped)
        return (np.ascontiguousarray(image[:, ::-1]) if flipped else image), target


def _target(picture: LabeledPicture, size: Size, flipped: bool) -> Target:
    """The objects of a picture, in pixels of its resized form; crowds and specks are left out."""
    height, width = size
    scale = np.array([width / picture.width, height / picture.height] * 2, np.float32)
    boxes, labels, masks = [], [], []
    for thing in picture.objects:
        box = np.array(thing.box, np.float32) * scale
        if thing.crowd or min(box[2] - box[0], box[3] - box[1]) < _SMALLEST_SIDE:
            continue
        mask = thing.mask(picture.height, picture.width).astype(np.uint8) * 255
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) > 127
        if flipped:
            box, mask = np.array([width - box[2], box[1], width - box[0], box[3]], np.float32), mask[:, ::-1]
        boxes.append(box)
        labels.append(thing.class_index + 1)
        masks.append(mask)
    stacked = np.stack(masks).astype(np.uint8) if masks else np.zeros((0, height, width), np.uint8)
    return {
        "boxes": torch.from_numpy(np.array(boxes, np.float32).reshape(-1, 4)),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": torch.from_numpy(stacked),
    }


class Collator:
    """Makes a batch of pictures, padded to the largest. A class, since it is sent to the loading processes."""

    def __init__(self, shape: InputShape) -> None:
        self.shape = shape

    def __call__(self, items: Sequence[tuple[Rgb, Target]]) -> Batch:
        """The batch of the items."""
        images = [image for image, _ in items]
        return Batch(as_batch(images, self.shape), [_size(image) for image in images], [target for _, target in items])


def _size(image: Rgb) -> Size:
    return int(image.shape[0]), int(image.shape[1])


def batches_of_epoch(count: int, epoch: int, batch_size: int, seed: int) -> list[list[tuple[int, int]]]:
    """Which pictures make each batch of an epoch, shuffled; the last ones that fill no batch are left out.

    With fewer pictures than a batch takes, they are repeated.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    if count < batch_size:
        order = np.resize(order, batch_size)
    whole = len(order) // batch_size * batch_size
    return [[(epoch, int(index)) for index in part] for part in order[:whole].reshape(-1, batch_size)]


def load_batches(pictures: Pictures, batches: Sequence[list[tuple[int, int]]], loaders: int) -> Iterator[Batch]:
    """The batches in their order. loaders: processes that prepare them ahead; 0: none."""

    # Its own generator: drawing from the global one would make a resumed run differ.
    generator = torch.Generator()
    # Spawned rather than forked: OpenCV's and torch's threads do not survive a fork.
    context = "spawn" if loaders else None
    loader: DataLoader[Any] = DataLoader(
        pictures,
        batch_sampler=batches,
        num_workers=loaders,
        collate_fn=Collator(pictures.shape),
        multiprocessing_context=context,
        generator=generator,
    )
    return iter(loader)
