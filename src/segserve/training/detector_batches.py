"""Batches for the demo detector: scenes made on the fly, their prompts, and what the model should answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segserve.training.detector import SPECIAL_IDS
from segserve.training.detector_loss import UNMATCHED, DetectionTargets
from segserve.training.phrases import PromptPhrase, PromptSampler, joined
from segserve.training.scenes import CATEGORIES, COLORS, Scene, SceneObject, make_scene, training_size

FIRST_SEED, LAST_SEED = 1_000_000, 499_999_999
SEED_STRIDE = 7_368_787
MEAN = 255 * np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = 255 * np.array([0.229, 0.224, 0.225], np.float32)
LOOKALIKE_WEIGHT = 2.0
FINEST_STRIDE = 16
COLOR_NAMES = tuple(COLORS)
CATEGORY_COUNT, COLOR_COUNT = len(CATEGORIES), len(COLOR_NAMES)


@dataclass(frozen=True)
class DetectorBatch:
    """Model inputs and targets of one step.

    Attributes:
        pixel_values: (B, 3, H, W) float, normalized as the processor does.
        input_ids, token_type_ids, attention_mask: (B, T) long.
        targets: what to find.
    """

    pixel_values: Tensor
    input_ids: Tensor
    token_type_ids: Tensor
    attention_mask: Tensor
    targets: DetectionTargets

    def to(self, device: torch.device | str) -> DetectorBatch:
        return DetectorBatch(
            self.pixel_values.to(device),
            self.input_ids.to(device),
            self.token_type_ids.to(device),
            self.attention_mask.to(device),
            self.targets.to(device),
        )


def scene_seeds(seed: int, step: int, batch_size: int) -> list[int]:
    """Seeds of the scenes of a step: different for every step, all within the range that is for training."""
    first = seed * SEED_STRIDE + step * batch_size
    return [FIRST_SEED + (first + index) % (LAST_SEED - FIRST_SEED + 1) for index in range(batch_size)]


def phrase_tokens(input_ids: Sequence[int]) -> list[list[int]]:
    """Positions of the tokens of each phrase of one encoded prompt, in the order of the phrases."""
    delimiters = set(SPECIAL_IDS.values())
    phrases: list[list[int]] = [[]]
    for position, token in enumerate(input_ids):
        if token in delimiters:
            phrases.append([])
        elif token != 0:
            phrases[-1].append(position)
    return [positions for positions in phrases if positions]


def make_batch(tokenizer: Any, seed: int, step: int, batch_size: int, image_size: int) -> DetectorBatch:
    """The batch of a step; the same arguments always give the same batch."""
    rng = random.Random(f"{seed}/{step}")
    scenes = [make_scene(number, training_size(number)) for number in scene_seeds(seed, step, batch_size)]
    prompts = [PromptSampler(scene.objects, rng).sample() for scene in scenes]
    texts = [joined(prompt, final_dot=rng.random() > 0.1) for prompt in prompts]
    encoded = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=True)
    return DetectorBatch(
        torch.from_numpy(np.stack([_pixels(scene.image, image_size) for scene in scenes])),
        encoded["input_ids"],
        encoded["token_type_ids"],
        encoded["attention_mask"],
        make_targets(scenes, prompts, encoded["input_ids"], encoded["attention_mask"], image_size // FINEST_STRIDE),
    )


def make_targets(
    scenes: Sequence[Scene],
    prompts: Sequence[Sequence[PromptPhrase]],
    input_ids: Tensor,
    attention_mask: Tensor,
    grid: int,
) -> DetectionTargets:
    """Targets of a batch of scenes, each asked its own prompt.

    Args:
        scenes: B scenes.
        prompts: the phrases that each row of ``input_ids`` was encoded from.
        input_ids, attention_mask: (B, T).
        grid: cells along each side of the finest feature grid.

    Raises:
        ValueError: a row does not hold as many phrases as its prompt.
    """
    weight = attention_mask.float()
    rows = [
        _object_tokens(prompt, ids, weight[row])
        for row, (prompt, ids) in enumerate(zip(prompts, input_ids.tolist(), strict=True))
    ]
    batch, length = input_ids.shape
    most = max(1, *(len(tokens) for tokens in rows))
    boxes, wanted = torch.full((batch, most, 4), 0.5), torch.zeros(batch, most, length)
    valid = torch.zeros(batch, most, dtype=torch.bool)
    for row, (scene, tokens) in enumerate(zip(scenes, rows, strict=True)):
        asked = [item for item in scene.objects if item.id in tokens]
        for column, item in enumerate(asked):
            boxes[row, column] = torch.tensor(_relative_box(item, scene.image.shape))
            wanted[row, column] = tokens[item.id]
            valid[row, column] = True
    cells = [_cells(scene, tokens, grid, length) for scene, tokens in zip(scenes, rows, strict=True)]
    category, color, cell_tokens = (torch.stack(parts) for parts in zip(*cells, strict=True))
    return DetectionTargets(boxes, wanted, valid, weight, category, color, cell_tokens)


def _object_tokens(prompt: Sequence[PromptPhrase], ids: Sequence[int], weight: Tensor) -> dict[int, Tensor]:
    """(T,) tokens that each asked object satisfies, by object id; raises the ``weight`` of lookalike phrases."""
    positions = phrase_tokens(ids)
    if len(positions) != len(prompt):
        raise ValueError(f"expected {len(prompt)} phrases in the encoded prompt, found {len(positions)}")
    tokens: dict[int, Tensor] = {}
    for phrase, where in zip(prompt, positions, strict=True):
        for number in phrase.objects:
            tokens.setdefault(number, torch.zeros(len(ids)))[where] = 1.0
        if phrase.lookalike:
            weight[where] = LOOKALIKE_WEIGHT
    return tokens


def _cells(scene: Scene, tokens: dict[int, Tensor], grid: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Category (S,), color (S,) and tokens (S, T) of every cell of the finest grid."""
    numbers = _sampled(scene.instances, grid).ravel()
    category = torch.from_numpy(_sampled(scene.semantic, grid).astype(np.int64).ravel())
    color = torch.full((grid * grid,), UNMATCHED)
    cell_tokens = torch.zeros(grid * grid, length)
    for item in scene.objects:
        here = torch.from_numpy(numbers == item.id)
        if item.color is not None:
            color[here] = COLOR_NAMES.index(item.color)
        if item.id in tokens:
            cell_tokens[here] = tokens[item.id]
    return category, color, cell_tokens


def _pixels(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.float32]:
    """(3, size, size) float32, scaled and normalized like the processor's output."""
    resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return np.ascontiguousarray(((resized - MEAN) / DEVIATION).transpose(2, 0, 1))


def _relative_box(item: SceneObject, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    height, width = shape[:2]
    left, top, right, bottom = item.box
    return (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height


def _sampled(label_map: npt.NDArray[np.uint8], grid: int) -> npt.NDArray[np.uint8]:
    """(grid, grid) values of a label map at the centers of the cells."""
    height, width = label_map.shape
    centers = (np.arange(grid) + 0.5) / grid
    rows, columns = (centers * height).astype(int), (centers * width).astype(int)
    return label_map[np.ix_(rows, columns)]
