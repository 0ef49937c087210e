"""Training of the demo detector with a model of a few thousand weights: resuming, learning, exporting."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from segserve.errors import InvalidRequestError
from segserve.training.checkpoint import load_state
from segserve.training.detector import DetectorSize, build_processor
from segserve.training.detector_training import (
    DetectorRun,
    DetectorSettings,
    StepBatches,
    export_detector,
    grid_centers,
    train_detector,
)
from segserve.training.progress import Progress
from segserve.training.scenes import make_scene
from segserve.training.schedule import Schedule

SIZE = DetectorSize(
    image=128,
    width=32,
    backbone=(8, 8, 16, 16),
    depths=(1, 1, 1, 1),
    stem=8,
    encoder_layers=1,
    decoder_layers=2,
    feedforward=32,
    queries=8,
    points=2,
    heads=2,
    text_layers=1,
)
SETTINGS = DetectorSettings(
    batch_size=2, bfloat16_backbone=False, size=SIZE, schedule=Schedule(peak=1e-3, warmup=2, decay=0.5)
)


def train(work: Path, steps: int, **options) -> None:  # type: ignore[no-untyped-def]
    train_detector(work, steps=steps, batch_size=2, settings=SETTINGS, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("trained")
    train(work, 4)
    return work


def test_an_interrupted_run_ends_exactly_as_an_uninterrupted_one(trained: Path, tmp_path: Path) -> None:
    class StopNowError(Exception):
        pass

    def interrupt(state: Progress) -> None:
        if state.step == 3:
            raise StopNowError

    with pytest.raises(StopNowError):
        train(tmp_path, 4, checkpoint_every=2, progress=interrupt)
    halfway = load_state(tmp_path)
    assert halfway is not None
    assert halfway.step == 2
    train(tmp_path, 4, checkpoint_every=2)
    whole, resumed = load_state(trained), load_state(tmp_path)
    assert whole is not None
    assert resumed is not None
    assert resumed.step == whole.step == 4
    assert resumed.model.keys() == whole.model.keys()
    for name, value in whole.model.items():
        assert torch.equal(resumed.model[name], value), name


def test_a_finished_run_does_nothing_more(trained: Path) -> None:
    before = load_state(trained)
    seen: list[Progress] = []
    train(trained, 4, progress=seen.append)
    after = load_state(trained)
    assert seen == []
    assert before is not None
    assert after is not None
    assert after.step == before.step


def test_a_folder_of_a_run_with_other_settings_is_refused(trained: Path) -> None:
    other = replace(SETTINGS, size=replace(SIZE, queries=9))
    with pytest.raises(InvalidRequestError, match=r"other settings \(size\)"):
        train_detector(trained, steps=6, batch_size=2, settings=other)


def test_progress_reports_every_step_with_its_rate_and_losses(tmp_path: Path) -> None:
    seen: list[Progress] = []
    train(tmp_path, 3, progress=seen.append)
    assert [(state.step, state.steps) for state in seen] == [(1, 3), (2, 3), (3, 3)]
    assert [state.learning_rate for state in seen] == [SETTINGS.schedule.rate(step, 3) for step in range(3)]
    for state in seen:
        parts = sum(loss for name, loss in state.losses.items() if name != "total")
        assert state.losses["total"] == pytest.approx(parts, rel=1e-5)
        assert state.images_per_second > 0


def test_every_parameter_gets_a_gradient(tmp_path: Path) -> None:
    run = DetectorRun(tmp_path, SETTINGS)
    for step in range(3):  # the last layers of the box heads start at zero and hide those before them at first
        run.advance(StepBatches(SETTINGS, 3)[step], 10)
    silent = [
        name
        for name, parameter in run.trainee.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    # A key's bias adds the same to all inputs of a softmax, which does not feel it: rounding alone decides there.
    assert [name for name in silent if not name.endswith("key.bias")] == []


def test_repeating_one_batch_is_learned(tmp_path: Path) -> None:
    run = DetectorRun(tmp_path, replace(SETTINGS, schedule=Schedule(peak=2e-3, warmup=2, decay=0.0)))
    batch = StepBatches(SETTINGS, 1)[0]
    losses = [run.advance(batch, 100)["total"] for _ in range(40)]
    assert losses[-1] < 0.6 * losses[0]


def test_bfloat16_convolutions_give_almost_the_same_loss(tmp_path: Path) -> None:
    batch = StepBatches(SETTINGS, 1)[0]
    exact, reduced = (
        DetectorRun(tmp_path, replace(SETTINGS, bfloat16_backbone=flag)).advance(batch, 10) for flag in (False, True)
    )
    assert reduced != exact
    assert reduced["total"] == pytest.approx(exact["total"], rel=0.02)


def test_the_export_loads_with_official_classes_and_answers_as_the_trained_model(trained: Path, tmp_path: Path) -> None:
    export_detector(trained, tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(tmp_path).eval()
    inputs = processor(images=make_scene(5).image, text="red chair. floor. 沙发.", return_tensors="pt")
    again = build_processor(SIZE)(images=make_scene(5).image, text="red chair. floor. 沙发.", return_tensors="pt")
    trainee = DetectorRun(trained, SETTINGS).trainee.eval()
    with torch.no_grad():
        exported, expected = model(**inputs), trainee.detector(**again)
    assert type(model).__name__ == "GroundingDinoForObjectDetection"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    torch.testing.assert_close(exported.logits, expected.logits, atol=0.02, rtol=0.01)  # stored in half precision
    torch.testing.assert_close(exported.pred_boxes, expected.pred_boxes, atol=0.005, rtol=0.01)


def test_an_empty_folder_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a checkpoint"):
        export_detector(tmp_path / "nothing", tmp_path / "out")


def test_grid_centers_follow_the_order_of_the_models_proposals() -> None:
    centers = grid_centers(128)
    assert centers.shape == (8 * 8 + 4 * 4 + 2 * 2, 2)
    assert centers[1].tolist() == [1.5 / 8, 0.5 / 8]
    assert centers[64 + 4].tolist() == [0.5 / 4, 1.5 / 4]
    assert centers[-1].tolist() == [0.75, 0.75]
