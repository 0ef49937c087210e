"""Accept headers, weighed."""

from __future__ import annotations

import pytest

from segserve.gateway.accept import preferred

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
