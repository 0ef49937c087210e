"""What an image encoder made of a picture, kept so that the next prompt on the same picture costs only the decoder."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from segserve.errors import InvalidRequestError
from segserve.imaging import Rgb


@dataclass(frozen=True, eq=False)
class Embedding:
    """What the encoder made of one picture.

    Attributes:
        tensors: the decoder's inputs, each with a first dimension of 1. Made by ``owned``, each has memory of its own:
            a row of a batch would keep the whole batch alive.
        seen: (height, width) of the picture as the encoder saw it, without padding.
    """

    tensors: tuple[Tensor, ...]
    seen: tuple[int, int]

    @classmethod
    def owned(cls, batch: Sequence[Tensor], row: int, seen: tuple[int, int]) -> Embedding:
        """That of one row of a batch's tensors, copied out of it."""
        rows = (tensor[row : row + 1] for tensor in batch)
        return cls(tuple(each.clone(memory_format=torch.contiguous_format) for each in rows), seen)

    @property
    def nbytes(self) -> int:
        """The memory it keeps."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self.tensors)


@dataclass(frozen=True)
class Encoded:
    """One picture's embedding. cached: whether it was there already; None where there is no cache."""

    embedding: Embedding
    cached: bool | None = None


@dataclass(frozen=True)
class CacheCounts:
    """What a cache has done so far, and what it holds."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: int = 0
    nbytes: int = 0


Encode = Callable[[Sequence[Rgb]], Sequence[Embedding]]
"""Encodes pictures together: as many embeddings as pictures, in their order."""


class EmbeddingCache:
    """Embeddings by what they were made of; the least recently used make room.

    A key is the hash of a picture's pixels and shape and of the model (its weights, how it prepares pictures, its
    precision): nothing that a caller names. Several predictors may share a cache, also from several threads.

    Args:
        max_bytes: most memory of all embeddings. One that alone is larger is not kept.

    Raises:
        InvalidRequestError: max_bytes is negative.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise InvalidRequestError(f"max_bytes: expected at least 0, came {max_bytes}.")
        self.max_bytes = max_bytes
        self._kept: OrderedDict[bytes, Embedding] = OrderedDict()
        self._nbytes = self._hits = self._misses = self._evictions = 0
        self._lock = Lock()

    @property
    def counts(self) -> CacheCounts:
        """Since the cache was made."""
        with self._lock:
            return CacheCounts(self._hits, self._misses, self._evictions, len(self._kept), self._nbytes)

    def get_many(self, images: Sequence[Rgb], encode: Encode, fingerprint: bytes) -> list[Encoded]:
        """The embedding of each picture; those not there are encoded together, a picture that comes twice once.

        Args:
            images: H x W x 3 uint8.
            encode: called with the missing pictures, if there are any. What it raises is passed on, and then
                nothing is kept or counted.
            fingerprint: of the model that encodes; see ``fingerprint``.
        """
        keys = [_key(image, fingerprint) for image in images]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
        missing: dict[bytes, Rgb] = {}
        for key, image in zip(keys, images, strict=True):
            if key not in found:
                missing.setdefault(key, image)
        made = dict(zip(missing, encode(list(missing.values())), strict=True)) if missing else {}
        with self._lock:
            self._hits += len(keys) - len(missing)
            self._misses += len(missing)
            for key in keys:
                self._keep(key, found.get(key) or made[key])
        encoded = []
        for key in keys:
            # The second of two equal pictures cost nothing either.
            encoded.append(Encoded(found.get(key) or made[key], cached=key not in missing))
            missing.pop(key, None)
        return encoded

    def clear(self) -> None:
        """Forget every embedding."""
        with self._lock:
            self._kept.clear()
            self._nbytes = 0

    def _keep(self, key: bytes, embedding: Embedding) -> None:
        if key in self._kept:
            self._kept.move_to_end(key)
            return
        size = embedding.nbytes
        if size > self.max_bytes:
            return
        self._kept[key] = embedding
        self._nbytes += size
        while self._nbytes > self.max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._nbytes -= dropped.nbytes
            self._evictions += 1


def encode_all(
    images: Sequence[Rgb], encode: Encode, cache: EmbeddingCache | None, fingerprint: bytes
) -> list[Encoded]:
    """As ``EmbeddingCache.get_many``, also without a cache."""
    if cache is None:
        return [Encoded(embedding) for embedding in (encode(images) if images else [])]
    return cache.get_many(images, encode, fingerprint)


class Caching(Protocol):
    """What encodes pictures, with a cache or without."""

    cache: EmbeddingCache | None


@contextmanager
def without_cache(encoder: Caching) -> Iterator[None]:
    """Let an encoder run without its cache, for what is no one's request."""
    cache, encoder.cache = encoder.cache, None
    try:
        yield
    finally:
        encoder.cache = cache


def fingerprint(model: Any, processor: Any, dtype: torch.dtype) -> bytes:
    """What an embedding depends on besides the picture.

    Args:
        model: of transformers, with its weights.
        processor: the image processor of transformers.
        dtype: of the heavy operations.
    """
    digest = hashlib.sha256(f"{type(model).__name__} {dtype}".encode())
    digest.update(model.config.to_json_string().encode())
    digest.update(processor.to_json_string().encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def _key(image: Rgb, fingerprint: bytes) -> bytes:
    digest = hashlib.sha256(fingerprint)
    digest.update(f"{image.shape} {image.dtype}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()
