"""Training pictures of Mask R-CNN: the truth follows the picture through flips and scales, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from segserve.models.mask_rcnn.architecture import InputShape
from segserve.training.coco import Dataset, read_dataset
from segserve.training.mask_rcnn_data import Pictures, Variation, batches_of_epoch, load_batches
from segserve.training.scenes.files import write_scenes

SHAPE = InputShape(64, 128, "RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 3_000_000, 5, (96, 128))
    return read_dataset(folder / "instances.json", folder)


def pictures(dataset: Dataset, *, flip: bool, scale: tuple[float, float] = (1.0, 1.0)) -> Pictures:
    return Pictures(dataset, SHAPE, Variation(flip, scale), seed=7)


def test_unvaried_pictures_have_the_input_size_and_fitting_masks(dataset: Dataset) -> None:
    source = pictures(dataset, flip=False)
    for index, picture in enumerate(dataset.pictures):
        image, target = source[(0, index)]
        assert image.shape == (64, 85, 3)
        assert target["masks"].shape[1:] == (64, 85)
        assert len(target["boxes"]) == len(target["labels"]) == len(target["masks"]) > 0
        assert set(target["labels"].tolist()) <= {thing.class_index + 1 for thing in picture.objects}
        for box, mask in zip(target["boxes"], target["masks"].bool().numpy(), strict=True):
            columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
            if len(columns) > 3 and len(rows) > 3:
                tight = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
                np.testing.assert_allclose(box.numpy(), tight, atol=1.6)


def test_flipping_mirrors_picture_boxes_and_masks_alike(dataset: Dataset) -> None:
    plain, varied = pictures(dataset, flip=False), pictures(dataset, flip=True)
    seen = set()
    for epoch in range(6):
        image, target = plain[(epoch, 0)]
        other, mirrored = varied[(epoch, 0)]
        flipped = not np.array_equal(image, other)
        seen.add(flipped)
        if flipped:
            np.testing.assert_array_equal(other, image[:, ::-1])
            np.testing.assert_array_equal(mirrored["masks"].numpy(), target["masks"].numpy()[:, :, ::-1])
            width = image.shape[1]
            assert (mirrored["boxes"][:, 0] + target["boxes"][:, 2]).tolist() == pytest.approx(
                [width] * len(target["boxes"])
            )
            assert (mirrored["boxes"][:, 2] > mirrored["boxes"][:, 0]).all()
    assert seen == {True, False}


def test_scale_varies_within_its_range_and_repeats_for_a_seed(dataset: Dataset) -> None:
    source = pictures(dataset, flip=True, scale=(0.5, 1.5))
    heights = [source[(epoch, 1)][0].shape[0] for epoch in range(12)]
    assert len(set(heights)) > 6
    assert all(32 <= height <= 96 for height in heights)
    assert heights == [pictures(dataset, flip=True, scale=(0.5, 1.5))[(epoch, 1)][0].shape[0] for epoch in range(12)]


@pytest.mark.parametrize("count", [3, 4, 10])
def test_epochs_are_shuffled_whole_and_differ(count: int) -> None:
    first, second = batches_of_epoch(count, 0, 4, 1), batches_of_epoch(count, 1, 4, 1)
    assert first == batches_of_epoch(count, 0, 4, 1)
    assert [[index for _, index in batch] for batch in first] != [[index for _, index in batch] for batch in second]
    assert all(len(batch) == 4 and {epoch for epoch, _ in batch} == {0} for batch in first)
    assert len(first) == max(1, count // 4)
    indices = [index for batch in first for _, index in batch]
    assert len(set(indices)) == min(count, len(indices))


def test_loading_processes_change_nothing(dataset: Dataset) -> None:
    batches = batches_of_epoch(5, 0, 2, 3)
    alone, helped = (list(load_batches(pictures(dataset, flip=True, scale=(0.8, 1.2)), batches, n)) for n in (0, 1))
    assert len(alone) == len(helped) == 2
    for one, other in zip(alone, helped, strict=True):
        assert one.sizes == other.sizes
        np.testing.assert_array_equal(one.images.numpy(), other.images.numpy())
        for mine, theirs in zip(one.targets, other.targets, strict=True):
            np.testing.assert_array_equal(mine["boxes"].numpy(), theirs["boxes"].numpy())
