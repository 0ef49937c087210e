"""Training of the demo SAM with a model of a few thousand weights: resuming, learning, exporting."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import SamModel, SamProcessor

import segserve.training.segmenter_training as segmenter_training
from segserve.errors import InvalidRequestError
from segserve.training.checkpoint import load_state
from segserve.training.progress import Progress
from segserve.training.scenes import make_scene
from segserve.training.schedule import Schedule
from segserve.training.segmenter import SegmenterSize
from segserve.training.segmenter_batches import make_segmenter_batch
from segserve.training.segmenter_run import WeightAverage
from segserve.training.segmenter_training import (
    SegmenterSettings,
    export_segmenter,
    load_average,
    segmenter_run,
    train_segmenter,
)

SIZE = SegmenterSize(image=64, patch=8, width=32, embedding=32, layers=2, heads=2, window=4, decoder_heads=2)
SETTINGS = SegmenterSettings(
    batch_size=2, box_prompts=3, point_prompts=1, bfloat16=False, size=SIZE, schedule=Schedule(peak=2e-3, warmup=2)
)


def train(work: Path, steps: int, **options: Any) -> None:
    train_segmenter(work, steps=steps, batch_size=2, settings=SETTINGS, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("trained")
    train(work, 5)
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
        if state.step == 4:
            raise StopNowError

    with pytest.raises(StopNowError):
        train(tmp_path, 5, checkpoint_every=3, progress=interrupt)
    halfway = load_state(tmp_path)
    assert halfway is not None
    assert halfway.step == 3
    train(tmp_path, 5, checkpoint_every=3)
    whole, resumed = load_state(trained), load_state(tmp_path)
    assert whole is not None
    assert resumed is not None
    assert resumed.step == whole.step == 5
    for part in ("trainee", "average"):
        assert same(resumed.model[part], whole.model[part]), part
    assert same(resumed.optimizer, whole.optimizer)
    assert not same(halfway.model["trainee"], whole.model["trainee"])


def test_a_finished_run_does_nothing_more(trained: Path) -> None:
    seen: list[Progress] = []
    train(trained, 5, progress=seen.append)
    assert seen == []


def test_a_folder_of_a_run_with_other_settings_is_refused(trained: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"other settings \(box_prompts\)"):
        train_segmenter(trained, steps=9, batch_size=2, settings=replace(SETTINGS, box_prompts=4))


def test_progress_reports_every_step_with_its_rate_and_losses(tmp_path: Path) -> None:
    seen: list[Progress] = []
    train(tmp_path, 3, progress=seen.append)
    assert [(state.step, state.steps) for state in seen] == [(1, 3), (2, 3), (3, 3)]
    assert [state.learning_rate for state in seen] == [SETTINGS.schedule.rate(step, 3) for step in range(3)]
    first = seen[0].losses
    helper = SETTINGS.helper * seen[0].learning_rate / SETTINGS.schedule.peak
    assert first["total"] == pytest.approx(first["boxes"] + first["points"] + helper * first["helper"], rel=1e-4)
    assert 0 <= first["boxes IoU"] <= 1
    assert seen[-1].images_per_second > 0


def test_every_trainable_parameter_is_taught_within_four_steps(tmp_path: Path) -> None:
    run = segmenter_run(tmp_path, SETTINGS)
    before = {name: parameter.detach().clone() for name, parameter in run.trainee.named_parameters()}
    for _ in range(4):
        run.advance(10)
    unmoved = {name for name, now in run.trainee.named_parameters() if torch.equal(now, before[name])}
    frozen = {name for name, now in run.trainee.named_parameters() if not now.requires_grad}
    # Of three candidates only the best is taught, and at the start it may always be the same one.
    losers = {name for name in unmoved if "output_hypernetworks_mlps" in name}
    assert len({name.split(".")[3] for name in losers}) <= 2
    # A key's bias adds the same to all inputs of a softmax, which does not feel it: rounding alone decides there.
    assert {name for name in unmoved - losers if not name.endswith("k_proj.bias")} == frozen


def test_repeating_one_batch_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, schedule=Schedule(peak=3e-3, warmup=5, decay=0.0))
    batch = make_segmenter_batch(0, 0, 2, SIZE, box_prompts=3, point_prompts=1)
    monkeypatch.setattr(segmenter_training, "make_segmenter_batch", lambda *_, **__: batch)
    run = segmenter_run(tmp_path, settings)
    reports = [run.advance(10_000) for _ in range(120)]
    assert reports[-1]["boxes"] < 0.5 * reports[0]["boxes"]
    assert reports[-1]["boxes IoU"] > 0.6


def test_bfloat16_gives_almost_the_same_loss(tmp_path: Path) -> None:
    exact, reduced = (segmenter_run(tmp_path, replace(SETTINGS, bfloat16=flag)).advance(10) for flag in (False, True))
    assert reduced != exact
    assert reduced["total"] == pytest.approx(exact["total"], rel=0.02)


def test_the_average_trails_the_weights() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 0.0)
    average = WeightAverage(module)
    torch.nn.init.constant_(module.weight, 1.0)
    average.update(0)
    assert average.average["weight"].item() == pytest.approx(0.9)  # decay 1 / 10 at the first step
    torch.nn.init.constant_(module.weight, 2.0)
    average.update(10**6)
    assert average.average["weight"].item() == pytest.approx(0.998 * 0.9 + 0.002 * 2.0)


def test_the_export_loads_with_official_classes_and_answers_as_the_averaged_model(
    trained: Path, tmp_path: Path
) -> None:
    export_segmenter(trained, tmp_path)
    model, processor = SamModel.from_pretrained(tmp_path).eval(), SamProcessor.from_pretrained(tmp_path)
    expected, _ = load_average(trained)
    picture = make_scene(5).image
    height, width = picture.shape[:2]
    boxes = [[[0.0, 0.0, width / 2, height / 2], [width / 4, height / 4, width - 9.0, height - 9.0]]]
    inputs = processor(images=picture, input_boxes=boxes, return_tensors="pt")
    given = {name: inputs[name] for name in ("pixel_values", "input_boxes")}
    with torch.no_grad():
        found, wanted = (net(**given, multimask_output=False) for net in (model, expected))
    torch.testing.assert_close(found.pred_masks, wanted.pred_masks, atol=0.02, rtol=0.02)  # stored in half precision
    sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
    first, second = (processor.post_process_masks(answer.pred_masks, *sizes)[0] for answer in (found, wanted))
    assert first.shape == (2, 1, height, width)
    assert (first == second).float().mean() > 0.995
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    state = load_state(trained)
    assert state is not None
    name = "mask_decoder.mask_tokens.weight"
    torch.testing.assert_close(model.state_dict()[name], state.model["average"][name], atol=1e-3, rtol=1e-3)
    assert not torch.equal(state.model["average"][name], state.model["trainee"][f"segmenter.{name}"])


def test_an_empty_folder_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a checkpoint"):
        export_segmenter(tmp_path / "nothing", tmp_path / "out")
