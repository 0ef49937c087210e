"""How the tests are dealt out to the processes of `make test`."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadFileScheduling

WEB_PAGE = "tests/e2e/web_page/"


class ByService(LoadFileScheduling):
    """A file at a time, and the web page's files together: they share one service, which takes half a minute to start.

    The largest come first, so that the processes end at about the same time.
    """

    def _split_scope(self, nodeid: str) -> str:
        return WEB_PAGE if nodeid.startswith(WEB_PAGE) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByService | None:
    """The scheduler of `--dist loadfile`."""
    return ByService(config, log) if config.getvalue("dist") == "loadfile" else None
