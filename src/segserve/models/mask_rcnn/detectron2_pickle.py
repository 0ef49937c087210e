"""Pickles that hold arrays and numbers, read without ever calling what they name.

NumPy's own constructors are not called either: these stand-ins take the same arguments and check them.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from segserve.errors import InvalidRequestError

_TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class PlainType:
    """Stands for a NumPy dtype of plain numbers."""

    __slots__ = ("name", "order")

    def __init__(self, name: object, *_flags: object) -> None:
        text = name.decode("latin1") if isinstance(name, bytes) else str(name)
        self.order, self.name = "<", text
        if text[:1] in "<>|=":
            self.order, self.name = text[:1], text[1:]
        if self.name not in _TYPES:
            raise InvalidRequestError(f"an array of {text[:20]!r} in place of numbers")

    def __setstate__(self, state: object) -> None:
        # (version, byte order, subtype, names, fields, size, alignment, flags)
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        """The dtype itself."""
        return np.dtype(self.order + self.name)


class PlainArray:
    """Stands for a NumPy array.

    Attributes:
        value: the array; None until its state has been read.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise InvalidRequestError("a broken array")
        shape, kind, columns_first, data = state[-4:]
        self.value = _array(data, kind, shape, "F" if columns_first else "C")


class PlainMapping(dict[Any, Any]):
    """Stands for an OrderedDict; attributes that it had are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


def _array(data: object, kind: object, shape: object, order: object) -> NDArray[Any]:
    if isinstance(data, str):
        data = data.encode("latin1")
    sides = (shape,) if isinstance(shape, int) else shape
    if not isinstance(data, bytes | bytearray | memoryview) or not isinstance(kind, PlainType):
        raise InvalidRequestError("a broken array")
    if not isinstance(sides, tuple) or not all(isinstance(side, int) and side >= 0 for side in sides):
        raise InvalidRequestError("an array of no shape")
    dtype = kind.numpy()
    if math.prod(sides) * dtype.itemsize != len(data):
        raise InvalidRequestError("an array whose data are not as large as its shape")
    return np.frombuffer(data, dtype).reshape(sides, order="F" if order == "F" else "C")


def rebuilt_array(*_arguments: object) -> PlainArray:
    """In place of NumPy's ``_reconstruct``: an array whose state follows."""
    return PlainArray()


def buffered_array(data: object, kind: object, shape: object, order: object = "C") -> PlainArray:
    """In place of NumPy's ``_frombuffer``."""
    array = PlainArray()
    array.value = _array(data, kind, shape, order)
    return array


def scalar(kind: object, data: object = b"") -> bool | int | float:
    """In place of NumPy's ``scalar``: a Python number."""
    value: bool | int | float = _array(data, kind, (), "C").item()
    return value


def encoded(text: object, codec: object = "latin1") -> bytes:
    """In place of ``_codecs.encode``, which is how older pickles hold bytes."""
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise InvalidRequestError("bytes in an unknown code")
    return text.encode("latin1")


def array_class(*_arguments: object) -> NoReturn:
    """In place of ``numpy.ndarray``, which is named in pickles of arrays but never called there."""
    raise InvalidRequestError("an array that is not built as NumPy builds it")


STAND_INS: dict[str, Callable[..., Any]] = {
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in (
            ("multiarray._reconstruct", rebuilt_array),
            ("multiarray.scalar", scalar),
            ("numeric._frombuffer", buffered_array),
        )
    },
    "numpy.dtype": PlainType,
    "numpy.ndarray": array_class,
}
"""By the names of NumPy before and from version 2."""


class _Constructor:
    """A stand-in to which a pickle can do nothing but call it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: object) -> object:
        made: object = self._make(*arguments)
        return made

    def __setstate__(self, state: object) -> None:
        raise InvalidRequestError("a state for a function")


_CONSTRUCTORS = {
    **{name: _Constructor(make) for name, make in STAND_INS.items()},
    "collections.OrderedDict": _Constructor(PlainMapping),
    "_codecs.encode": _Constructor(encoded),
    # How pickles of before protocol 3 hold no bytes.
    "__builtin__.bytes": _Constructor(lambda: b""),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name not in _CONSTRUCTORS:
            raise UnsafePickleError(full_name)
        return _CONSTRUCTORS[full_name]


class UnsafePickleError(Exception):
    """A pickle names something else than arrays; name says what."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def load_arrays(file: Path) -> Any:
    """The content of a pickle of dicts, lists, numbers, texts and arrays (as PlainArray).

    Raises:
        UnsafePickleError: it names a class or function; that was neither imported nor called.
        InvalidRequestError: its arrays are none.
        Exception: many kinds, for a broken file.
    """
    with file.open("rb") as stream:
        return _ArraysOnly(stream, encoding="latin1").load()
