"""Structured logs: one line an event, as text or as JSON.

URLs in them have no query, and nothing secret is passed in.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

_MARK = "segserve_lines"


class LineFormatter(logging.Formatter):
    """``time level logger message field=value …`` on one line, or the same as one JSON object.

    Fields are what a record carries as ``extra={"fields": {…}}``. form: ``json``, or ``text``.
    """

    def __init__(self, form: str) -> None:
        super().__init__()
        self._json = form == "json"

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", None) or {}
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        trouble = self.formatException(record.exc_info) if record.exc_info else None
        if self._json:
            entry = {"time": moment, "level": record.levelname.lower(), "logger": record.name}
            entry |= {"message": record.getMessage(), **fields}
            if trouble:
                entry["exception"] = trouble
            return json.dumps(entry, ensure_ascii=False, default=str)
        words = [moment, record.levelname.lower(), record.name, record.getMessage()]
        words += [f"{name}={_plain(value)}" for name, value in fields.items()]
        return " ".join(words) + (f"\n{trouble}" if trouble else "")


def configure(form: str, stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send segserve's log, and uvicorn's warnings, to stream (default: standard error). Called once by a program.

    level: the least that is logged, as the module logging counts.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(form))
    handler.set_name(_MARK)
    for name, least in (("segserve", level), ("uvicorn", max(level, logging.WARNING))):
        logger = logging.getLogger(name)
        for old in [old for old in logger.handlers if old.get_name() == _MARK]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel(least)
        logger.propagate = False


def _plain(value: Any) -> str:
    """A value without white space that could be mistaken for the next field, or for another line."""
    text = str(value)
    return json.dumps(text, ensure_ascii=True) if not text.isprintable() or " " in text or '"' in text else text
