"""What several unit tests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from http_stand_in import StandIn


@pytest.fixture
def server() -> Iterator[StandIn]:
    """An HTTP server whose answers the test queues."""
    with StandIn() as server:
        yield server
