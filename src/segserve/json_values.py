"""Numbers and choices of a request as JSON has them, and the names of the fields that are wrong.

In JSON a text or a switch is no number, although pydantic would take ``"5"`` and ``true`` for one. Form fields and
query parameters are nothing but text: a check in the context AS_TEXT reads them.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from pydantic import ValidationError, ValidationInfo

AS_TEXT: Final = {"as_text": True}
"""The context (of pydantic's validation) of values that came as text."""

ONE: Final = "(one)"
SEVERAL: Final = "(several)"
"""Tags of a field that holds a value or a list of such; no part of any name."""

# pydantic names its own classes there.
_EXPECTED = dict.fromkeys(("model_type", "model_attributes_type"), "Input should be an object")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_SWITCHES = {"true": True, "1": True, "false": False, "0": False}
_WHOLE = re.compile(r"[+-]?\d{1,30}", re.ASCII)


def number(value: Any, info: ValidationInfo) -> Any:
    """Before a number is read: refuses switches, and text that is not meant to be read."""
    if isinstance(value, str) and info.context == AS_TEXT:
        return number_of_text(value)
    if isinstance(value, str | bytes | bool):
        raise ValueError("Input should be a valid number, not a text or a switch")
    return _finite(value)


def number_of_text(value: Any) -> Any:
    """Before a number is read that may also come as text: the number, in digits without ``_``; no switch."""
    if isinstance(value, str):
        text = value.strip()
        if _WHOLE.fullmatch(text):
            return int(text)
        if _NUMBER.fullmatch(text):
            return _finite(float(text))
    if isinstance(value, str | bytes | bool):
        raise ValueError("Input should be a valid number")
    return _finite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("Input should be a finite number")
    return value


def switch(value: Any, info: ValidationInfo) -> Any:
    """Before a switch is read: refuses numbers, and text that is not meant to be read."""
    if not isinstance(value, bool) and not (isinstance(value, str) and info.context == AS_TEXT):
        raise ValueError("Input should be a valid boolean: true or false")
    return value


def switch_or_polygon(value: Any, info: ValidationInfo) -> Any:
    """Before the parameter refine is read: one message instead of one for each of its forms. What came as text is read
    here, since pydantic would take the text "true" for the word."""
    if isinstance(value, str) and info.context == AS_TEXT:
        value = _SWITCHES.get(value.lower(), value)
    if not isinstance(value, bool) and value != "polygon":
        raise ValueError("Input should be true, false (a valid boolean) or 'polygon'")
    return value


def one_or_several(value: Any) -> str:
    """Which form a field has that holds a value or a list of such: only what that form lacks is told."""
    return SEVERAL if isinstance(value, list | tuple) else ONE


def describe(error: ValidationError, where: str = "", *, as_text: bool = False) -> str:
    """One line for the caller: the first three wrong fields, what was expected, what came.

    Args:
        where: the object that the fields are in; as text, what kind of field they are.
        as_text: the fields came as text, the parameters among them by their own names.
    """
    lines = []
    problems = error.errors(include_url=False)
    for problem in problems[:3]:
        # As the caller wrote it, e.g. prompt.points.0.2.
        parts = (str(part) for part in problem["loc"] if part not in (ONE, SEVERAL))
        if as_text:
            field = " ".join(part for part in (where, *parts) if part and part != "parameters")
        else:
            field = ".".join([*([where] if where else []), *parts])
        came = "" if problem["type"] in ("missing", "json_invalid") else f" (came: {_shorten(problem.get('input'))})"
        expected = _EXPECTED.get(
            problem["type"], problem["msg"].removeprefix("Value error, ").replace(" after validation", "")
        )
        lines.append(f"{field or 'body'}: {expected}{came}")
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(lines) + more + "."


def _shorten(value: Any, length: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 1] + "…"
