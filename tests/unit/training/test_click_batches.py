"""Batches of the demo SAM 2: stretched scenes, clicks on their objects, corrections where an answer is wrong."""

import numpy as np
import pytest
import torch

from segserve.training.click_batches import corrections, draw_first_click, make_click_batch
from segserve.training.click_segmenter import ClickSegmenterSize
from segserve.training.segmenter_batches import FittedScene, fit_scene, scene_seed

SIZE = ClickSegmenterSize(image=128, windows=(8, 4, 4, 2))


@pytest.fixture(scope="module")
def scene() -> FittedScene:
    return fit_scene(scene_seed(0, 0), SIZE.image, stretch=True)


def test_a_scene_is_stretched_to_a_square_with_its_boxes(scene: FittedScene) -> None:
    assert scene.image.shape == (128, 128, 3)
    assert scene.instances.shape == scene.semantic.shape == (128, 128)
    for obj in scene.wanted:
        rows, columns = np.nonzero(scene.instances == obj.id)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(scene.box(obj) - tight).max() <= 1.5


def test_first_clicks_lie_on_their_object(scene: FittedScene) -> None:
    rng = np.random.default_rng(0)
    for obj in scene.wanted:
        clicks = [draw_first_click(scene, obj, rng).astype(int) for _ in range(20)]
        assert all(scene.instances[row, column] == obj.id for column, row in clicks)
        assert len({(column, row) for column, row in clicks}) > 3


def test_a_batch_is_a_function_of_its_seed_and_step() -> None:
    first, again, other = (make_click_batch(0, step, 1, SIZE, clicks=3, boxes=2) for step in (4, 4, 5))
    assert torch.equal(first.points, again.points) and torch.equal(first.boxes, again.boxes)
    assert not torch.equal(first.pixel_values, other.pixel_values)


def test_targets_hold_the_clicked_cells() -> None:
    batch = make_click_batch(0, 1, 2, SIZE, clicks=5, boxes=2)
    assert batch.points.shape == (2, 5, 1, 2) and batch.labels.unique().tolist() == [1]
    assert batch.box_targets.masks.shape == (2, 2, 32, 32) and batch.boxes.shape == (2, 2, 4)
    cells = (batch.points[:, :, 0] / 4).long()
    for picture in range(2):
        for click in range(5):
            column, row = cells[picture, click].tolist()
            assert batch.point_targets.masks[picture, click, row, column] > 0


@pytest.mark.parametrize("count", [1, 2])
def test_corrections_lie_in_wrong_cells_with_the_true_label(count: int) -> None:
    truth = torch.zeros(1, 3, 16, 16)
    truth[:, :, 2:10, 2:10] = 1.0
    logits = torch.where(truth > 0, 4.0, -4.0)
    logits[0, 0, 2:6, 2:6] = -4.0  # missed
    logits[0, 1, 12:15, 12:15] = 4.0  # false
    for seed in range(10):
        points, labels = corrections(logits, truth, 4.0, np.random.default_rng(seed), count)
        assert points.shape == (1, 3, count, 2)
        assert labels[0].tolist() == [[1] * count, [0] * count, [-1] * count]
        assert ((points[0, 0] > 7) & (points[0, 0] < 24)).all()
        assert ((points[0, 1] > 47) & (points[0, 1] < 60)).all()
