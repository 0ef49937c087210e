"""``segserve download`` against a small stand-in for a model hub, and from local folders."""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from segserve.cli import download
from segserve.errors import FetchError, InvalidRequestError, NotFoundError, SegserveError
from segserve.torchserve.checkpoint_folder import check_checkpoint
from unit.models.sam2_checkpoints import save_sam2

REVISION = "0123456789abcdef0123456789abcdef01234567"
DEMO = Path(__file__).parents[3] / "weights" / "demo" / "grounded_sam"
PICKLE = b"weights that would run code"


class Hub(ThreadingHTTPServer):
    """Serves the folders of ``repositories`` in the way of huggingface.co, and remembers what was asked for."""

    def __init__(self, repositories: dict[str, dict[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.repositories = repositories
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0].strip("/")
        self.server.asked.append(path)
        name = "/".join(path.removeprefix("api/models/").split("/")[:2])
        files = self.server.repositories.get(name)
        if files is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        elif path.startswith("api/models/"):
            self._send(200, json.dumps(self._listing(path, name, files)).encode(), {}, body)
        else:
            content = files[path.split("/", 4)[4]]
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": REVISION}
            self._send(200, content, headers, body)

    def _listing(self, path: str, name: str, files: dict[str, bytes]) -> object:
        if "/tree/" in path:
            return [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in files.items()
            ]
        return {"id": name, "sha": REVISION, "siblings": [{"rfilename": file} for file in files]}

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


def repository(folder: Path) -> dict[str, bytes]:
    """A repository as they are: other formats of the weights, and papers, beside what is needed."""
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    return files | {"pytorch_model.bin": PICKLE, "README.md": b"# A model"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    detector, segmenter = repository(DEMO / "grounding_dino"), repository(DEMO / "sam")
    without = {name: content for name, content in segmenter.items() if not name.endswith(".safetensors")}
    server = Hub({"someone/detector": detector, "someone/segmenter": segmenter, "someone/pickled": without})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    download.add_parser(parser.add_subparsers())
    args = parser.parse_args(["download", *(arguments if arguments[0] == "sam2" else ("grounded_sam", *arguments))])
    return int(args.run(args))


def assert_complete(out: Path) -> None:
    for part in ("grounding_dino", "sam"):
        for file in (DEMO / part).glob("*.safetensors"):
            assert (out / part / file.name).read_bytes() == file.read_bytes()
        assert (out / part / "config.json").is_file()
        assert not list((out / part).glob("*.bin"))
        assert not (out / part / ".cache").exists()
    assert [path.name for path in sorted(out.parent.iterdir())] == [out.name]


def test_both_parts_come_from_the_hub(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "checkpoints"
    assert run("--hub", hub.url, "--detector", "someone/detector", "--segmenter", "someone/segmenter",
               "--out", str(out)) == 0  # fmt: skip
    assert_complete(out)
    assert f"segserve archive grounded_sam --weights {out}" in capsys.readouterr().out
    assert any(path.endswith("model.safetensors") for path in hub.asked)
    assert not any(path.endswith((".bin", ".md")) for path in hub.asked)


def test_local_folders_instead_of_names(tmp_path: Path) -> None:
    out = tmp_path / "checkpoints"
    assert run("--detector", str(DEMO / "grounding_dino"), "--segmenter", str(DEMO / "sam"), "--out", str(out)) == 0
    assert_complete(out)


@pytest.mark.parametrize(
    ("detector", "segmenter", "error", "message"),
    [
        ("someone/nobody", "someone/segmenter", NotFoundError, "has no repository someone/nobody"),
        ("some one/x/y", "someone/segmenter", InvalidRequestError, "neither a folder nor a repository's name"),
        ("someone/segmenter", "someone/segmenter", InvalidRequestError, "expected model_type grounding-dino"),
        ("someone/detector", "someone/pickled", NotFoundError, "Pickled weights"),
    ],
)
def test_failures_leave_nothing_behind(
    hub: Hub, tmp_path: Path, detector: str, segmenter: str, error: type[SegserveError], message: str
) -> None:
    out = tmp_path / "checkpoints"
    with pytest.raises(error, match=message) as raised:
        run("--hub", hub.url, "--detector", detector, "--segmenter", segmenter, "--out", str(out))
    assert "\n" not in raised.value.message
    assert list(tmp_path.iterdir()) == []


def test_no_hub_to_be_reached(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with pytest.raises(FetchError, match=r"no model hub answers at http://127\.0\.0\.1:\d+ .* give its folder"):
            run("--hub", f"http://127.0.0.1:{taken.getsockname()[1]}", "--out", str(tmp_path / "checkpoints"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(InvalidRequestError, match="not empty"):
        run("--out", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_sam2_is_one_folder(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_sam2(tmp_path / "source")
    hub.repositories["someone/sam2"] = {**repository(source), "sam2.pt": PICKLE}
    out = tmp_path / "checkpoints" / "sam2"
    assert run("sam2", "--hub", hub.url, "--segmenter", "someone/sam2", "--out", str(out)) == 0
    assert (out / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert not list(out.glob("*.pt")) and not list(out.glob("*.bin"))
    assert f"segserve archive sam2 --weights {out}" in capsys.readouterr().out
    check_checkpoint("sam2", out)


def test_sam2_refuses_other_models_and_a_detector(hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "checkpoints"
    with pytest.raises(InvalidRequestError, match="expected model_type sam2"):
        run("sam2", "--hub", hub.url, "--segmenter", "someone/segmenter", "--out", str(out))
    with pytest.raises(InvalidRequestError, match="--detector"):
        run("sam2", "--detector", "someone/detector", "--out", str(out))
    assert list(tmp_path.iterdir()) == []
