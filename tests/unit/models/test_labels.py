"""Labels files."""

from __future__ import annotations

from pathlib import Path

import pytest

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.models.labels import coco_labels, read_labels


def write(folder: Path, content: bytes) -> Path:
    file = folder / "labels.txt"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    "content",
    [b"disc\nbox\nred car\n", b"disc\nbox\nred car", b"\xef\xbb\xbfdisc\r\nbox\r\n red car \r\n\r\n\n  \n"],
)
def test_one_label_a_line(tmp_path: Path, content: bytes) -> None:
    assert read_labels(write(tmp_path, content)) == ("disc", "box", "red car")


def test_other_scripts(tmp_path: Path) -> None:
    assert read_labels(write(tmp_path, "Stühle\n椅子\n".encode())) == ("Stühle", "椅子")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"disc\n\nbox\n", "line 2 is blank"),
        (b"disc\nbox\ndisc\n", r"'disc' is there twice \(labels 1 and 3\)"),
        (b"disc\nb\x00x\n", "label 2: expected"),
        (b"x" * 300, "1 to 200 printable characters"),
        (b"\xff\xfe\x00", "expected UTF-8"),
        (b"x\n" * 2**20, "at most"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as refused:
        read_labels(write(tmp_path, content))
    assert refused.value.message.startswith("labels.txt: ")
    assert len(refused.value.message) < 300


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"labels\.txt"):
        read_labels(tmp_path / "labels.txt")


def test_coco_has_80_labels_by_their_identifiers() -> None:
    labels = coco_labels()
    assert len(labels) == len(set(labels)) == 80
    assert labels[:3] == ("person", "bicycle", "car")
    assert labels[-1] == "toothbrush"
