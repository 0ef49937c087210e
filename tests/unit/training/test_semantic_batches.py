"""Batches for the semantic model: what is in them, and that they repeat themselves."""

import numpy as np
import pytest
import torch
from PIL import Image

from segserve.training import semantic_batches
from segserve.training.scenes import CATEGORIES, make_scene
from segserve.training.segmenter_batches import scene_seed
from segserve.training.semantic_batches import DEVIATION, IGNORED, MEAN, make_semantic_batch


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    first, again = make_semantic_batch(3, 5, 2, (64, 96)), make_semantic_batch(3, 5, 2, (64, 96))
    assert torch.equal(first.pixel_values, again.pixel_values) and torch.equal(first.labels, again.labels)
    for other in (make_semantic_batch(3, 6, 2, (64, 96)), make_semantic_batch(4, 5, 2, (64, 96))):
        assert not torch.equal(first.labels, other.labels)


def test_shapes_and_values() -> None:
    batch = make_semantic_batch(0, 0, 3, (64, 96))
    assert batch.pixel_values.shape == (3, 3, 64, 96) and batch.pixel_values.dtype == torch.float32
    assert batch.pixel_values.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.shape == (3, 32, 48) and batch.labels.dtype == torch.int64
    assert set(batch.labels.unique().tolist()) <= {*range(len(CATEGORIES)), IGNORED}


def test_pictures_are_scaled_and_normalized_and_labels_lie_where_the_things_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(semantic_batches, "SCALES", (1.0, 1.0))
    batch = make_semantic_batch(0, 0, 1, (128, 128))
    scene = make_scene(scene_seed(0, 0))
    small = np.asarray(Image.fromarray(scene.image).resize((128, 128), Image.Resampling.BILINEAR))
    expected = (small / 255 - np.array(MEAN)) / np.array(DEVIATION)
    np.testing.assert_allclose(batch.pixel_values[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    height, width = scene.semantic.shape
    rows = ((np.arange(64) + 0.5) * height / 64).astype(int)
    columns = ((np.arange(64) + 0.5) * width / 64).astype(int)
    truth, labels = scene.semantic[np.ix_(rows, columns)], batch.labels[0].numpy()
    counted = labels != IGNORED
    assert (truth[counted] == labels[counted]).mean() > 0.99


def test_objects_that_are_not_scored_are_not_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic_batches, "SCALES", (1.0, 1.0))
    step = 36  # a rug of which little is to be seen
    scene = make_scene(scene_seed(0, step))
    expected = sum(each.area for each in scene.objects if each.ignore) / scene.semantic.size
    assert expected > 0.03
    labels = make_semantic_batch(0, step, 1, (256, 256)).labels
    assert float((labels == IGNORED).float().mean()) == pytest.approx(expected, rel=0.1)
