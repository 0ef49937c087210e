"""Batches for the demo SAM 2: scenes made on the fly, first clicks, boxes, and clicks that correct an answer."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segserve.masks import Mask
from segserve.training.click_segmenter import ClickSegmenterSize
from segserve.training.clicks import corrective_click, most_interior_point
from segserve.training.scenes import SceneObject
from segserve.training.segmenter_batches import (
    OUTLINE,
    FittedScene,
    choose_objects,
    dense_targets,
    fit_scene,
    jittered_box,
    mask_targets,
    pixel_values,
    random_pixel,
    scene_seed,
    target_planes,
)
from segserve.training.segmenter_loss import DenseTargets, MaskTargets

INTERIOR_SHARE, CORE_SHARE = 0.45, 0.35
"""Shares of first clicks on the most interior point and away from the outline; the rest is anywhere on the object."""
INTERIOR_DEVIATION = 3.0
RANDOM_CORRECTION_SHARE = 0.3


@dataclass(frozen=True)
class ClickBatch:
    """Model inputs and targets of one step; coordinates are pixels of the square that pictures are stretched to.

    Attributes:
        pixel_values: (B, 3, S, S) float, normalized as the processor does.
        points: (B, Q, 1, 2) one click on each of Q objects.
        labels: (B, Q, 1) all 1.
        point_targets: the masks of the clicked objects.
        boxes: (B, P, 4) near the truth, as a person or a detector would draw them.
        box_targets: the masks of the boxes' objects.
        dense: what every cell belongs to.
    """

    pixel_values: Tensor
    points: Tensor
    labels: Tensor
    point_targets: MaskTargets
    boxes: Tensor
    box_targets: MaskTargets
    dense: DenseTargets

    def to(self, device: torch.device) -> ClickBatch:
        """The same on a device."""
        return ClickBatch(**{name: value.to(device) for name, value in vars(self).items()})


def make_click_batch(
    run_seed: int, step: int, batch_size: int, size: ClickSegmenterSize, *, clicks: int = 7, boxes: int = 4
) -> ClickBatch:
    """The batch of a step: a function of its arguments alone, so that a resumed run sees the same data."""
    rng = np.random.default_rng((run_seed, step))
    seeds = [scene_seed(run_seed, step * batch_size + index) for index in range(batch_size)]
    scenes = [fit_scene(seed, size.image, stretch=True) for seed in seeds]
    points, point_planes, drawn, box_planes = [], [], [], []
    for scene in scenes:
        clicked = choose_objects(scene, clicks, rng)
        points.append([[draw_first_click(scene, obj, rng)] for obj in clicked])
        point_planes.append([target_planes(scene, obj, size) for obj in clicked])
        boxed = choose_objects(scene, boxes, rng)
        drawn.append([jittered_box(scene.box(obj), scene.image.shape[:2], rng) for obj in boxed])
        box_planes.append([target_planes(scene, obj, size) for obj in boxed])
    return ClickBatch(
        pixel_values=pixel_values(scenes, size.image),
        points=torch.from_numpy(np.array(points, np.float32)),
        labels=torch.ones((batch_size, clicks, 1), dtype=torch.int64),
        point_targets=mask_targets(point_planes),
        boxes=torch.from_numpy(np.array(drawn, np.float32)),
        box_targets=mask_targets(box_planes),
        dense=dense_targets(scenes, size),
    )


def draw_first_click(scene: FittedScene, obj: SceneObject, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A click on an object as people make them, x and y: in its middle, well inside, or anywhere on it."""
    mask = scene.instances == obj.id
    choice = rng.random()
    if choice < INTERIOR_SHARE:
        middle = np.array(most_interior_point(mask)) + rng.normal(0.0, INTERIOR_DEVIATION, 2)
        column, row = np.clip(np.rint(middle), 0, np.array(mask.shape[::-1]) - 1).astype(int)
        if mask[row, column]:
            return np.array([column, row], np.float32)
    core = cv2.erode(mask.astype(np.uint8), OUTLINE).astype(bool)
    return random_pixel(core if core.any() and choice < INTERIOR_SHARE + CORE_SHARE else mask, rng)


def corrections(
    logits: Tensor, truth: Tensor, cell: float, rng: np.random.Generator, count: int = 1
) -> tuple[Tensor, Tensor]:
    """Clicks that correct answers: the first in the middle of the largest wrong region, or anywhere that is wrong.

    Args:
        logits: (B, P, G, G) the answers, no gradients.
        truth: (B, P, G, G) covered share of each cell.
        cell: pixels of a cell's side.
        rng: chooses.
        count: clicks for each answer, N; all after the first are anywhere that is wrong.

    Returns:
        Points (B, P, N, 2) in pixels and labels (B, P, N): 1, 0, or -1 where there is nothing to correct.
    """
    found, real = (logits > 0).cpu().numpy(), (truth > 0.5).cpu().numpy()
    points = np.zeros((*found.shape[:2], count, 2), np.float32)
    labels = np.full((*found.shape[:2], count), -1, np.int64)
    for picture, prompt in np.ndindex(*found.shape[:2]):
        clicks = _corrections_of_one(found[picture, prompt], real[picture, prompt], rng, count)
        for index, (column, row, label) in enumerate(clicks):
            spot = (np.array([column, row]) + rng.uniform(0.2, 0.8, 2)) * cell - 0.5
            points[picture, prompt, index], labels[picture, prompt, index] = spot, label
    return torch.from_numpy(points).to(logits.device), torch.from_numpy(labels).to(logits.device)


def _corrections_of_one(found: Mask, real: Mask, rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
    wrong = found != real
    if not wrong.any():
        return []
    clicks: list[tuple[int, int, int]] = []
    for index in range(count):
        best = corrective_click(found, real) if index == 0 and rng.random() >= RANDOM_CORRECTION_SHARE else None
        if best is not None:
            clicks.append((best.x, best.y, best.label))
        else:
            column, row = random_pixel(wrong, rng).astype(int)
            clicks.append((int(column), int(row), int(real[row, column])))
    return clicks
