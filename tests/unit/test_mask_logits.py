"""Low-resolution logits as text, and what is refused."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest

from segserve import mask_logits
from segserve.errors import InvalidPromptError, InvalidRequestError


def npy(array: Any, **how: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **how)
    return stream.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_there_and_back() -> None:
    logits = np.random.default_rng(0).normal(0, 9, (16, 24)).astype(np.float32)
    back = mask_logits.from_text(mask_logits.to_text(logits), "mask")
    assert back.dtype == np.float32
    assert np.array_equal(back, logits.astype(np.float16).astype(np.float32))


def test_what_float16_cannot_hold_becomes_its_limit() -> None:
    back = mask_logits.from_text(mask_logits.to_text(np.array([[1e9, -1e9]])), "mask")
    assert back.tolist() == [[65504.0, -65504.0]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4)])
def test_other_floats_and_a_leading_one_are_read(dtype: Any, shape: tuple[int, ...]) -> None:
    array = np.arange(12).reshape(shape).astype(dtype)
    assert mask_logits.from_text(text(npy(array)), "mask").tolist() == np.arange(12.0).reshape(3, 4).tolist()


def test_columns_first_and_broken_lines_are_read() -> None:
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    wrapped = base64.encodebytes(npy(array)).decode()
    assert "\n" in wrapped
    assert np.array_equal(mask_logits.from_text(wrapped, "mask"), array)


def header(claim: str) -> bytes:
    body = claim.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        npy(np.zeros((2, 2)))[:-1],
        npy(np.zeros((2, 2))) + b"x",
        npy(np.array([[{"a": 1}]], dtype=object), allow_pickle=True),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (4000, 1000000000), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (4096, 4096), }"),
        header("{'descr': 'nonsense', 'fortran_order': False, 'shape': (1, 1), }"),
        header("__import__('os')"),
        header("(" * 100),
    ],
)
def test_what_is_no_numpy_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"objects\.0\.mask: expected a NumPy file"):
        mask_logits.from_text(text(data), "objects.0.mask")


@pytest.mark.parametrize("word", ["not base64!", "AAA", "ä"])
def test_what_is_no_base64_is_refused(word: str) -> None:
    with pytest.raises(InvalidRequestError, match="base64"):
        mask_logits.from_text(word, "mask")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(4), r"\(4,\) float64"),
        (np.zeros((2, 3, 3)), r"\(2, 3, 3\)"),
        (np.zeros((3, 3), np.uint8), "uint8"),
        (np.zeros((0, 3)), r"\(0, 3\)"),
        (np.array([[1.0, np.nan]]), "finite"),
        (np.array([[1.0, -np.inf]]), "finite"),
        (np.array([[1e300]]), "finite"),
    ],
)
def test_what_are_no_logits_is_refused(array: Any, words: str) -> None:
    with pytest.raises(InvalidPromptError, match=words):
        mask_logits.from_text(text(npy(array)), "mask")
