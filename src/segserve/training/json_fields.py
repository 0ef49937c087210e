"""Fields of JSON objects that others wrote, checked as they are taken; messages name file, object and field."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segserve.errors import InvalidRequestError

_LONGEST_SHOWN = 80
_LONGEST_LABEL = 200
_LONGEST_NAME = 240  # bytes; file systems take 255, and the name is written with a suffix first
_LARGEST_SIDE = 2**16


class JsonFields:
    """One JSON object. All methods raise InvalidRequestError where the value is not what they return.

    Attributes:
        where: names the object in messages, beginning with its file.
        values: the object itself.
    """

    def __init__(self, where: str, values: Any) -> None:
        self.where = where
        if not isinstance(values, dict):
            raise self.wrong(None, "an object", values)
        self.values: dict[str, Any] = values

    def wrong(self, field: str | None, expected: str, got: Any) -> InvalidRequestError:
        """The error of a field (None: of the whole object) that is not what was expected."""
        place = self.where if field is None else f"{self.where}: {field}"
        shown = "nothing" if got is None else json.dumps(got, ensure_ascii=False)
        shown = shown.encode("utf-8", "backslashreplace").decode()  # half of a surrogate pair cannot be printed
        if len(shown) > _LONGEST_SHOWN:
            shown = shown[: _LONGEST_SHOWN - 1] + "…"
        return InvalidRequestError(f"{place}: expected {expected}, got {shown}")

    def whole(self, field: str, smallest: int) -> int:
        """A whole number of `smallest` or more, also when it is written 3.0."""
        value = self.values.get(field)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
            raise self.wrong(field, f"a whole number of {smallest} or more", value)
        return value

    def side(self, field: str) -> int:
        """The height or width of a picture, in pixels."""
        value = self.whole(field, 1)
        if value > _LARGEST_SIDE:
            raise self.wrong(field, f"at most {_LARGEST_SIDE} pixels", value)
        return value

    def number(self, field: str) -> float:
        """A finite number."""
        value = self.values.get(field)
        if not are_numbers([value]):
            raise self.wrong(field, "a number", value)
        return float(self.values[field])

    def flag(self, field: str) -> bool:
        """0 or 1, true or false; false when absent."""
        value = self.values.get(field, 0)
        if value not in (0, 1):
            raise self.wrong(field, "0 or 1", value)
        return bool(value)

    def text(self, field: str) -> str:
        """A text that is not blank."""
        value = self.values.get(field)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, "a text", value)
        return value

    def label(self, field: str) -> str:
        """The name of a class, without blanks around it; however its accents were typed, they come composed."""
        return checked_label(self, field, self.values.get(field))

    def one_of(self, field: str, known: Mapping[int, Any], of: str) -> int:
        """The id of one of the known things; `of` names them."""
        value = self.whole(field, 0)
        if value not in known:
            raise self.wrong(field, f"the id of one of the {len(known)} {of}", value)
        return value

    def items(self, field: str) -> list[Any]:
        """A list, of anything."""
        value = self.values.get(field)
        if not isinstance(value, list):
            raise self.wrong(field, "a list", value)
        return value


def read_json(file: Path) -> Any:
    """What a JSON file holds, with or without a byte order mark.

    Raises:
        InvalidRequestError: it cannot be read or is no JSON.
    """
    try:
        return json.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise InvalidRequestError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{file}: not a JSON file: {error}") from error


def checked_label(fields: JsonFields, field: str, value: Any) -> str:
    """The name of a class, as JsonFields.label; field: where it was found.

    Raises:
        InvalidRequestError: it is none that a model could be served with.
    """
    label = unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else ""
    if not label or len(label) > _LONGEST_LABEL or not label.isprintable():
        raise fields.wrong(field, f"the name of a class, 1 to {_LONGEST_LABEL} printable characters", value)
    return label


def find_json(source: Path) -> list[Path]:
    """The JSON files of a folder and the folders in it, in the order of their names; of a file, itself.

    Raises:
        InvalidRequestError: there is none.
    """
    if source.is_file():
        return [source]
    files = sorted(path for path in source.rglob("*.json") if path.is_file())
    if not files:
        raise InvalidRequestError(f"{source}: expected a folder with JSON files of annotations, found none in it")
    return files


def is_name(text: str) -> bool:
    """Whether a file can be called so: UTF-8 without NUL, and not too long."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(encoded) <= _LONGEST_NAME and b"\0" not in encoded


def is_there(file: Path) -> bool:
    """Whether it is a file, whatever somebody wrote as its name."""
    try:
        return file.is_file()
    except (OSError, ValueError):  # too long, or with characters that no name can have
        return False


def are_numbers(values: Any) -> bool:
    """Whether it is a list of finite numbers."""
    return isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values
    )
