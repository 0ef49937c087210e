"""``segserve encode-image``: both directions, files and streams, and what it refuses."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from segserve.cli import main


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.new("RGB", (7, 5), (200, 30, 30)).save(path)
    return path


def encode(*arguments: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "segserve.cli", "encode-image", *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, check=False)


def test_a_file_becomes_one_line_of_base64(photo: Path) -> None:
    done = encode(photo)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == 1 and done.stdout.endswith(b"\n")
    assert base64.b64decode(done.stdout.strip(), validate=True) == photo.read_bytes()


def test_there_and_back_through_files(photo: Path, tmp_path: Path) -> None:
    text, back = tmp_path / "photo.txt", tmp_path / "back.png"
    assert main(["encode-image", str(photo), "--out", str(text), "--data-url"]) == 0
    assert text.read_bytes().startswith(b"data:image/png;base64,iVBOR")
    assert main(["encode-image", "--decode", str(text), "--out", str(back)]) == 0
    assert back.read_bytes() == photo.read_bytes()


def test_through_streams_with_line_breaks(photo: Path) -> None:
    done = encode("-", "--decode", given=base64.encodebytes(photo.read_bytes()))
    assert done.stdout == photo.read_bytes()
    assert encode("-", given=done.stdout).stdout == base64.b64encode(photo.read_bytes()) + b"\n"


def test_a_jpeg_says_so_in_its_data_url(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    # The content decides, not the name.
    (tmp_path / "photo.png").write_bytes(buffer.getvalue())
    assert encode(tmp_path / "photo.png", "--data-url").stdout.startswith(b"data:image/jpeg;base64,/9j/")


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"hello", [], "not an image"),
        (b"", [], "empty"),
        (b"aGVsbG8=", ["--decode"], "not an image"),
        (b"!!!", ["--decode"], "not valid base64"),
        (b"\xff\xfe", ["--decode"], "not valid base64"),
        (b"", ["--decode"], "empty"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, options: list[str], words: str
) -> None:
    (tmp_path / "given").write_bytes(content)
    assert main(["encode-image", str(tmp_path / "given"), "--out", str(tmp_path / "out"), *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("segserve encode-image: ") and error.count("\n") == 1
    assert words in error
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode-image", str(tmp_path / "none.png")]) == 1
    assert "none.png" in capsys.readouterr().err


def test_data_urls_are_not_for_decoding(photo: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["encode-image", str(photo), "--decode", "--data-url"])
    assert stopped.value.code == 2
