"""TorchServe's tokens: read from its key file, again when it changes, and kept when it cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

from segserve.gateway.tokens import Tokens


def write(path: Path, inference: str, management: str = "m", age_s: int = 0) -> None:
    keys = {
        "management": {"key": management},
        "inference": {"key": inference, "expiration time": "2026-01-01T00:00:00Z"},
        "API": {"key": "x"},
    }
    path.write_text(json.dumps(keys), encoding="utf-8")
    os.utime(path, ns=(0, 10**18 - age_s * 10**9))


def test_without_a_file_no_header_is_sent(tmp_path: Path) -> None:
    assert Tokens(None).headers("inference") == []
    assert Tokens(tmp_path / "not_there.json").headers("inference") == []


def test_each_kind_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "key_file.json"
    write(path, "inf", "man")
    tokens = Tokens(path)
    assert tokens.headers("inference") == [("Authorization", "Bearer inf")]
    assert tokens.headers("management") == [("Authorization", "Bearer man")]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "key_file.json"
    tokens = Tokens(path)
    for age, key in ((9, "one"), (8, "two")):
        write(path, key, age_s=age)
        assert tokens.headers("inference") == [("Authorization", f"Bearer {key}")]


def test_after_forget_it_is_read_though_it_looks_the_same(tmp_path: Path) -> None:
    path = tmp_path / "key_file.json"
    tokens = Tokens(path)
    write(path, "one")
    assert tokens.headers("inference") == [("Authorization", "Bearer one")]
    write(path, "two")
    assert tokens.headers("inference") == [("Authorization", "Bearer one")]
    tokens.forget()
    assert tokens.headers("inference") == [("Authorization", "Bearer two")]


def test_a_half_written_file_leaves_what_was_known(tmp_path: Path) -> None:
    path = tmp_path / "key_file.json"
    tokens = Tokens(path)
    write(path, "one", age_s=5)
    tokens.headers("inference")
    for broken in ("", "{", "[]", '{"inference": {}}'):
        path.write_text(broken, encoding="utf-8")
        assert tokens.headers("inference") == [("Authorization", "Bearer one")]
    path.unlink()
    assert tokens.headers("inference") == [("Authorization", "Bearer one")]
