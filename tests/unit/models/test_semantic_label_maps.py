"""Label maps and scores of any size, against interpolating all classes and taking the best."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segserve.errors import TooLargeError
from segserve.models.segmentation import LabelMap
from segserve.models.semantic.label_maps import MAX_SCORES_BYTES, check_scores, label_map, scores
from segserve.models.semantic.parameters import SemanticParameters
from segserve.schema import Parameters


def slow(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def random_logits(shape: tuple[int, int, int], smooth: bool) -> Tensor:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    return F.avg_pool2d(logits[None], 5, 1, 2, count_include_pad=False)[0] if smooth else logits


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((21, 40, 52), (317, 411)),
        ((5, 64, 64), (33, 200)),
        ((300, 20, 20), (50, 51)),
        ((7, 1, 1), (9, 9)),
        ((7, 30, 30), (1, 1)),
        ((3, 30, 30), (30, 30)),
        ((3, 16, 16), (15, 1)),
        ((1, 8, 8), (20, 20)),
        ((21, 128, 128), (700, 900)),
    ],
)
def test_the_label_map_is_that_of_interpolating_everything(
    shape: tuple[int, int, int], size: tuple[int, int], smooth: bool
) -> None:
    logits = random_logits(shape, smooth)
    every = slow(logits, size)
    found = label_map(logits, size)
    assert found.shape == size
    assert found.dtype == (np.uint8 if shape[0] <= 256 else np.uint16)
    best, own = every.max(dim=0).values, every.gather(0, torch.from_numpy(found.astype(np.int64))[None])[0]
    # Where it is not the same class, the two are equal within rounding.
    assert (best - own).max() <= 1e-6
    assert (every.argmax(dim=0).numpy() == found).mean() > 0.9999


def test_a_class_that_is_second_everywhere_wins_in_between() -> None:
    # Left class 0, right class 1; class 2 is second on both sides and first in the middle.
    logits = torch.tensor([[[4.0, 0.0]], [[0.0, 4.0]], [[3.0, 3.0]]])
    assert label_map(logits, (1, 8)).tolist() == [[0, 0, 0, 2, 2, 1, 1, 1]]


def test_half_precision_logits_are_interpolated_in_float32() -> None:
    logits = random_logits((5, 20, 20), True)
    half = logits.to(torch.bfloat16)
    assert (label_map(half, (90, 70)) == label_map(half.float(), (90, 70))).all()


def test_scores_are_interpolated_logits_and_their_softmax() -> None:
    logits = random_logits((5, 12, 10), False)
    assert np.allclose(scores(logits, (31, 47), "logits"), slow(logits, (31, 47)).numpy())
    found = scores(logits, (31, 47), "probabilities")
    assert found.dtype == np.float32
    assert np.allclose(found, slow(logits, (31, 47)).softmax(dim=0).numpy(), atol=1e-6)
    assert np.allclose(found.sum(axis=0), 1, atol=1e-5)
    assert (scores(logits, (12, 10), "logits") == logits.numpy()).all()


def test_scores_over_the_limit_are_refused_and_the_way_out_is_named() -> None:
    side = 1024
    fits = MAX_SCORES_BYTES // (4 * side * side)
    check_scores(fits, (side, side), "logits")
    with pytest.raises(TooLargeError, match=r'logits of 9 classes for 1024 x 1024 .* size="model"'):
        check_scores(fits + 1, (side, side), "logits")


def test_pixel_fractions_count_only_classes_that_are_there() -> None:
    labels = np.array([[0, 0, 2, 2], [0, 0, 0, 2]], dtype=np.uint8)
    assert LabelMap(4, 2, labels, ("wall", "floor", "door")).pixel_fraction() == {"wall": 0.625, "door": 0.375}


def test_a_request_overrides_what_it_gives() -> None:
    own = SemanticParameters(engine="onnx", size="model")
    assert own.overridden(Parameters()) == own
    given = Parameters(engine="torch", output="logits")
    assert own.overridden(given) == SemanticParameters("torch", "logits", "model")


_TWELVE_MEGAPIXELS = """
import re, torch
from pathlib import Path
from segserve.models.semantic.label_maps import label_map
torch.set_num_threads(1)
logits = torch.nn.functional.interpolate(torch.randn(1, 21, 24, 24), size=(512, 512), mode="bicubic")[0]
label_map(logits, (64, 64))

def memory(what):
    return int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1)) / 1024

Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
found = label_map(logits, (3000, 4000))
assert found.shape == (3000, 4000) and len(set(found[::50].ravel())) > 10
print(memory("VmHWM") - before)
"""


def test_a_label_map_of_twelve_megapixels_takes_little_memory() -> None:
    done = subprocess.run([sys.executable, "-c", _TWELVE_MEGAPIXELS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # All classes at that size would take 961 MiB.
    assert 5 < float(done.stdout) < 150
