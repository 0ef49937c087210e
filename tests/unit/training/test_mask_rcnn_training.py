"""Training of Mask R-CNN: it learns, it resumes exactly, it keeps the best epoch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from segserve.errors import InvalidRequestError
from segserve.models.device import choose_placement
from segserve.models.mask_rcnn.checkpoint import load_checkpoint
from segserve.models.mask_rcnn.heads import RegionHeads
from segserve.models.mask_rcnn.network import MaskRcnnNetwork
from segserve.training import mask_rcnn_training
from segserve.training.coco import Dataset, LabeledPicture, read_dataset
from segserve.training.mask_rcnn_start import new_architecture
from segserve.training.mask_rcnn_training import Epoch, MaskRcnnRun, MaskRcnnSettings, has_run
from segserve.training.mask_rcnn_validation import validate
from segserve.training.progress import Progress
from segserve.training.scenes.files import write_scenes

PLACEMENT = choose_placement("cpu", "float32")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 3_100_000, 4, (64, 96))
    return read_dataset(folder / "instances.json", folder)


def network(dataset: Dataset, seed: int = 0) -> MaskRcnnNetwork:
    torch.manual_seed(seed)
    shape = new_architecture(
        dataset.classes, "mobilenet_v3_large", channels=16, box_channels=32, min_size=64, max_size=96
    )
    return MaskRcnnNetwork(shape)


def run(work: Path, dataset: Dataset, validation: Dataset | None = None, **settings: object) -> MaskRcnnRun:
    wanted = MaskRcnnSettings(batch_size=2, scale=(0.9, 1.1), **settings)  # type: ignore[arg-type]
    return MaskRcnnRun(work, network(dataset), dataset, validation, wanted, PLACEMENT)


def test_losses_fall_and_progress_counts_steps(tmp_path: Path, dataset: Dataset) -> None:
    seen: list[Progress] = []
    run(tmp_path / "work", dataset).train(tmp_path / "out", epochs=12, progress=seen.append)
    assert [state.step for state in seen] == list(range(1, 25))
    assert seen[-1].steps == 24
    first, last = seen[0].losses, seen[-1].losses
    assert set(first) == {"total", "objectness", "proposal", "classification", "box", "mask"}
    assert last["total"] < 0.95 * first["total"]
    assert last["classification"] < first["classification"]
    assert load_checkpoint(tmp_path / "out").architecture.classes == dataset.classes


def test_every_part_of_the_network_learns(tmp_path: Path, dataset: Dataset) -> None:
    training = run(tmp_path, dataset)
    before = {name: tensor.clone() for name, tensor in training.network.named_parameters()}
    training.train(tmp_path / "out", epochs=1)
    still = [name for name, tensor in training.network.named_parameters() if torch.equal(tensor, before[name])]
    assert still == []


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, dataset: Dataset) -> None:
    run(tmp_path / "a", dataset).train(tmp_path / "whole", epochs=3)

    class StopError(Exception):
        pass

    def stop(state: Progress) -> None:
        if state.step == 3:
            raise StopError

    interrupted = run(tmp_path / "b", dataset)
    with pytest.raises(StopError):
        interrupted.train(tmp_path / "parts", epochs=3, progress=stop, checkpoint_every=1)
    assert has_run(tmp_path / "b")
    resumed = run(tmp_path / "b", dataset)
    assert resumed.step == 3
    resumed.train(tmp_path / "parts", epochs=3)
    whole, parts = (load_checkpoint(tmp_path / name).state_dict() for name in ("whole", "parts"))
    for name, tensor in whole.items():
        np.testing.assert_allclose(parts[name].numpy(), tensor.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_resumed_run_keeps_its_settings(tmp_path: Path, dataset: Dataset) -> None:
    run(tmp_path, dataset).train(tmp_path / "out", epochs=1)
    with pytest.raises(InvalidRequestError, match="other settings"):
        run(tmp_path, dataset, rate=0.5)


def test_epochs_are_scored_and_the_best_is_kept(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([0.3, 0.6, 0.1])
    weights: list[dict[str, torch.Tensor]] = []

    def scored(averaged: MaskRcnnNetwork, *rest: object) -> object:
        scores, sheet = validate(averaged, *rest)  # type: ignore[arg-type]
        weights.append(averaged.state_dict())
        object.__setattr__(scores, "mask_ap", next(figures))
        return scores, sheet

    monkeypatch.setattr(mask_rcnn_training, "validate", scored)
    done: list[Epoch] = []
    training = run(tmp_path / "work", dataset, dataset)
    training.train(tmp_path / "out", epochs=3, epoch_done=done.append)
    assert [epoch.scores["mask_ap"] for epoch in done if epoch.scores] == [0.3, 0.6, 0.1]
    kept = load_checkpoint(tmp_path / "out").state_dict()
    for name, tensor in weights[1].items():
        torch.testing.assert_close(kept[name], tensor)
    history = json.loads((tmp_path / "work" / "history.json").read_text("utf-8"))
    assert [entry["number"] for entry in history] == [1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "out" / "samples").iterdir()) == [
        "epoch_001.jpg",
        "epoch_002.jpg",
        "epoch_003.jpg",
    ]


def test_pictures_without_objects_are_background(tmp_path: Path, dataset: Dataset) -> None:
    bare = [LabeledPicture(p.id, p.path, p.width, p.height, ()) for p in dataset.pictures[:3]]
    mixed = Dataset(dataset.classes, (*bare, dataset.pictures[3]), dataset.category_ids)
    seen: list[Progress] = []
    run(tmp_path, mixed).train(tmp_path / "out", epochs=2, progress=seen.append)
    assert all(np.isfinite(list(state.losses.values())).all() for state in seen)
    with pytest.raises(InvalidRequestError, match="no object to learn"):
        run(tmp_path / "other", Dataset(dataset.classes, tuple(bare), dataset.category_ids))


def test_class_agnostic_heads_can_be_trained(dataset: Dataset) -> None:
    from dataclasses import replace

    shape = network(dataset).architecture
    shape = replace(
        shape,
        box_head=replace(shape.box_head, class_agnostic=True),
        mask_head=replace(shape.mask_head, class_agnostic=True),
    )
    heads = RegionHeads(shape)
    features = {
        f"p{level}": torch.rand(1, 16, 64 // 2**index, 64 // 2**index) for index, level in enumerate(range(2, 7))
    }
    target = {
        "boxes": torch.tensor([[10.0, 10.0, 60.0, 60.0]]),
        "labels": torch.tensor([2]),
        "masks": torch.ones(1, 256, 256, dtype=torch.uint8),
    }
    losses = heads.losses(features, [torch.tensor([[12.0, 12.0, 58.0, 58.0], [100.0, 100.0, 200.0, 200.0]])], [target])
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())


def test_perfect_logits_have_no_loss(dataset: Dataset) -> None:
    """The translation between torchvision's background and ours: the right class and box cost nothing."""
    heads = RegionHeads(network(dataset).architecture)
    count = len(dataset.classes)
    truth = {
        "boxes": torch.tensor([[10.0, 10.0, 60.0, 60.0]]),
        "labels": torch.tensor([count]),
        "masks": torch.ones(1, 256, 256, dtype=torch.uint8),
    }
    proposals = [torch.tensor([[150.0, 150.0, 200.0, 200.0]])]

    def perfect(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # The sampled boxes are the truth itself (added to the proposals) and the far one.
        logits = torch.full((len(hidden), count + 1), -20.0)
        far = pooled_boxes[0][:, 0] > 100
        logits[far, count] = 20.0
        logits[~far, count - 1] = 20.0
        return logits, torch.zeros(len(hidden), 4 * count)

    pooled_boxes: list[torch.Tensor] = []
    pool = heads.box_roi_pool.forward

    def noting(features: dict[str, torch.Tensor], boxes: list[torch.Tensor]) -> torch.Tensor:
        pooled_boxes[:] = [torch.cat(boxes)]
        return torch.as_tensor(pool(features, boxes))

    heads.box_roi_pool.forward = noting
    heads.box_predictor.forward = perfect
    features = {
        f"p{level}": torch.rand(1, 16, 64 // 2**index, 64 // 2**index) for index, level in enumerate(range(2, 7))
    }
    losses = heads.losses(features, proposals, [truth])
    assert float(losses["classification"]) == pytest.approx(0, abs=1e-6)
    assert float(losses["box"]) == pytest.approx(0, abs=1e-6)
