"""TorchServe's access tokens, read from its key file whenever that has changed: they expire and are renewed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

TokenKind = Literal["inference", "management"]


class Tokens:
    """The Authorization headers for TorchServe. path: its key_file.json; None: its token check is off."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._version: tuple[int, int] | None = None
        self._keys: dict[str, str] = {}

    def headers(self, kind: TokenKind) -> list[tuple[str, str]]:
        """The header to send along; none while there is no token (TorchServe then refuses, which is reported)."""
        if self._path is None:
            return []
        self._read(self._path)
        key = self._keys.get(kind)
        return [("Authorization", f"Bearer {key}")] if key else []

    def forget(self) -> None:
        """Read the file anew next time, also if it looks unchanged: a token of it was refused."""
        self._version = None

    def _read(self, path: Path) -> None:
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_size)
            if version == self._version:
                return
            entries = json.loads(path.read_text(encoding="utf-8"))
            keys = {kind: str(entries[kind]["key"]) for kind in ("inference", "management")}
        except (OSError, ValueError, KeyError, TypeError):
            # Missing before TorchServe has written it, or caught half written: what was read before may still do.
            return
        self._keys, self._version = keys, version
