"""What a verification accepts and refuses, with engines of a line each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from segserve.errors import InvalidRequestError
from segserve.export.verification import Runner, Tolerance, Verification, verify


def engine(pixels: Tensor) -> NDArray[np.float32]:
    return np.asarray((10 * pixels).numpy(), dtype=np.float32)


def off_by(distance: float) -> Runner:
    def run(pixels: Tensor) -> NDArray[np.float32]:
        logits = engine(pixels)
        logits[:, 0, 0, 0] += distance
        return logits

    return run


def pictures(*sizes: tuple[int, int]) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.rand(3, *size) for size in sizes]


def verified(candidate: Runner, tolerance: Tolerance | None = None) -> Verification:
    return verify(engine, candidate, pictures(*[(8, 10)] * 3), tolerance=tolerance)


def test_rounding_passes() -> None:
    found = verified(off_by(1e-5))
    assert found.passed
    assert found.problems == []
    assert found.to_dict()["passed"] is True


def test_a_difference_past_the_tolerance_is_refused_with_the_numbers() -> None:
    found = verified(off_by(0.5))
    assert not found.passed
    assert "logits differ by up to 0.5" in found.problems[0]
    assert "0.0001 of it is allowed" in found.problems[0]
    assert verified(off_by(0.5), Tolerance(logits=0.1, labels=0.9)).passed


def test_other_labels_are_refused_though_the_logits_are_close() -> None:
    """Two classes that are nearly equal everywhere."""

    def tied(step: float) -> Runner:
        def run(pixels: Tensor) -> NDArray[np.float32]:
            first = engine(pixels)[:, :1]
            return np.concatenate([first, first + np.float32(step)], axis=1)

        return run

    found = verify(tied(1e-5), tied(-1e-5), pictures((8, 10)))
    assert len(found.problems) == 1
    assert "0.0000% of the pixels" in found.problems[0]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_refused(number: float) -> None:
    assert not verified(off_by(number)).passed


@pytest.mark.parametrize("step", [0, 1e-6])
def test_an_engine_that_says_the_same_of_every_pixel_proves_nothing(step: float) -> None:
    def constant(pixels: Tensor) -> NDArray[np.float32]:
        logits = np.broadcast_to(np.float32([1, 2])[None, :, None, None], (len(pixels), 2, 4, 4)).copy()
        logits[:, 0, 0, 0] += np.float32(step)
        return logits

    found = verify(constant, constant, pictures((8, 10)))
    assert not found.passed
    assert "the same of every pixel" in found.problems[0]


def test_an_engine_that_errs_at_one_batch_size_is_found_with_few_pictures() -> None:
    def errs_at_eight(pixels: Tensor) -> NDArray[np.float32]:
        return engine(pixels) if len(pixels) < 8 else engine(pixels.flip(0))

    found = verify(engine, errs_at_eight, pictures((8, 10), (8, 10)))
    assert found.batch_sizes == (1, 2, 4, 8)
    assert not found.passed


def test_every_picture_of_every_size_is_run() -> None:
    seen: list[tuple[int, ...]] = []

    def noting(pixels: Tensor) -> NDArray[np.float32]:
        seen.append(tuple(pixels.shape))
        return engine(pixels)

    inputs = pictures((8, 10), *[(8, 10)] * 19, (6, 6), (6, 6), (6, 6), (4, 12))
    steps: list[tuple[int, int]] = []
    verify(engine, noting, inputs, done=lambda done, total: steps.append((done, total)))
    assert sum(shape[0] for shape in seen if shape[2:] == (8, 10)) >= 20
    assert sum(shape[0] for shape in seen if shape[2:] == (6, 6)) == 3
    assert (1, 3, 4, 12) in seen
    assert steps[-1] == (len(seen), len(seen))


def test_the_broken_picture_is_found_wherever_it_is() -> None:
    inputs = pictures(*[(8, 10)] * 21)
    broken = inputs[20][0, 0, 0].item()

    def errs(pixels: Tensor) -> NDArray[np.float32]:
        logits = engine(pixels)
        logits[pixels[:, 0, 0, 0].numpy() == broken] *= 2
        return logits

    assert not verify(engine, errs, inputs).passed


def test_logits_of_another_shape_are_told() -> None:
    with pytest.raises(InvalidRequestError, match=r"\(1, 3, 8, 10\) in torch and \(1, 3, 4, 10\)"):
        verified(lambda pixels: engine(pixels)[:, :, :4])


def test_without_pictures_nothing_is_verified() -> None:
    with pytest.raises(InvalidRequestError, match="no pictures"):
        verify(engine, engine, [])


@pytest.mark.parametrize("numbers", [(-1e-9, 0.9), (1.0, 0.9), (float("nan"), 0.9), (0.1, 1.1), (0.1, -0.1)])
def test_tolerances_have_ranges(numbers: tuple[float, float]) -> None:
    with pytest.raises(InvalidRequestError, match="expected 0"):
        Tolerance(*numbers)
