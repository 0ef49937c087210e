"""Training of the demo SAM 2 with a model of a few thousand weights: resuming, learning, exporting."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Sam2Model, Sam2Processor

import segserve.training.click_training as click_training
from segserve.errors import InvalidRequestError
from segserve.training.checkpoint import load_state
from segserve.training.click_batches import make_click_batch
from segserve.training.click_segmenter import ClickSegmenterSize
from segserve.training.click_training import (
    ClickSettings,
    Turn,
    click_run,
    export_click_segmenter,
    load_click_average,
    train_click_segmenter,
)
from segserve.training.progress import Progress
from segserve.training.scenes import make_scene
from segserve.training.schedule import Schedule

SIZE = ClickSegmenterSize(image=64, width=8, blocks=(1, 1, 2, 1), windows=(4, 4, 4, 2), embedding=32, decoder_heads=2)
SETTINGS = ClickSettings(
    batch_size=2, clicks=3, boxes=2, bfloat16=False, size=SIZE, schedule=Schedule(peak=2e-3, warmup=2)
)


def train(work: Path, steps: int, **options: Any) -> None:
    train_click_segmenter(work, steps=steps, batch_size=2, settings=SETTINGS, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("trained")
    train(work, 5)
    return work


def test_an_interrupted_run_ends_exactly_as_an_uninterrupted_one(trained: Path, tmp_path: Path) -> None:
    class StopNowError(Exception):
        pass

    def interrupt(state: Progress) -> None:
        if state.step == 4:
            raise StopNowError

    with pytest.raises(StopNowError):
        train(tmp_path, 5, checkpoint_every=3, progress=interrupt)
    halfway = load_state(tmp_path)
    assert halfway is not None and halfway.step == 3
    train(tmp_path, 5)
    whole, resumed = load_state(trained), load_state(tmp_path)
    assert whole is not None and resumed is not None
    assert resumed.step == whole.step == 5
    for part in ("trainee", "average"):
        for name, weight in whole.model[part].items():
            assert torch.equal(resumed.model[part][name], weight), f"{part} {name}"
    name = "segmenter.mask_decoder.mask_tokens.weight"
    assert not torch.equal(halfway.model["trainee"][name], whole.model["trainee"][name])


def test_a_folder_of_a_run_with_other_settings_is_refused(trained: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"other settings \(clicks\)"):
        train_click_segmenter(trained, steps=9, batch_size=2, settings=replace(SETTINGS, clicks=4))


def test_single_clicks_with_three_answers_are_trained_most() -> None:
    turns = [Turn.of_step(step) for step in range(40)]
    assert sum(turn.click_candidates for turn in turns) == 32
    assert sum(turn.box_candidates for turn in turns) == 8
    corrected = {(turn.correct_boxes, turn.feed_mask, turn.corrections) for turn in turns}
    assert {(boxes, mask) for boxes, mask, _ in corrected} == {
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    }
    assert {count for _, _, count in corrected} == {1, 2}


def test_every_trainable_parameter_is_taught_within_eight_steps(tmp_path: Path) -> None:
    run = click_run(tmp_path, SETTINGS)
    before = {name: parameter.detach().clone() for name, parameter in run.trainee.named_parameters()}
    for _ in range(8):
        run.advance(10)
    unmoved = {name for name, now in run.trainee.named_parameters() if torch.equal(now, before[name])}
    frozen = {name for name, now in run.trainee.named_parameters() if not now.requires_grad}
    # Of three candidates only the best and the served one are taught; at the start they may always be the same.
    losers = {name for name in unmoved if "output_hypernetworks_mlps" in name}
    assert len({name.split(".")[3] for name in losers}) <= 2
    # A key's bias adds the same to all inputs of a softmax, which does not feel it: rounding alone decides there.
    assert {name for name in unmoved - losers if not name.endswith("k_proj.bias")} == frozen
    assert {name.split(".")[2] for name in frozen} == {"pred_obj_score_head"}


def _ends(reports: list[dict[str, float]]) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    return reports[:20], reports[-20:]


def test_repeating_one_batch_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, schedule=Schedule(peak=3e-3, warmup=5, decay=0.0))
    batch = make_click_batch(0, 0, 2, SIZE, clicks=3, boxes=2)
    monkeypatch.setattr(click_training, "make_click_batch", lambda *_, **__: batch)
    run = click_run(tmp_path, settings)
    reports = [run.advance(10_000) for _ in range(100)]
    # What is asked changes with the step, so that single steps cannot be compared.
    first, last = ({name: sum(report[name] for report in part) / 20 for name in part[0]} for part in _ends(reports))
    assert last["clicks"] < 0.7 * first["clicks"] and last["boxes"] < 0.75 * first["boxes"]
    for name in ("clicks IoU", "boxes IoU", "corrections IoU"):
        assert last[name] > first[name] + 0.2, name


def test_bfloat16_gives_almost_the_same_loss(tmp_path: Path) -> None:
    exact, reduced = (click_run(tmp_path, replace(SETTINGS, bfloat16=flag)).advance(10) for flag in (False, True))
    assert reduced != exact
    assert reduced["total"] == pytest.approx(exact["total"], rel=0.02)


def test_the_export_loads_with_official_classes_and_answers_as_the_averaged_model(
    trained: Path, tmp_path: Path
) -> None:
    export_click_segmenter(trained, tmp_path)
    model, processor = Sam2Model.from_pretrained(tmp_path).eval(), Sam2Processor.from_pretrained(tmp_path)
    expected, _ = load_click_average(trained)
    picture = make_scene(5).image
    height, width = picture.shape[:2]
    clicks = [[[[width / 2, height / 2]], [[width / 4, height / 3]]]]
    inputs = processor(images=picture, input_points=clicks, return_tensors="pt")
    given = {name: inputs[name] for name in ("pixel_values", "input_points")}
    with torch.no_grad():
        found, wanted = (net(**given) for net in (model, expected))
    torch.testing.assert_close(found.pred_masks, wanted.pred_masks, atol=0.02, rtol=0.02)  # stored in half precision
    masks = processor.post_process_masks(found.pred_masks, inputs["original_sizes"])[0]
    assert masks.shape == (2, 3, height, width)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    state = load_state(trained)
    assert state is not None
    trained_weights, average = state.model["trainee"], state.model["average"]
    name = "mask_decoder.mask_tokens.weight"
    torch.testing.assert_close(model.state_dict()[name], average[name], atol=1e-3, rtol=1e-3)
    assert not torch.equal(average[name], trained_weights[f"segmenter.{name}"])
    # The frequencies of positions are drawn once; a model with others would not find its prompts.
    for part in ("shared_image_embedding", "prompt_encoder.shared_embedding"):
        name = f"{part}.positional_embedding"
        torch.testing.assert_close(model.state_dict()[name], trained_weights[f"segmenter.{name}"], atol=1e-3, rtol=1e-3)


def test_an_empty_folder_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a checkpoint"):
        export_click_segmenter(tmp_path / "nothing", tmp_path / "out")
