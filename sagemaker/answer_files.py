"""What an endpoint answered, as files: pictures as they are, and those inside JSON beside a JSON that names them."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

_KINDS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "application/x-npy": "npy"}
_STARTS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp"}
_SHORTEST = 64
"""Characters: no picture is shorter in base64."""


def save(data: bytes, content_type: str, folder: Path, stem: str) -> list[Path]:
    """Write an answer into folder; returns the files, the answer's own first.

    Pictures in a JSON answer become ``STEM-results-0-renders-overlay.png`` and the like.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = content_type.partition(";")[0].strip()
    if kind != "application/json":
        file = folder / f"{stem}.{_KINDS.get(kind, 'bin')}"
        file.write_bytes(data)
        return [file]
    try:
        answer = json.loads(data)
    except ValueError:
        file = folder / f"{stem}.txt"
        file.write_bytes(data)
        return [file]
    pictures: list[Path] = []
    named = _without_pictures(answer, folder, stem, pictures)
    file = folder / f"{stem}.json"
    file.write_text(json.dumps(named, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return [file, *pictures]


def _without_pictures(value: Any, folder: Path, name: str, written: list[Path]) -> Any:
    """The value with the file's name in place of each picture; writes them."""
    if isinstance(value, dict):
        # A key is the server's: it names a file only as letters, digits and the like.
        return {key: _without_pictures(one, folder, f"{name}-{_plain(key)}", written) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_pictures(one, folder, f"{name}-{index}", written) for index, one in enumerate(value)]
    if isinstance(value, str) and len(value) >= _SHORTEST:
        picture = _picture(value)
        if picture is not None:
            data, suffix = picture
            file = folder / f"{name}.{suffix}"
            file.write_bytes(data)
            written.append(file)
            return file.name
    return value


def _picture(text: str) -> tuple[bytes, str] | None:
    """The bytes and the suffix of a picture in base64; None where the text is none."""
    try:
        start = base64.b64decode(text[:24], validate=True)
        suffix = next((suffix for magic, suffix in _STARTS.items() if start.startswith(magic)), None)
        return None if suffix is None else (base64.b64decode(text, validate=True), suffix)
    except (binascii.Error, ValueError):
        return None


def _plain(key: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in key)[:40]
