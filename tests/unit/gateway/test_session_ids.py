"""Stateful sessions over time."""

from __future__ import annotations

import pytest

from segserve.errors import InvalidRequestError
from segserve.gateway import sessions
from segserve.gateway.sessions import Sessions


def test_a_session_ends_when_it_said() -> None:
    now = [1_700_000_000.0]
    opened = Sessions(lifetime_s=60, clock=lambda: now[0])
    session = opened.open()
    assert session.header == f"{session.id}; Expires=2023-11-14T22:14:20Z"
    now[0] += 59.5
    opened.check(session.id)
    now[0] += 0.5
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match="is over, or was not opened here"):
            opened.check(session.id)


def test_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_MOST", 2)
    opened = Sessions()
    first, second, third = (opened.open() for _ in range(3))
    with pytest.raises(InvalidRequestError):
        opened.check(first.id)
    opened.check(second.id)
    opened.check(third.id)


def test_a_message_shows_no_more_than_the_beginning_of_an_id() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Sessions().check("x" * 5000)
    assert len(caught.value.message) < 300
