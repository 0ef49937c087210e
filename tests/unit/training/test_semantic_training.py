"""Training of the demo semantic model on pictures of 64 pixels: resuming, learning, exporting."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import segserve.training.semantic_training as semantic_training
from segserve.errors import InvalidRequestError
from segserve.models.semantic.checkpoint import load_checkpoint
from segserve.training.checkpoint import load_state
from segserve.training.progress import Progress
from segserve.training.scenes import CATEGORIES
from segserve.training.schedule import Schedule
from segserve.training.semantic_batches import make_semantic_batch
from segserve.training.semantic_training import (
    SemanticRun,
    SemanticSettings,
    StateAverage,
    coarse_logits,
    export_semantic,
    train_semantic,
)

SETTINGS = SemanticSettings(
    batch_size=2, early_size=(32, 32), input_size=(64, 64), bfloat16=False, schedule=Schedule(peak=2e-3, warmup=2)
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("trained")
    train_semantic(work, steps=4, settings=SETTINGS)
    return work


def same(first: object, second: object) -> bool:
    """Deep equality of state dictionaries."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    return first == second


def test_an_interrupted_run_ends_exactly_as_an_uninterrupted_one(trained: Path, tmp_path: Path) -> None:
    class StopNowError(Exception):
        pass

    def interrupt(state: Progress) -> None:
        if state.step == 3:
            raise StopNowError

    with pytest.raises(StopNowError):
        train_semantic(tmp_path, steps=4, settings=SETTINGS, checkpoint_every=2, progress=interrupt)
    halfway = load_state(tmp_path)
    assert halfway is not None and halfway.step == 2
    train_semantic(tmp_path, steps=4, settings=SETTINGS, checkpoint_every=2)
    whole, resumed = load_state(trained), load_state(tmp_path)
    assert whole is not None and resumed is not None
    assert resumed.step == whole.step == 4
    for part in ("trainee", "average"):
        assert same(resumed.model[part], whole.model[part]), part
    assert same(resumed.optimizer, whole.optimizer)
    assert not same(halfway.model["trainee"], whole.model["trainee"])


def test_a_finished_run_does_nothing_more(trained: Path) -> None:
    seen: list[Progress] = []
    train_semantic(trained, steps=4, settings=SETTINGS, progress=seen.append)
    assert seen == []


def test_a_folder_of_a_run_with_other_settings_is_refused(trained: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"other settings \(batch_size\)"):
        train_semantic(trained, steps=9, settings=replace(SETTINGS, batch_size=3))


def test_the_input_grows_when_the_rate_begins_to_fall() -> None:
    sizes = [SETTINGS.size_at(step, 10) for step in range(10)]
    assert sizes == [(32, 32)] * 7 + [(64, 64)] * 3
    rates = [SETTINGS.schedule.rate(step, 10) for step in range(10)]
    assert rates[7] == SETTINGS.schedule.peak > rates[8]


def test_the_pictures_have_the_size_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def note(*arguments: Any) -> Any:
        made.append(arguments)
        return make_semantic_batch(*arguments)

    monkeypatch.setattr(semantic_training, "make_semantic_batch", note)
    train_semantic(tmp_path, steps=2, settings=replace(SETTINGS, schedule=Schedule(peak=1e-3, warmup=0, decay=0.5)))
    assert made == [(0, 0, 2, (32, 32)), (0, 1, 2, (64, 64))]


def test_progress_reports_every_step_with_its_rate_and_losses(tmp_path: Path) -> None:
    seen: list[Progress] = []
    train_semantic(tmp_path, steps=2, settings=SETTINGS, progress=seen.append)
    assert [(state.step, state.steps) for state in seen] == [(1, 2), (2, 2)]
    assert [state.learning_rate for state in seen] == [SETTINGS.schedule.rate(step, 2) for step in range(2)]
    losses = seen[0].losses
    assert losses["total"] == pytest.approx(losses["pixels"] + losses["overlap"], rel=1e-5)


def test_repeating_one_batch_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_semantic_batch(0, 0, 2, (64, 64))
    monkeypatch.setattr(semantic_training, "make_semantic_batch", lambda *_: batch)
    run = SemanticRun(tmp_path, replace(SETTINGS, schedule=Schedule(peak=2e-3, warmup=2, decay=0.0)))
    losses = [run.advance(100)["pixels"] for _ in range(12)]
    assert losses[-1] < 0.5 * losses[0]


def test_bfloat16_computes_nearly_the_same(tmp_path: Path) -> None:
    batch = make_semantic_batch(0, 0, 2, (64, 64))
    losses = []
    for reduced in (False, True):
        run = SemanticRun(tmp_path / str(reduced), replace(SETTINGS, bfloat16=reduced))
        losses.append({name: float(value.detach()) for name, value in run.trainee(batch).items()})
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]


@pytest.mark.parametrize("architecture", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_coarse_logits_are_those_that_the_network_scales(architecture: str) -> None:
    config = semantic_training.semantic_config(replace(SETTINGS, architecture=architecture))
    network = semantic_training.build_network(config).eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        coarse = coarse_logits(network, pixels)
        scaled = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear", align_corners=False)
        assert coarse.shape[-1] < 64
        assert torch.allclose(scaled, network(pixels), atol=1e-5)


def test_the_average_follows_weights_and_statistics() -> None:
    module = torch.nn.BatchNorm1d(2)
    average = StateAverage(module)
    with torch.no_grad():
        module.weight.fill_(3.0)
        module.running_mean.fill_(1.0)  # type: ignore[union-attr]
    average.update(0)  # the first step counts nine tenths
    assert torch.allclose(average.average["weight"], torch.tensor(1.0 + 0.9 * 2.0))
    assert torch.allclose(average.average["running_mean"], torch.tensor(0.9))
    average.update(10**9)
    assert torch.allclose(average.average["weight"], torch.tensor(2.8 + 0.002 * 0.2))
    assert "num_batches_tracked" not in average.average


def test_the_export_is_the_average_in_half_precision(trained: Path, tmp_path: Path) -> None:
    export_semantic(trained, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["classes"] == list(CATEGORIES) and config["input_size"] == [64, 64]
    state = load_state(trained)
    assert state is not None
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored.keys() >= state.model["average"].keys()
    for name, tensor in state.model["average"].items():
        assert stored[name].dtype == torch.float16 and torch.equal(stored[name], tensor.half()), name
    checkpoint = load_checkpoint(tmp_path / "out")
    with torch.inference_mode():
        assert checkpoint.network(torch.zeros(1, 3, 64, 64)).shape == (1, len(CATEGORIES), 64, 64)


def test_a_folder_without_a_checkpoint_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a checkpoint"):
        export_semantic(tmp_path, tmp_path / "out")
