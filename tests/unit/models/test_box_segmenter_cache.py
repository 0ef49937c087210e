"""SAM's embeddings are kept: a further prompt on a picture costs its decoder only, and changes no answer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segserve import masks
from segserve.models.box_segmenter import BoxSegmenter
from segserve.models.device import choose_placement
from segserve.models.embedding_cache import EmbeddingCache
from segserve.models.grounded_sam import GroundedSam
from segserve.models.text_prompt import GroundedSamParameters, TextPrompt

from .patchwork import picture

CPU = choose_placement("cpu", "float32")
BOXES = np.array([[5, 5, 40, 50], [20.5, 10.25, 79, 59]], dtype=np.float32)
NONE = np.zeros((0, 4), dtype=np.float32)
LOW = GroundedSamParameters(box_threshold=0.4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["sam", "sam_hq"])
def test_cached_masks_are_the_uncached_ones(segmenters: dict[str, Path], kind: str, dtype: str) -> None:
    placement = choose_placement("cpu", dtype)
    plain = BoxSegmenter.from_folder(segmenters[kind], placement)
    caching = BoxSegmenter.from_folder(segmenters[kind], placement, EmbeddingCache(2**20))
    images = [picture(0, 60, 80), picture(1, 90, 64)]
    for image in images:
        expected = plain.segment([image], [BOXES], [False])[0]
        assert any(masks.area(rle) for rle in expected.rles)
        assert expected.cached is None
        for cached in (False, True):
            found = caching.segment([image], [BOXES], [False])[0]
            assert (found.cached, found.rles) == (cached, expected.rles)
    assert caching.segment(images, [BOXES[:1], NONE], [False, False])[1].cached is None


def test_a_batch_encodes_only_the_pictures_that_are_new(
    segmenters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = BoxSegmenter.from_folder(segmenters["sam"], CPU, EmbeddingCache(2**20))
    encoded: list[int] = []
    encode = segmenter._model.get_image_embeddings

    def spy(pixels: Any) -> Any:
        encoded.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(segmenter._model, "get_image_embeddings", spy)
    old, new, other, ignored = (picture(seed, 60, 80) for seed in range(4))
    segmenter.segment([old], [BOXES], [False])
    found = segmenter.segment([new, old, ignored, other, new], [BOXES, BOXES, NONE, BOXES[:1], BOXES], [False] * 5)
    assert [each.cached for each in found] == [False, True, None, False, True]
    assert [len(each.rles) for each in found] == [2, 2, 0, 1, 2]
    assert encoded == [1, 2]
    assert found[0].rles == found[4].rles != found[1].rles


@pytest.fixture
def folder(tmp_path: Path, detectors: dict[str, Path], segmenters: dict[str, Path]) -> Path:
    shutil.copytree(detectors["aspect"], tmp_path / "grounding_dino")
    shutil.copytree(segmenters["sam"], tmp_path / "sam")
    return tmp_path


def test_grounded_sam_keeps_what_sam_encoded(folder: Path) -> None:
    predictor = GroundedSam.from_folder(folder, device="cpu", cache=EmbeddingCache(2**20))
    predictor.warm_up()
    cache = predictor.segmenter.cache
    assert cache is not None and cache.counts.entries == cache.counts.misses == 0
    image, thin = picture(0, 60, 80), picture(1, 1, 300)
    nothing = TextPrompt(("sofa",), GroundedSamParameters(box_threshold=1))
    asked = [TextPrompt.from_text("sofa. floor", LOW), TextPrompt.from_text("red chair", LOW), nothing]
    assert [predictor.predict([image], [prompt])[0].cached for prompt in asked] == [False, True, None]
    assert [predictor.predict([thin], [asked[0]])[0].cached for _ in range(2)] == [False, True]
    plain = GroundedSam.from_folder(folder, device="cpu")
    for shown in (image, thin):
        expected, found = (each.predict([shown], asked[:1])[0] for each in (plain, predictor))
        assert (expected.cached, found.cached) == (None, True)
        assert expected.instances == found.instances != []
