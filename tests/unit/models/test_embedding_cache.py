"""The embedding cache: what is encoded, what is kept, what makes room, and what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
import transformers as tf

from segserve.errors import InvalidRequestError
from segserve.imaging import Rgb
from segserve.models.embedding_cache import CacheCounts, Embedding, EmbeddingCache, encode_all, fingerprint

from .sam2_checkpoints import processor, save_sam2

MODEL = b"a model"
ENTRY_BYTES = 3 * 4


class Encoder:
    """Makes of a picture its mean color, three float32, and remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, images: Sequence[Rgb]) -> list[Embedding]:
        self.batches.append([int(image[0, 0, 0]) for image in images])
        means = torch.stack([torch.from_numpy(image.copy()).float().mean((0, 1)) for image in images])
        return [Embedding.owned([means], row, image.shape[:2]) for row, image in enumerate(images)]


def plain(value: int, shape: tuple[int, int] = (4, 6)) -> Rgb:
    return np.full((*shape, 3), value, np.uint8)


def ask(cache: EmbeddingCache, encoder: Encoder, *values: int) -> list[bool | None]:
    """Whether each picture was there; every embedding is checked to be the picture's own."""
    found = cache.get_many([plain(value) for value in values], encoder, MODEL)
    assert [float(each.embedding.tensors[0][0, 0]) for each in found] == list(values)
    return [each.cached for each in found]


def test_a_picture_is_encoded_once() -> None:
    cache, encoder = EmbeddingCache(1000), Encoder()
    assert ask(cache, encoder, 7) == [False]
    assert ask(cache, encoder, 7) == [True]
    assert encoder.batches == [[7]]
    assert cache.counts == CacheCounts(hits=1, misses=1, entries=1, nbytes=ENTRY_BYTES)


def test_the_misses_of_a_batch_are_encoded_together_and_equal_ones_once() -> None:
    cache, encoder = EmbeddingCache(1000), Encoder()
    ask(cache, encoder, 1, 2)
    assert ask(cache, encoder, 3, 1, 4, 3, 2, 4, 4) == [False, True, False, True, True, True, True]
    assert encoder.batches == [[1, 2], [3, 4]]
    assert cache.counts == CacheCounts(hits=5, misses=4, entries=4, nbytes=4 * ENTRY_BYTES)


def test_the_least_recently_used_makes_room() -> None:
    cache, encoder = EmbeddingCache(3 * ENTRY_BYTES), Encoder()
    ask(cache, encoder, 1, 2, 3)
    ask(cache, encoder, 1)
    ask(cache, encoder, 4)
    assert cache.counts == CacheCounts(hits=1, misses=4, evictions=1, entries=3, nbytes=3 * ENTRY_BYTES)
    assert ask(cache, encoder, 1, 3, 4) == [True, True, True]
    assert ask(cache, encoder, 2) == [False]


def test_a_batch_larger_than_the_cache_is_answered_whole() -> None:
    cache, encoder = EmbeddingCache(2 * ENTRY_BYTES + 1), Encoder()
    ask(cache, encoder, 9)
    assert ask(cache, encoder, 1, 2, 3, 9, 1) == [False, False, False, True, True]
    assert cache.counts.nbytes <= cache.max_bytes and cache.counts.entries == 2


@pytest.mark.parametrize("max_bytes", [0, ENTRY_BYTES - 1])
def test_what_alone_is_too_large_is_not_kept(max_bytes: int) -> None:
    cache, encoder = EmbeddingCache(max_bytes), Encoder()
    assert ask(cache, encoder, 1, 1) == [False, True]
    assert ask(cache, encoder, 1) == [False]
    assert cache.counts == CacheCounts(hits=1, misses=2)


def test_the_bytes_are_those_that_stay_alive() -> None:
    """A row of a batch keeps the whole batch alive unless it is copied out of it."""
    batch = torch.zeros(8, 3)
    assert Embedding.owned([batch], 2, (4, 6)).nbytes == ENTRY_BYTES
    assert Embedding((batch[2:3],), (4, 6)).nbytes == 8 * ENTRY_BYTES


def test_pictures_that_differ_in_one_pixel_or_in_shape_are_different() -> None:
    cache, encoder = EmbeddingCache(1000), Encoder()
    other = plain(5)
    other[3, 5, 2] = 6
    images = [plain(5), other, plain(5, (6, 4)), plain(5, (1, 24)), plain(5, (8, 6))[::2]]
    assert [each.cached for each in cache.get_many(images, encoder, MODEL)] == [False] * 4 + [True]
    assert [each.embedding.seen for each in cache.get_many(images, encoder, MODEL)][:3] == [(4, 6), (4, 6), (6, 4)]


def test_a_view_of_a_picture_has_the_key_of_its_pixels() -> None:
    cache, encoder = EmbeddingCache(1000), Encoder()
    image = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    found = cache.get_many([image, image[::-1], image[::-1].copy(), image.copy()], encoder, MODEL)
    assert [each.cached for each in found] == [False, False, True, True]


def test_models_do_not_share_embeddings() -> None:
    cache, encoder = EmbeddingCache(1000), Encoder()
    for model in (b"one", b"other"):
        assert not cache.get_many([plain(1)], encoder, model)[0].cached
    assert cache.get_many([plain(1)], encoder, b"one")[0].cached


def test_a_failed_batch_leaves_nothing_behind() -> None:
    cache, encoder = EmbeddingCache(1000), Encoder()
    ask(cache, encoder, 1)
    before = cache.counts

    def fail(images: Sequence[Rgb]) -> list[Embedding]:
        raise MemoryError

    with pytest.raises(MemoryError):
        cache.get_many([plain(1), plain(2)], fail, MODEL)
    assert cache.counts == before
    assert ask(cache, encoder, 2, 1) == [False, True]


def test_an_empty_batch_encodes_nothing() -> None:
    encoder = Encoder()
    for cache in (None, EmbeddingCache(1000)):
        assert encode_all([], encoder, cache, MODEL) == []
    assert encoder.batches == []


def test_without_a_cache_every_picture_is_encoded() -> None:
    encoder = Encoder()
    assert [each.cached for each in encode_all([plain(1), plain(1)], encoder, None, MODEL)] == [None, None]
    assert encoder.batches == [[1, 1]]


def test_a_cleared_cache_is_empty() -> None:
    cache, encoder = EmbeddingCache(1000), Encoder()
    ask(cache, encoder, 1)
    cache.clear()
    assert (cache.counts.entries, cache.counts.nbytes) == (0, 0)
    assert ask(cache, encoder, 1) == [False]


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="max_bytes: expected at least 0, came -1"):
        EmbeddingCache(-1)


def test_threads_may_share_a_cache() -> None:
    cache = EmbeddingCache(5 * ENTRY_BYTES)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            for _ in range(100):
                ask(cache, Encoder(), *random.integers(0, 9, 4).tolist())
        except BaseException as error:  # noqa: BLE001 - reported by the test
            failures.append(error)

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    counts = cache.counts
    assert counts.nbytes == counts.entries * ENTRY_BYTES <= cache.max_bytes
    assert counts.hits + counts.misses == 4 * 100 * 4


def test_a_fingerprint_is_of_weights_preparation_and_precision(tmp_path: Path) -> None:
    model = tf.Sam2Model.from_pretrained(save_sam2(tmp_path, seed=1))
    first = fingerprint(model, processor().image_processor, torch.float32)
    assert fingerprint(tf.Sam2Model.from_pretrained(tmp_path), processor().image_processor, torch.float32) == first
    assert fingerprint(model, processor().image_processor, torch.bfloat16) != first
    assert fingerprint(model, processor(128).image_processor, torch.float32) != first
    with torch.no_grad():
        model.no_memory_embedding[0, 0, 3] += 1e-3
    assert fingerprint(model, processor().image_processor, torch.float32) != first
