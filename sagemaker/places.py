"""Addresses in S3."""

from __future__ import annotations

import re

from failures import DeploymentError

_PLACE = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9!_.'()/=-]*))?")


def split(place: str) -> tuple[str, str]:
    """Bucket and key, or prefix, of an address.

    Raises:
        DeploymentError: it is none.
    """
    found = _PLACE.fullmatch(place)
    if found is None:
        raise DeploymentError(f"expected s3://bucket/prefix, came {place[:120]!r}")
    return found[1], found[2] or ""
