"""Which form of an answer a caller's Accept header prefers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Form = TypeVar("Form", bound=str)


def preferred(accept: str, offered: Sequence[Form]) -> Form:
    """The offered media type that the header weighs most; of equal ones, the one that it names first.

    Args:
        accept: the header, e.g. ``"image/png;q=0.5, application/json"``; empty where there is none.
        offered: media types; the first is taken where the header leaves the choice, or allows none of them.
    """
    best: tuple[float, Form] = (0.0, offered[0])
    for part in accept.split(",") if accept else ():
        wanted, _, options = part.partition(";")
        quality = _quality(options)
        match = next((form for form in offered if _allows(wanted.strip().lower(), form)), None)
        if match is not None and quality > best[0]:
            best = (quality, match)
    return best[1]


def _allows(wanted: str, form: str) -> bool:
    kind, _, subtype = wanted.partition("/")
    return wanted in (form, "*/*") or (subtype == "*" and form.startswith(f"{kind}/"))


def _quality(options: str) -> float:
    for option in options.split(";"):
        name, _, value = option.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def takes_gzip(accept_encoding: str) -> bool:
    """Whether a caller with this Accept-Encoding header is sent gzip: it takes it, and likes plain text no better.

    Without a header the answer stays as it is: not every caller unpacks what it did not ask for.
    """
    weights = {
        coding.strip().lower(): _quality(options)
        for coding, _, options in (part.partition(";") for part in accept_encoding.split(","))
    }
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)
