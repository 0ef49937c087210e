"""Log lines: one event, one line, whatever is in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from segserve.gateway import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("segserve", "uvicorn")]
    before = [(list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def logged(form: str, message: str = "request", exception: Exception | None = None, **fields: object) -> str:
    stream = io.StringIO()
    logs.configure(form, stream)
    logging.getLogger("segserve.access").info(message, extra={"fields": fields}, exc_info=exception)
    return stream.getvalue()


def test_json() -> None:
    entry = json.loads(logged("json", status=200, ms=1.5, path='/a "b"\n', model=None))
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "info",
        "logger": "segserve.access",
        "message": "request",
        "status": 200,
        "ms": 1.5,
        "path": '/a "b"\n',
        "model": None,
    }


def test_json_keeps_an_exception_in_its_line() -> None:
    line = logged("json", exception=ValueError("boom"))
    assert line.count("\n") == 1
    assert "boom" in json.loads(line)["exception"]


def test_text() -> None:
    line = logged("text", status=200, path="/v1/segment")
    assert line.endswith(" info segserve.access request status=200 path=/v1/segment\n")


def test_text_cannot_be_forged_by_what_callers_send() -> None:
    line = logged("text", path="/a\n2026 info forged status=200", other="x y")
    assert line.count("\n") == 1
    assert r'path="/a\n2026 info forged status=200"' in line
    assert 'other="x y"' in line


def test_configured_twice_it_still_logs_once() -> None:
    logs.configure("text", io.StringIO())
    assert logged("json").count("\n") == 1
