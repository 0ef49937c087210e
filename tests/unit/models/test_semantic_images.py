"""The library's entry: an image in any form."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from http_stand_in import Answer, StandIn
from PIL import Image

from segserve.errors import FetchError, NotAnImageError, NotFoundError, UndecodableImageError
from segserve.imaging import encode
from segserve.models.device import choose_placement
from segserve.models.semantic import Semantic
from segserve.models.semantic.any_image import as_rgb

from .patchwork import picture
from .semantic_models import CLASSES, SIZE, two_convolutions

IMAGE = picture(1, 31, 47)
PNG = encode(IMAGE)


@pytest.fixture(scope="module")
def predictor() -> Semantic:
    return Semantic(two_convolutions(), choose_placement("cpu"))


@pytest.mark.parametrize(
    "source",
    [
        PNG,
        bytearray(PNG),
        memoryview(PNG),
        Image.fromarray(IMAGE),
        IMAGE,
        np.asfortranarray(IMAGE),
        IMAGE.transpose(2, 0, 1),
        IMAGE / 255,
        (IMAGE / 255).astype(np.float32),
        torch.from_numpy(IMAGE),
        torch.from_numpy(IMAGE).permute(2, 0, 1),
        torch.from_numpy(IMAGE).permute(2, 0, 1).float().div(255).requires_grad_(),
    ],
    ids=lambda source: type(source).__name__,
)
def test_every_form_is_the_same_picture(source: Any) -> None:
    found = as_rgb(source)
    assert found.dtype == np.uint8
    assert np.array_equal(found, IMAGE)


def test_paths_and_urls_are_read(tmp_path: Path, server: StandIn) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    assert np.array_equal(as_rgb(tmp_path / "a.png"), IMAGE)
    assert np.array_equal(as_rgb(str(tmp_path / "a.png")), IMAGE)
    server.answers = [Answer(body=PNG, headers={"Content-Type": "image/png"})]
    assert np.array_equal(as_rgb(f"{server.url}/a.png"), IMAGE)
    server.answers = [Answer(status=404)]
    with pytest.raises(FetchError, match="status 404"):
        as_rgb(f"{server.url}/b.png")
    server.answers = [Answer(drop=True)]
    with pytest.raises(FetchError, match="cannot be fetched"):
        as_rgb(f"{server.url}/c.png")
    with pytest.raises(NotFoundError, match=r"'b.png' cannot be read: No such file"):
        as_rgb(tmp_path / "b.png")


def test_pil_images_of_every_mode_are_upright_rgb() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IMAGE).save(buffer, "PNG", exif=exif)
    assert np.array_equal(as_rgb(Image.open(buffer)), np.rot90(IMAGE, -1))
    clear = Image.new("RGBA", (4, 2), (255, 0, 0, 0))
    assert (as_rgb(clear) == 255).all()
    for mode in ("L", "1", "P", "CMYK", "YCbCr", "LA", "I;16", "F"):
        assert as_rgb(Image.new(mode, (5, 4))).shape == (4, 5, 3)


def test_where_both_layouts_fit_an_array_ends_and_a_tensor_begins_with_channels() -> None:
    cube = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert np.array_equal(as_rgb(cube), cube)
    assert np.array_equal(as_rgb(torch.from_numpy(cube)), cube.transpose(1, 2, 0))
    narrow = np.zeros((3, 9, 3), np.uint8)
    assert as_rgb(narrow).shape == (3, 9, 3)
    assert as_rgb(torch.from_numpy(narrow)).shape == (9, 3, 3)


@pytest.mark.parametrize(
    ("source", "kind", "reason"),
    [
        (None, TypeError, "expected a path, URL, .* came builtins.NoneType"),
        (5, TypeError, "came builtins.int"),
        ([[1, 2]], TypeError, "came builtins.list"),
        (np.zeros((4, 4, 3), np.int64), TypeError, "uint8, or of floats within 0..1, came int64"),
        (torch.zeros((3, 4, 4), dtype=torch.bool), TypeError, "came bool"),
        (np.zeros((4, 4), np.uint8), ValueError, "3 x H x W or H x W x 3, came 4 x 4"),
        (torch.zeros((1, 3, 4, 4)), ValueError, "came 1 x 3 x 4 x 4"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, "came 4 x 4 x 4"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "came 0 x 4 x 3"),
        (np.array(5, np.uint8), ValueError, "came a single number"),
        (torch.full((3, 4, 4), 128.0), ValueError, "within 0..1, came 128 to 128"),
        (torch.full((3, 4, 4), -0.1), ValueError, "within 0..1, came -0.1"),
        (np.full((4, 4, 3), np.nan), ValueError, "within 0..1, came nan"),
        (b"GIF but not one", NotAnImageError, "not an image"),
        (PNG[:200], UndecodableImageError, "truncated or corrupt"),
    ],
)
def test_other_things_are_refused(source: Any, kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind, match=reason):
        as_rgb(source)


def test_a_broken_file_behind_a_pil_image_is_named() -> None:
    with pytest.raises(UndecodableImageError, match="cannot be decoded"):
        as_rgb(Image.open(io.BytesIO(PNG[:-300])))


def test_segment_answers_as_it_is_asked(predictor: Semantic) -> None:
    whole = predictor.segment(PNG)
    assert whole.labels.shape == (31, 47)
    assert set(whole.pixel_fraction()) <= set(CLASSES)
    assert np.array_equal(predictor.segment(torch.from_numpy(IMAGE)).labels, whole.labels)
    scores = predictor.segment(Image.fromarray(IMAGE), engine="torch", output="probabilities", size="model")
    assert scores.scores.shape == (len(CLASSES), *SIZE)


@pytest.mark.parametrize("wrong", [{"engine": "tf"}, {"output": "mask"}, {"size": "small"}])
def test_segment_refuses_other_words(predictor: Semantic, wrong: dict[str, Any]) -> None:
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"{name}: expected .*, came '{value}'"):
        predictor.segment(PNG, **wrong)
