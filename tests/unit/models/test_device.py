"""Device and dtype: names, defaults and refusals."""

from __future__ import annotations

import pytest
import torch

from segserve.errors import InvalidRequestError
from segserve.models.device import choose_placement


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine with so many GPUs that know bfloat16."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: not including_emulation)


@pytest.mark.parametrize(
    ("gpus", "device", "dtype", "expected"),
    [
        (0, "auto", "auto", ("cpu", torch.float32)),
        (1, "auto", "auto", ("cuda", torch.bfloat16)),
        (2, "cuda:1", "auto", ("cuda:1", torch.bfloat16)),
        (1, "cpu", "auto", ("cpu", torch.float32)),
        (1, "cuda", "float32", ("cuda", torch.float32)),
        (0, "cpu", "bfloat16", ("cpu", torch.bfloat16)),
    ],
    indirect=["gpus"],
)
def test_choices(gpus: None, device: str, dtype: str, expected: tuple[str, torch.dtype]) -> None:
    placement = choose_placement(device, dtype)
    assert (str(placement.device), placement.dtype) == expected


@pytest.mark.parametrize(
    ("gpus", "device", "dtype", "message"),
    [
        (0, "cuda", "auto", "there are 0 GPUs"),
        (1, "cuda:1", "auto", "there are 1 GPUs"),
        (0, "gpu", "auto", "expected auto, cpu, cuda or cuda:N, came 'gpu'"),
        (0, "meta", "auto", "came 'meta'"),
        (0, "cpu", "int8", "dtype: expected auto, float32, bfloat16, float16, came 'int8'"),
    ],
    indirect=["gpus"],
)
def test_refusals(gpus: None, device: str, dtype: str, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        choose_placement(device, dtype)


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_of_heavy_operations(dtype: str, expected: torch.dtype) -> None:
    matrix = torch.ones(2, 2)
    with choose_placement("cpu", dtype).precision():
        assert (matrix @ matrix).dtype == expected
