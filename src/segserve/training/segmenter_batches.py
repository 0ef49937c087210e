"""Batches for the demo SAM: scenes made on the fly, box and point prompts, and the masks they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segserve.training.scenes import STUFF, Scene, SceneObject, make_scene, training_size
from segserve.training.segmenter import SegmenterSize
from segserve.training.segmenter_loss import (
    EDGE_WEIGHT,
    FAR_WEIGHT,
    NEAR_WEIGHT,
    OUTSIDE,
    DenseTargets,
    MaskTargets,
)

FIRST_SEED, LAST_SEED = 1_000_000, 499_999_999
SEED_STRIDE = 9_700_417
MEAN = 255 * np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = 255 * np.array([0.229, 0.224, 0.225], np.float32)
EXACT_BOX_SHARE = 0.15
LARGEST_JITTER = 0.08
NEAR_MARGIN = 0.15
THING_WEIGHT = 1.6
OUTLINE = np.ones((5, 5), np.uint8)


class MaskGrid(Protocol):
    """The sizes that targets depend on: sides in pixels of the model's square, and in cells of its mask grid."""

    @property
    def image(self) -> int: ...
    @property
    def mask_side(self) -> int: ...


@dataclass(frozen=True)
class SegmenterBatch:
    """Model inputs and targets of one step; coordinates are pixels of the padded square.

    Attributes:
        pixel_values: (B, 3, S, S) float, normalized as the processor does.
        boxes: (B, P, 4) as a detector would give them: near the truth, not on it.
        box_targets: the masks of the boxes' objects.
        points: (B, Q, 2, 2) two points each.
        labels: (B, Q, 2) 1 on the object, 0 beside it, -1 no point; the first is always 1.
        point_boxes: (B, Q, 4) boxes of the points' objects.
        point_targets: the masks of the points' objects.
        dense: what every cell belongs to.
    """

    pixel_values: Tensor
    boxes: Tensor
    box_targets: MaskTargets
    points: Tensor
    labels: Tensor
    point_boxes: Tensor
    point_targets: MaskTargets
    dense: DenseTargets

    def to(self, device: torch.device) -> SegmenterBatch:
        """The same on a device."""
        return SegmenterBatch(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class FittedScene:
    """A scene scaled as the processor scales pictures, objects that nobody asks for left out.

    Attributes:
        image: (H, W, 3) uint8 with the longest side ``SegmenterSize.image``.
        instances, semantic: (H, W) uint8.
        objects: boxes as (id, x0, y0, x1, y1) floats, ids ascending; all objects.
        wanted: the objects to ask for.
    """

    image: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint8]
    semantic: npt.NDArray[np.uint8]
    objects: npt.NDArray[np.float32]
    wanted: tuple[SceneObject, ...]

    def box(self, obj: SceneObject) -> npt.NDArray[np.float32]:
        """x0, y0, x1, y1 of an object in pixels of the scaled picture."""
        box: npt.NDArray[np.float32] = self.objects[self.objects[:, 0] == obj.id][0, 1:]
        return box


def scene_seed(run_seed: int, index: int) -> int:
    """Seed of the index-th scene of a run; never one of those kept for evaluation."""
    return FIRST_SEED + (run_seed * SEED_STRIDE + index) % (LAST_SEED - FIRST_SEED + 1)


def make_segmenter_batch(
    run_seed: int, step: int, batch_size: int, size: SegmenterSize, *, box_prompts: int = 8, point_prompts: int = 2
) -> SegmenterBatch:
    """The batch of a step: a function of its arguments alone, so that a resumed run sees the same data."""
    rng = np.random.default_rng((run_seed, step))
    scenes = [fit_scene(scene_seed(run_seed, step * batch_size + index), size.image) for index in range(batch_size)]
    boxes, box_targets, points, labels, point_boxes, point_targets = [], [], [], [], [], []
    for scene in scenes:
        asked = choose_objects(scene, box_prompts, rng)
        boxes.append([jittered_box(scene.box(obj), scene.image.shape[:2], rng) for obj in asked])
        box_targets.append([target_planes(scene, obj, size) for obj in asked])
        pointed = choose_objects(scene, point_prompts, rng)
        drawn = [draw_points(scene, obj, rng) for obj in pointed]
        points.append([coordinates for coordinates, _ in drawn])
        labels.append([marks for _, marks in drawn])
        point_boxes.append([jittered_box(scene.box(obj), scene.image.shape[:2], rng) for obj in pointed])
        point_targets.append([target_planes(scene, obj, size) for obj in pointed])
    return SegmenterBatch(
        pixel_values=pixel_values(scenes, size.image),
        boxes=torch.from_numpy(np.array(boxes, np.float32)),
        box_targets=mask_targets(box_targets),
        points=torch.from_numpy(np.array(points, np.float32)),
        labels=torch.from_numpy(np.array(labels, np.int64)),
        point_boxes=torch.from_numpy(np.array(point_boxes, np.float32)),
        point_targets=mask_targets(point_targets),
        dense=dense_targets(scenes, size),
    )


def fit_scene(seed: int, side: int, *, stretch: bool = False) -> FittedScene:
    """Make a scene at training size and scale its longest side to ``side`` pixels, or stretch it to a square."""
    scene = make_scene(seed, training_size(seed))
    height, width = scene.instances.shape
    scale = side / max(height, width)
    target = (side, side) if stretch else (round(width * scale), round(height * scale))
    factors = np.tile((side / width, side / height) if stretch else (scale, scale), 2)
    rows = [[obj.id, *(np.array(obj.box) * factors)] for obj in scene.objects]
    return FittedScene(
        image=cv2.resize(scene.image, target, interpolation=cv2.INTER_AREA),
        instances=cv2.resize(scene.instances, target, interpolation=cv2.INTER_NEAREST_EXACT),
        semantic=cv2.resize(scene.semantic, target, interpolation=cv2.INTER_NEAREST_EXACT),
        objects=np.array(rows, np.float32),
        wanted=_wanted(scene),
    )


def choose_objects(scene: FittedScene, count: int, rng: np.random.Generator) -> list[SceneObject]:
    """``count`` objects, each once before any twice, things somewhat before stuff."""
    weights = np.array([1.0 if obj.category in STUFF else THING_WEIGHT for obj in scene.wanted])
    chosen: list[SceneObject] = []
    while len(chosen) < count:
        order = rng.choice(len(weights), len(weights), replace=False, p=weights / weights.sum())
        chosen.extend(scene.wanted[index] for index in order)
    return chosen[:count]


def jittered_box(
    box: npt.NDArray[np.float32], shape: tuple[int, ...], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """A box moved as a detector's would be: each side by up to some per cent of the box, within the picture.

    The largest shift itself is drawn, so that nearly exact boxes are as common as rough ones: IoU .75 to 1.
    """
    if rng.random() < EXACT_BOX_SHARE:
        return box
    width, height = box[2] - box[0], box[3] - box[1]
    reach = rng.uniform(0.0, LARGEST_JITTER)
    moved = box + rng.uniform(-reach, reach, 4) * np.array([width, height, width, height]) + rng.normal(0.0, 0.5, 4)
    limit = np.array([shape[1], shape[0], shape[1], shape[0]])
    jittered: npt.NDArray[np.float32] = np.clip(moved, 0, limit).astype(np.float32)
    return jittered


def draw_points(
    scene: FittedScene, obj: SceneObject, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], list[int]]:
    """A point on the object and a second that is on it, beside it, or absent: (2, 2) x, y and two labels."""
    mask = scene.instances == obj.id
    core = cv2.erode(mask.astype(np.uint8), OUTLINE).astype(bool)
    first = random_pixel(core if core.any() and rng.random() < 0.7 else mask, rng)
    label = int(rng.choice([-1, 0, 1], p=[0.6, 0.2, 0.2]))
    if label < 0:
        return np.stack([first, np.zeros(2, np.float32)]), [1, -1]
    if label == 0:
        x0, y0, x1, y1 = scene.box(obj).astype(int)
        region = np.zeros_like(mask)
        region[y0 : y1 + 1, x0 : x1 + 1] = True
        beside = region & ~mask
        if not beside.any():
            return np.stack([first, np.zeros(2, np.float32)]), [1, -1]
        return np.stack([first, random_pixel(beside, rng)]), [1, 0]
    return np.stack([first, random_pixel(mask, rng)]), [1, 1]


def target_planes(
    scene: FittedScene, obj: SceneObject, size: MaskGrid
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Coverage (0 to 255) and weight of each cell of the mask grid for one object, both (G, G)."""
    square = np.zeros((size.image, size.image), np.uint8)
    height, width = scene.instances.shape
    square[:height, :width] = np.where(scene.instances == obj.id, 255, 0)
    coverage = cv2.resize(square, (size.mask_side, size.mask_side), interpolation=cv2.INTER_AREA)
    return coverage, cell_weights(coverage, scene.box(obj) * (size.mask_side / size.image))


def cell_weights(coverage: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(G, G) weights: little far from the object's box, more in it, most along the outline and on thin parts.

    Args:
        coverage: (G, G) 0 to 255.
        box: x0, y0, x1, y1 in cells.
    """
    weights = np.full(coverage.shape, FAR_WEIGHT, np.float32)
    margin = 2.0 + NEAR_MARGIN * max(box[2] - box[0], box[3] - box[1])
    x0, y0 = np.maximum(0, np.floor(box[:2] - margin)).astype(int)
    x1, y1 = np.ceil(box[2:] + margin).astype(int)
    weights[y0:y1, x0:x1] = NEAR_WEIGHT
    outline = cv2.dilate(coverage, OUTLINE[:3, :3]) - cv2.erode(coverage, OUTLINE[:3, :3])
    weights += (EDGE_WEIGHT / 255.0) * outline
    return weights


def _wanted(scene: Scene) -> tuple[SceneObject, ...]:
    wanted = tuple(obj for obj in scene.objects if not obj.ignore)
    return wanted or scene.objects


def random_pixel(mask: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    flat = np.flatnonzero(mask)
    row, column = divmod(int(flat[rng.integers(len(flat))]), mask.shape[1])
    return np.array([column, row], np.float32)


def pixel_values(scenes: Sequence[FittedScene], side: int) -> Tensor:
    pixels = np.zeros((len(scenes), side, side, 3), np.float32)
    for square, scene in zip(pixels, scenes, strict=True):
        height, width = scene.instances.shape
        square[:height, :width] = (scene.image - MEAN) / DEVIATION
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def mask_targets(
    planes: Sequence[Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]]],
) -> MaskTargets:
    coverage = np.array([[plane for plane, _ in row] for row in planes])
    weights = np.array([[plane for _, plane in row] for row in planes])
    return MaskTargets(torch.from_numpy(coverage).float() / 255.0, torch.from_numpy(weights))


def dense_targets(scenes: Sequence[FittedScene], size: MaskGrid) -> DenseTargets:
    side, stride = size.mask_side, size.image // size.mask_side
    classes = np.full((len(scenes), side, side), OUTSIDE, np.int64)
    sides = np.zeros((len(scenes), 4, side, side), np.float32)
    edges = np.zeros((len(scenes), side, side), np.float32)
    for index, scene in enumerate(scenes):
        instances = scene.instances[::stride, ::stride]
        height, width = instances.shape
        table = np.zeros((256, 4), np.float32)
        table[scene.objects[:, 0].astype(int)] = scene.objects[:, 1:] / size.image
        classes[index, :height, :width] = scene.semantic[::stride, ::stride]
        sides[index, :, :height, :width] = table[instances].transpose(2, 0, 1)
        meeting = cv2.dilate(instances, OUTLINE[:3, :3]) != cv2.erode(instances, OUTLINE[:3, :3])
        edges[index, :height, :width] = meeting
    return DenseTargets(torch.from_numpy(classes), torch.from_numpy(sides), torch.from_numpy(edges))
