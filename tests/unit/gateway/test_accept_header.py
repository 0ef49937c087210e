"""Accept headers, weighed."""

from __future__ import annotations

import pytest

from segserve.gateway.accept import preferred, takes_gzip

OFFERED = ("image/png", "application/json")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("application/*", "application/json"),
        ("application/json", "application/json"),
        ("Application/JSON ; charset=utf-8", "application/json"),
        ("application/json, image/png", "application/json"),
        ("image/png, application/json", "image/png"),
        ("application/json, text/plain, */*", "application/json"),
        ("image/png;q=0.5, application/json;q=0.9", "application/json"),
        ("application/json;q=0.1, */*", "image/png"),
        ("application/json;q=0", "image/png"),
        ("application/json;q=much", "image/png"),
        ("text/html", "image/png"),
        ("text/html, application/json;q=0.2", "application/json"),
        (",;=,", "image/png"),
    ],
)
def test_preferred(accept: str, form: str) -> None:
    assert preferred(accept, OFFERED) == form


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("GZip;q=0.001", True),
        ("x-gzip", True),
        ("*", True),
        ("*;q=0", False),
        ("gzip, *;q=0", True),
        ("gzip;q=0, *", False),
        ("br;q=1, gzip;q=0.8, identity;q=0.5", True),
        ("identity, gzip;q=0.9", False),
        ("identity;q=0", False),
        ("", False),
        ("deflate", False),
        ("gzip;q=much", False),
        ("gzip;q=nan", False),
        (",;=,", False),
    ],
)
def test_takes_gzip(accept_encoding: str, expected: bool) -> None:
    assert takes_gzip(accept_encoding) is expected
