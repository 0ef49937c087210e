"""Arrays as JSON in pieces: the text is that of the whole, the pieces stay small, each is made when it is asked for."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import numpy as np
import pytest

from segserve.gateway import tensor_json


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (1, 200_000), (200_000, 1), (700, 301), (256, 256)])
@pytest.mark.parametrize("kind", [np.float32, np.uint8, np.uint16])
def test_a_matrix_is_the_one_that_was_given(shape: tuple[int, int], kind: type) -> None:
    values = (np.random.default_rng(0).normal(0, 100, shape) % 250).astype(kind)
    pieces = list(tensor_json.matrix(values))
    assert np.array_equal(np.array(json.loads(b"".join(pieces)), dtype=kind), values)
    assert max(map(len, pieces)) < max(16 * 65_536, 16 * shape[1])


def test_rows_of_a_view_that_does_not_lie_in_one_piece() -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::3].T
    assert json.loads(b"".join(tensor_json.matrix(values))) == values.tolist()


def test_float32_is_written_with_the_digits_it_needs() -> None:
    assert b"".join(tensor_json.matrix(np.array([[0.1, 1e-30, -2]], np.float32))) == b"[[0.1,1e-30,-2.0]]"


def test_a_document_is_made_as_it_is_read() -> None:
    made: list[int] = []

    def planes() -> Iterator[np.ndarray]:
        for number in range(3):
            made.append(number)
            yield np.full((2, 2), number, np.uint8)

    members = {"map": tensor_json.matrix(np.eye(2, dtype=np.uint8)), 'a "name"': tensor_json.stack(planes())}
    pieces = tensor_json.document({"Status": "OK"}, "results", members | {"x": [tensor_json.text("é")]})
    text = b""
    while b'a \\"name\\"' not in text:
        text += next(pieces)
    assert made == []
    while b"[[1,1],[1,1]]" not in text:
        text += next(pieces)
    assert made == [0, 1]
    text += b"".join(pieces)
    zeros, ones, twos = ([[number] * 2] * 2 for number in range(3))
    expected = {"map": [[1, 0], [0, 1]], 'a "name"': [zeros, ones, twos], "x": "é"}
    assert json.loads(text) == {"Status": "OK", "results": expected}


def test_compressed_pieces_are_one_gzip_file() -> None:
    pieces = [b"abc" * 1000, b"", b"d" * 100_000]
    packed = list(tensor_json.compressed(iter(pieces)))
    assert gzip.decompress(b"".join(packed)) == b"".join(pieces)
    assert all(packed)
