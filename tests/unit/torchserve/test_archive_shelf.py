"""Which archives may be loaded while serving, how they get into TorchServe's store, and what kept one from loading."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from segserve.config import ArchivedModel
from segserve.errors import InvalidRequestError, NoRoomError
from segserve.machine_memory import MemoryRoom
from segserve.torchserve.archive_shelf import ArchiveShelf
from segserve.torchserve.load_failures import load_failures
from segserve.torchserve.plan import Overrides

MIB = 2**20


def archive(path: Path, handler: str = "mask_rcnn_handler.py", config: str = "", weights: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    model = {"modelName": "a", "modelVersion": "1.0", "handler": handler, "configFile": "a.yaml"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
        file.writestr("a.yaml", config)
        file.writestr("checkpoint/weights.bin", bytes(weights))
    return path


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / name for name in ("links", "store", "hosted", "outside")}
    for folder in made.values():
        folder.mkdir()
    return made


def shelf(places: dict[str, Path], **options: Any) -> ArchiveShelf:
    roots = places["store"], places["hosted"]
    return ArchiveShelf(places["links"], roots, places["links"].parent / "log", "cpu", **options)


@pytest.mark.parametrize("form", ["file", "folder", "relative", "link within"])
def test_an_archive_within_the_folders_is_linked(places: dict[str, Path], form: str) -> None:
    real = archive(places["hosted"] / "deep" / "model" / "x.mar")
    url = str(real)
    if form == "folder":
        url = str(real.parent)
    elif form == "relative":
        real = archive(places["store"] / "y.mar")
        url = "y.mar"
    elif form == "link within":
        (places["store"] / "z.mar").symlink_to(real)
        url = "z.mar"
    placed = shelf(places).place("name.1", url)
    assert (placed.file, placed.about.kind) == ("name.1.mar", "mask_rcnn")
    assert (placed.workers, placed.batch_size, placed.batch_delay_ms) == (1, 1, 1)
    link = places["links"] / "name.1.mar"
    assert link.is_symlink() and link.resolve() == real.resolve()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("{outside}/x.mar", "elsewhere"),
        ("{outside}", "elsewhere"),
        ("../outside/x.mar", "elsewhere"),
        ("{hosted}/../outside/x.mar", "elsewhere"),
        ("{hosted}/escape.mar", "elsewhere"),
        ("{hosted}/linked", "elsewhere"),
        ("{hosted}/inner", "elsewhere"),
        ("/nowhere/at/all", "elsewhere"),
        ("http://127.0.0.1/x.mar", "elsewhere"),
        ("s3://bucket/x.mar", "elsewhere"),
        ("{hosted}/none.mar", "there is none"),
        ("{hosted}/text.txt", "there is none"),
        ("{hosted}/empty", "it holds 0"),
        ("{hosted}/two", "it holds 2"),
        ("{hosted}/text.mar", "not a model archive"),
        ("{hosted}/foreign.mar", "none of segserve's models"),
        ("", "it holds 0"),
        ("\0", "it holds 0"),
        ("{hosted}/loop.mar", "lead to each other"),
        ("{hosted}/" + 300 * "x" + ".mar", "too long"),
        (4096 * "x", "too long"),
    ],
)
def test_what_may_not_be_loaded(places: dict[str, Path], url: str, told: str) -> None:
    archive(places["outside"] / "x.mar")
    hosted = places["hosted"]
    (hosted / "escape.mar").symlink_to(places["outside"] / "x.mar")
    (hosted / "linked").symlink_to(places["outside"])
    (hosted / "inner").mkdir()
    (hosted / "inner" / "x.mar").symlink_to(places["outside"] / "x.mar")
    (hosted / "empty").mkdir()
    archive(hosted / "two" / "a.mar")
    archive(hosted / "two" / "b.mar")
    (hosted / "text.txt").write_text("text")
    (hosted / "text.mar").write_text("text")
    archive(hosted / "foreign.mar", handler="image_classifier")
    (hosted / "loop.mar").symlink_to("loop.mar")
    with pytest.raises(InvalidRequestError, match=r"^url: ") as caught:
        shelf(places).place("a", url.format(**places))
    assert told in caught.value.message
    assert str(hosted.parent) not in caught.value.message
    assert list(places["links"].iterdir()) == []


def test_the_operators_numbers_and_the_profile_decide(places: dict[str, Path]) -> None:
    config = "profiles:\n  cpu: {workers: 2, batch_size: 3, batch_delay_ms: 4}"
    archive(places["store"] / "x.mar", config=config)
    placed = shelf(places).place("a", "x.mar")
    assert (placed.workers, placed.batch_size, placed.batch_delay_ms) == (2, 3, 4)
    placed = shelf(places, overrides=Overrides(workers=3, batch_size=5)).place("a", "x.mar")
    assert (placed.workers, placed.batch_size, placed.batch_delay_ms) == (3, 5, 4)


def test_no_room_is_told_with_numbers_before_anything_is_loaded(places: dict[str, Path]) -> None:
    archive(places["store"] / "x.mar", weights=5 * MIB)
    few = shelf(places, room=lambda: MemoryRoom(4000 * MIB, 1202 * MIB))
    with pytest.raises(NoRoomError, match=r"needs about 1,205 MiB \(1 workers\); 1,202 MiB are free"):
        few.place("a", "x.mar")
    assert list(places["links"].iterdir()) == []
    assert shelf(places, room=lambda: MemoryRoom(4000 * MIB, 1206 * MIB)).place("a", "x.mar")
    assert shelf(places, room=lambda: None).place("a", "x.mar")
    two = shelf(places, room=lambda: MemoryRoom(4000 * MIB, 2409 * MIB), overrides=Overrides(workers=2))
    with pytest.raises(NoRoomError, match="2 workers"):
        two.place("a", "x.mar")


def test_memory_that_a_loading_model_will_take_is_not_given_twice(places: dict[str, Path]) -> None:
    archive(places["store"] / "x.mar", weights=5 * MIB)
    kept = shelf(places, room=lambda: MemoryRoom(4000 * MIB, 2409 * MIB))
    kept.place("first", "x.mar")
    with pytest.raises(NoRoomError, match="1,203 MiB are free"):
        kept.place("second", "x.mar")
    kept.remove("first")
    kept.place("second", "x.mar")
    kept.settle("second")
    assert kept.place("third", "x.mar")


LINE = "2026-11-20T12:56:58,229 INFO  W-9000-m-stdout MODEL_LOG - {}\n"


@pytest.mark.parametrize(
    ("line", "error", "told"),
    [
        ("a cannot be loaded: sam has no *.safetensors file.", InvalidRequestError, "sam has no *.safetensors file."),
        (
            "a cannot be loaded: OSError: /srv/x/tmp/models/1/w.bin: too short",
            InvalidRequestError,
            "OSError: w.bin: too",
        ),
        ("a cannot be loaded: OutOfMemoryError: CUDA out of memory. Tried …", NoRoomError, "CUDA out of memory"),
        ("a cannot be loaded: MemoryError: ", NoRoomError, "MemoryError"),
        ("a cannot be loaded: RuntimeError: DefaultCPUAllocator: can't allocate memory", NoRoomError, "allocate"),
        ("b cannot be loaded: of another model", None, ""),
        ("a is ready on cpu", None, ""),
    ],
)
def test_why_a_worker_could_not_load(places: dict[str, Path], line: str, error: Any, told: str) -> None:
    archive(places["store"] / "x.mar")
    log = places["links"].parent / "log"
    log.write_text(LINE.format("a cannot be loaded: an older failure"))
    kept = shelf(places)
    kept.place("a", "x.mar")
    assert kept.failure("a") is None
    with log.open("a") as file:
        file.write(LINE.format(line))
    failure = kept.failure("a")
    if error is None:
        assert failure is None
    else:
        assert type(failure) is error and told in failure.message and "/srv" not in failure.message


# What TorchServe 0.12 logs when a handler's module cannot be imported, shortened.
DEATH = """\
Backend worker process died.
Traceback (most recent call last):
  File "/srv/ts/model_loader.py", line 153, in _load_handler_file
    module = importlib.import_module(module_name)
ModuleNotFoundError: No module named 'segserve.old'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/ts/model_service_worker.py", line 301, in <module>
    worker.run_server()
ValueError: No class of the handler
"""


@pytest.mark.parametrize(
    ("worker", "last", "error"),
    [
        ("a_1.0", "ModuleNotFoundError: No module named 'segserve.old'", InvalidRequestError),
        ("a_1.0", "MemoryError", NoRoomError),
        ("a_b_1.0", "ModuleNotFoundError: No module named 'segserve.old'", None),
        ("b_1.0", "ModuleNotFoundError: No module named 'segserve.old'", None),
    ],
)
def test_a_worker_that_cannot_import_its_handler_is_no_lack_of_memory(
    places: dict[str, Path], worker: str, last: str, error: Any
) -> None:
    archive(places["store"] / "x.mar")
    log = places["links"].parent / "log"
    kept = shelf(places)
    kept.place("a", "x.mar")
    text = DEATH.replace("ModuleNotFoundError: No module named 'segserve.old'", last)
    other = LINE.format("a line of another worker in between")
    log.write_text(
        "".join(LINE.format(line).replace("W-9000-m", f"W-9003-{worker}") + other for line in text.split("\n"))
    )
    failure = kept.failure("a")
    if error is None:
        assert failure is None
    else:
        assert type(failure) is error and last in failure.message and "/srv" not in failure.message


def test_removing_takes_the_link_and_leaves_the_archive(places: dict[str, Path]) -> None:
    real = archive(places["store"] / "x.mar")
    kept = shelf(places)
    kept.place("a", "x.mar")
    kept.remove("a")
    kept.remove("a")
    assert list(places["links"].iterdir()) == [] and real.exists()


def test_failures_of_a_log_that_was_rotated_are_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(LINE.format("m cannot be loaded: x"))
    size = log.stat().st_size
    assert load_failures(log, ["m"], size) == []
    assert load_failures(log, ["m"], size + 1) == ["m cannot be loaded: x"]


def test_what_is_known_of_the_model_travels_with_it(places: dict[str, Path]) -> None:
    archive(places["store"] / "x.mar", handler="semantic_handler.py")
    about = shelf(places).place("a", "x.mar").about
    assert about == ArchivedModel("semantic", "torch", None, ("torch",))
