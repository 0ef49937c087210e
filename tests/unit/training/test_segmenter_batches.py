"""Batches of the demo SAM: the right scenes, prompts on the right objects, masks and weights that fit them."""

import numpy as np
import pytest
import torch

from segserve.training.scenes import CATEGORIES, make_scene, training_size
from segserve.training.segmenter import SegmenterSize
from segserve.training.segmenter_batches import (
    FIRST_SEED,
    LAST_SEED,
    FittedScene,
    cell_weights,
    choose_objects,
    draw_points,
    fit_scene,
    jittered_box,
    make_segmenter_batch,
    scene_seed,
    target_planes,
)
from segserve.training.segmenter_loss import EDGE_WEIGHT, FAR_WEIGHT, NEAR_WEIGHT, OUTSIDE

SIZE = SegmenterSize(image=128, patch=8)


@pytest.fixture(scope="module")
def scene() -> FittedScene:
    return fit_scene(scene_seed(0, 0), SIZE.image)


@pytest.mark.parametrize("run_seed", [0, 1, 50, 12345])
def test_scenes_kept_for_evaluation_are_never_trained_on(run_seed: int) -> None:
    seeds = [scene_seed(run_seed, index) for index in (0, 1, 99_999, 498_999_999, 499_000_000)]
    assert all(FIRST_SEED <= seed <= LAST_SEED for seed in seeds)
    assert seeds[1] != seeds[0]


def test_a_scene_is_scaled_to_the_longest_side_with_its_boxes(scene: FittedScene) -> None:
    assert max(scene.instances.shape) == SIZE.image
    assert scene.image.shape[:2] == scene.instances.shape == scene.semantic.shape
    for obj in scene.wanted:
        rows, columns = np.nonzero(scene.instances == obj.id)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(scene.box(obj) - tight).max() <= 1.5
        assert CATEGORIES[np.bincount(scene.semantic[rows, columns]).argmax()] == obj.category


def test_ignored_objects_are_not_asked_for() -> None:
    seeds = [scene_seed(0, index) for index in range(12)]
    ignored = 0
    for seed in seeds:
        ignored += sum(obj.ignore for obj in make_scene(seed, training_size(seed)).objects)
        assert not any(obj.ignore for obj in fit_scene(seed, SIZE.image).wanted)
    assert ignored > 0


def test_every_object_is_asked_for_once_before_any_twice(scene: FittedScene) -> None:
    rng, known = np.random.default_rng(0), len(scene.wanted)
    assert sorted(obj.id for obj in choose_objects(scene, known, rng)) == [obj.id for obj in scene.wanted]
    twice = [obj.id for obj in choose_objects(scene, 2 * known, rng)]
    assert sorted(twice[:known]) == sorted(twice[known:]) == [obj.id for obj in scene.wanted]
    assert len(choose_objects(scene, 2, rng)) == 2


def test_boxes_are_off_as_a_detectors_are_and_stay_in_the_picture() -> None:
    rng, box = np.random.default_rng(0), np.array([10, 20, 90, 128], np.float32)
    moved = np.array([jittered_box(box, (128, 100), rng) for _ in range(400)])
    overlap = np.minimum(moved[:, 2:], box[2:]) - np.maximum(moved[:, :2], box[:2])
    shared = overlap.prod(1)
    iou = shared / ((moved[:, 2:] - moved[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - shared)
    assert 0.88 < iou.mean() < 0.96
    assert iou.min() > 0.7
    assert (iou < 0.9).mean() > 0.1
    assert 0.05 < (iou == 1).mean() < 0.3
    assert moved.min() >= 0
    assert moved[:, 2].max() <= 100
    assert moved[:, 3].max() <= 128


def test_points_lie_on_their_object_and_background_points_beside_it(scene: FittedScene) -> None:
    rng, seen = np.random.default_rng(0), set()
    for obj in scene.wanted:
        for _ in range(12):
            points, labels = draw_points(scene, obj, rng)
            for (x, y), label in zip(points.astype(int), labels, strict=True):
                seen.add(label)
                if label >= 0:
                    assert (scene.instances[y, x] == obj.id) == bool(label)
            assert labels[0] == 1
    assert seen == {-1, 0, 1}


def test_targets_cover_their_object(scene: FittedScene) -> None:
    for obj in scene.wanted:
        coverage, weights = target_planes(scene, obj, SIZE)
        assert coverage.shape == weights.shape == (64, 64)
        cells = coverage.astype(float).sum() / 255 * (SIZE.image / SIZE.mask_side) ** 2
        assert cells == pytest.approx((scene.instances == obj.id).sum(), rel=0.03)
        x0, y0, x1, y1 = scene.box(obj) / 2
        inside = coverage[int(y0) : int(np.ceil(y1)) + 1, int(x0) : int(np.ceil(x1)) + 1]
        assert inside.astype(int).sum() == coverage.astype(int).sum()


def test_weights_are_largest_along_outlines_and_least_far_away() -> None:
    coverage = np.zeros((32, 32), np.uint8)
    coverage[4:14, 4:14] = 255
    coverage[14:20, 8] = 255
    weights = cell_weights(coverage, np.array([4, 4, 14, 20], np.float32))
    assert weights[8, 8] == NEAR_WEIGHT
    assert weights[4, 8] == weights[3, 8] == NEAR_WEIGHT + EDGE_WEIGHT
    assert (weights[15:19, 8] == NEAR_WEIGHT + EDGE_WEIGHT).all(), "thin parts are outline all through"
    assert weights[30, 30] == pytest.approx(FAR_WEIGHT)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    first, again = (make_segmenter_batch(5, 7, 2, SIZE) for _ in range(2))
    for name in ("pixel_values", "boxes", "points", "labels", "point_boxes"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert torch.equal(first.box_targets.masks, again.box_targets.masks)
    assert torch.equal(first.point_targets.weights, again.point_targets.weights)
    other = make_segmenter_batch(5, 8, 2, SIZE)
    assert not torch.equal(first.pixel_values, other.pixel_values)


def test_a_batchs_prompts_and_masks_belong_together() -> None:
    batch = make_segmenter_batch(0, 3, 2, SIZE, box_prompts=6, point_prompts=3)
    assert batch.boxes.shape == (2, 6, 4)
    assert batch.box_targets.masks.shape == (2, 6, 64, 64)
    assert batch.points.shape == (2, 3, 2, 2)
    for masks, boxes in ((batch.box_targets.masks, batch.boxes), (batch.point_targets.masks, batch.point_boxes)):
        for mask, box in zip(masks.flatten(0, 1), boxes.flatten(0, 1), strict=True):
            rows, columns = torch.nonzero(mask > 0.5, as_tuple=True)
            tight = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * 2.0
            reach = 0.08 * max(tight[2] - tight[0], tight[3] - tight[1]) + 5.0
            assert (tight - box).abs().max() <= reach
    for points, masks in zip(batch.points, batch.point_targets.masks, strict=True):
        for (x, y), mask in zip(points[:, 0].long().tolist(), masks, strict=True):
            assert mask[y // 2, x // 2] > 0


def test_dense_targets_name_the_owner_of_every_cell() -> None:
    batch = make_segmenter_batch(0, 0, 1, SIZE)
    fitted = fit_scene(scene_seed(0, 0), SIZE.image)
    height, width = fitted.instances[::2, ::2].shape
    classes = batch.dense.classes[0]
    assert torch.equal(classes[:height, :width], torch.from_numpy(fitted.semantic[::2, ::2]).long())
    assert (classes[height:] == OUTSIDE).all()
    assert (classes[:, width:] == OUTSIDE).all()
    obj = fitted.wanted[0]
    owned = torch.from_numpy(fitted.instances[::2, ::2] == obj.id)
    sides = batch.dense.sides[0, :, :height, :width][:, owned]
    torch.testing.assert_close(sides[:, 0] * SIZE.image, torch.from_numpy(fitted.box(obj)))
    assert (sides == sides[:, :1]).all()
    assert 0.01 < batch.dense.edges.mean() < 0.5
