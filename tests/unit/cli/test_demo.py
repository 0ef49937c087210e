"""``segserve demo``: how findings are compared with the truth, judged and shown. The whole of it runs in e2e."""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from rich.console import Console

from segserve.cli import demo, demo_classes, demo_server
from segserve.client import Instance, Result
from segserve.errors import NotReadyError, ServiceError
from segserve.imaging import decode
from segserve.masks import encode_rle
from segserve.training.scenes import CATEGORIES, Scene, SceneObject

HEIGHT, WIDTH = 40, 60


def scene(*things: tuple[str, str | None, tuple[int, int, int, int], bool]) -> Scene:
    """A scene of rectangles: category, color, box, ignore; later ones lie on top."""
    instances = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    objects = []
    for number, (category, color, box, ignore) in enumerate(things, 1):
        x0, y0, x1, y1 = box
        instances[y0:y1, x0:x1] = number
        objects.append(SceneObject(number, category, color, box, (x1 - x0) * (y1 - y0), ignore))
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Scene(1, image, instances, np.zeros((HEIGHT, WIDTH), dtype=np.uint8), tuple(objects))


def found(label: str, score: float, box: tuple[int, int, int, int]) -> Instance:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return Instance(label, score, box, int(mask.sum()), encode_rle(mask))


def compared(truth: Scene, *instances: Instance) -> list[tuple[str, float | None, float]]:
    findings = demo.compare(truth, Result(WIDTH, HEIGHT, list(instances)))
    return [(finding.phrase, finding.score, round(finding.iou, 3)) for finding in findings]


LEFT, RIGHT = (0, 0, 10, 10), (20, 0, 30, 10)
TWO_CHAIRS = scene(("chair", "red", LEFT, False), ("chair", "red", RIGHT, False))


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ([], [(None, 0.0), (None, 0.0)]),
        ([found("red chair", 0.9, RIGHT), found("red chair", 0.8, LEFT)], [(0.8, 1.0), (0.9, 1.0)]),
        ([found("blue chair", 0.9, LEFT)], [(None, 0.0), (None, 0.0)]),
        ([found("red chair", 0.9, (0, 0, 10, 5))], [(0.9, 0.5), (None, 0.0)]),
        # A second answer for the same object is no answer for the other one.
        ([found("red chair", 0.9, LEFT), found("red chair", 0.8, LEFT)], [(0.9, 1.0), (None, 0.0)]),
        ([found("red chair", 0.9, (40, 20, 50, 30))], [(None, 0.0), (None, 0.0)]),
    ],
)
def test_compare(instances: list[Instance], expected: list[tuple[float | None, float]]) -> None:
    assert compared(TWO_CHAIRS, *instances) == [("red chair", score, iou) for score, iou in expected]


def test_compare_leaves_out_what_is_to_be_ignored() -> None:
    truth = scene(("rug", "blue", LEFT, True), ("window", None, RIGHT, False))
    assert compared(truth, found("blue rug", 0.9, LEFT), found("window", 0.7, RIGHT)) == [("window", 0.7, 1.0)]


def test_compare_by_category() -> None:
    answer = Result(WIDTH, HEIGHT, [found("chair", 0.9, RIGHT), found("red chair", 0.8, LEFT)])
    findings = demo.compare(TWO_CHAIRS, answer, by_category=True)
    assert findings == [demo.Finding("chair", None, 0.0), demo.Finding("chair", 0.9, 1.0)]


def test_table_of_classes() -> None:
    """Two chairs, of which one is found well and one badly; a lamp that nobody put there."""
    answer = Result(
        WIDTH,
        HEIGHT,
        [found("chair", 0.9, RIGHT), found("chair", 0.8, (0, 0, 10, 4)), found("lamp", 0.7, (40, 20, 50, 30))],
    )
    room = demo.Room(TWO_CHAIRS, answer, answer, None, TWO_CHAIRS.image)
    output = io.StringIO()
    findings = [demo.compare(TWO_CHAIRS, answer, by_category=True)]
    Console(file=output, width=100).print(demo.class_table([room], findings))
    rows = [line.replace("│", " ").split() for line in output.getvalue().splitlines()]
    assert ["chair", "2", "1", "1", "0.700"] in rows
    assert ["lamp", "0", "0", "1", "-"] in rows
    assert ["all", "2", "1", "2", "0.700"] in rows


@pytest.mark.parametrize(
    ("model", "option"),
    [("mask_rcnn", "instance_weights"), ("semantic", "semantic_weights"), ("sam2", "click_weights")],
)
def test_further_weights_are_used_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, option: str
) -> None:
    monkeypatch.setattr("segserve.torchserve.archive.source_folder", lambda name: tmp_path / name)
    folder = tmp_path / "weights" / "demo" / model

    def chosen(own: Path | None) -> dict[str, Path]:
        given = {f"{kind}weights": None for kind in ("", "instance_", "semantic_", "click_")}
        return demo._weights(argparse.Namespace(**{**given, option: own}))

    assert chosen(None) == {"grounded_sam": folder.with_name("grounded_sam")}
    assert chosen(tmp_path)[model] == tmp_path
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    assert chosen(None)[model] == folder


def labeled(*parts: tuple[str, tuple[int, int, int, int]]) -> Result:
    """A semantic answer for a scene: wall everywhere, and the classes of the rectangles."""
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for name, (x0, y0, x1, y1) in parts:
        labels[y0:y1, x0:x1] = CATEGORIES.index(name)
    return Result(WIDTH, HEIGHT, [], label_map=labels, classes=CATEGORIES)


def classified(*parts: tuple[str, tuple[int, int, int, int]]) -> Scene:
    """A scene whose truth is labeled(parts)."""
    instances = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Scene(1, image, instances, np.asarray(labeled(*parts).label_map), ())


def test_classes_are_compared_pixel_by_pixel() -> None:
    truth = classified(("floor", (0, 20, 60, 40)))
    answer = labeled(("floor", (0, 30, 60, 40)), ("rug", (0, 20, 60, 25)))
    ious = {finding.phrase: finding.iou for finding in demo.class_findings(truth, answer)}
    # Of 20 rows of floor 10 are found; the wall has its own 20 and 5 of the floor's.
    assert ious == {"wall": pytest.approx(20 / 25), "floor": pytest.approx(0.5)}
    assert demo.mean_iou(demo.class_findings(truth, labeled(("floor", (0, 20, 60, 40))))) == 1
    with pytest.raises(ValueError, match="no label map of the room's size"):
        demo.class_findings(truth, Result(WIDTH, HEIGHT, [], label_map=np.zeros((5, 5), np.uint8), classes=CATEGORIES))


def test_table_of_pixels() -> None:
    """Over two scenes; a class that is in the answers only is shown, but is no part of the mean."""
    scenes = [classified(("floor", (0, 20, 60, 40))), classified()]
    answers = [labeled(("floor", (0, 30, 60, 40))), labeled(("rug", (0, 20, 60, 40)))]
    output = io.StringIO()
    table = demo_classes.class_table(list(zip(scenes, answers, strict=True)))
    Console(file=output, width=100).print(table)
    rows = [line.replace("│", " ").split() for line in output.getvalue().splitlines()]
    assert ["wall", "75.0", "62.5", "0.571"] in rows
    assert ["floor", "25.0", "12.5", "0.500"] in rows
    assert ["rug", "0.0", "25.0", "0.000"] in rows
    assert ["mean", "0.536"] in rows


def test_pictures_of_classes_have_a_legend_and_so_has_the_sheet(tmp_path: Path) -> None:
    truth, empty = classified(("floor", (0, 20, 60, 40))), Result(WIDTH, HEIGHT, [])
    rooms = [demo.Room(truth, empty, None, labeled(("floor", (0, 20, 60, 40))), truth.image)]
    assert demo._write_pictures(rooms, tmp_path) == ["overlay", "classes", "tiled"]
    classes = decode((tmp_path / "room_1_classes.png").read_bytes())
    assert classes.shape[0] > HEIGHT + 8
    wall, floor = classes[5, 30].astype(int), classes[35, 30].astype(int)
    assert np.abs(wall - floor).sum() > 60, "wall and floor have colors of their own"
    sheet = decode((tmp_path / "overview.jpg").read_bytes())
    without = [demo.Room(truth, empty, None, None, truth.image)]
    assert demo._write_pictures(without, tmp_path) == ["overlay", "tiled"]
    rows_only = decode((tmp_path / "overview.jpg").read_bytes())
    assert sheet.shape[1] == 4 * 360 + 3 * 8 and rows_only.shape[1] == 3 * 480 + 2 * 8
    assert sheet.shape[0] > 240 + 20 and rows_only.shape[0] == 320


def test_mean_counts_what_was_not_found() -> None:
    findings = [demo.Finding("a", 0.9, 0.9), demo.Finding("b", None, 0.0)]
    assert demo.mean_iou(findings) == pytest.approx(0.45)
    assert demo.mean_iou([]) == 0


@pytest.mark.parametrize(("iou", "status"), [(0.7, 0), (0.69, 1)])
@pytest.mark.parametrize("model", ["grounded_sam", "mask_rcnn", "semantic", "sam2"])
def test_verdict(iou: float, status: int, model: str) -> None:
    output = io.StringIO()
    good = [demo.Finding("sofa", 0.9, 0.95)]
    findings = {"grounded_sam": [good, good], "mask_rcnn": [good, good]}
    findings["sam2"] = [good, []]
    findings[model] = [good, [demo.Finding("sofa", 0.9, iou)]]
    assert demo._verdict([TWO_CHAIRS, TWO_CHAIRS], findings, Console(file=output, width=120)) == status
    assert (f"{model}, room 1: mean IoU 0.690 is under 0.7" in output.getvalue()) == (status == 1)


def test_table_shows_what_was_not_found() -> None:
    output = io.StringIO()
    demo._print_table(
        [TWO_CHAIRS],
        [[demo.Finding("red chair", 0.91, 0.876), demo.Finding("red chair", None, 0.0)]],
        Console(file=output, width=100),
    )
    assert "0.91" in output.getvalue() and "0.876" in output.getvalue() and "0.438" in output.getvalue()
    assert "not found" in output.getvalue()


def test_overview_puts_pictures_side_by_side() -> None:
    rows = [[np.full((30, 40, 3), value, dtype=np.uint8) for value in row] for row in ((10, 20), (30, 40))]
    sheet = demo.overview(rows, width=20, gap=2)
    assert sheet.shape == (15 + 2 + 15, 20 + 2 + 20, 3)
    assert [int(sheet[y, x, 0]) for y in (7, 24) for x in (10, 32)] == [10, 20, 30, 40]
    assert (sheet[15:17] == 255).all() and (sheet[:, 20:22] == 255).all()


def test_folder_is_served_while_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "room.png").write_bytes(b"picture")
    with demo_server.served_folder(tmp_path) as address:
        assert address.startswith("http://127.0.0.1:")
        assert requests.get(f"{address}/room.png", timeout=5).content == b"picture"
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{address}/room.png", timeout=5)


def fake_service(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """``segserve serve`` replaced with a program."""
    original = demo_server.subprocess.Popen
    monkeypatch.setattr(
        demo_server.subprocess,
        "Popen",
        lambda command, **options: original([sys.executable, "-c", program, *command[1:]], **options),
    )


def test_service_that_ends_early_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_service(monkeypatch, "import sys; sys.exit('no Java found')")
    with (
        pytest.raises(ServiceError, match=r"(?s)status 1.*no Java found"),
        demo_server.running_service(tmp_path, ["grounded_sam"], tmp_path / "logs", 60),
    ):
        raise AssertionError("it must not come so far")


def test_service_that_never_gets_ready_is_given_up_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, logs = tmp_path / "stopped", tmp_path / "logs"
    program = (
        "import signal, sys, time, pathlib\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(mark)!r}).touch(), sys.exit()))\n"
        "print('still loading', flush=True)\n"
        "time.sleep(300)"
    )
    fake_service(monkeypatch, program)
    now = [0.0]

    def sleep(seconds: float) -> None:
        """An hour passes at once, when the child has come as far as it does."""
        time.sleep(0.01)
        if "still loading" in (logs / "serve.log").read_text():
            now[0] += 3600

    monkeypatch.setattr(demo_server, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    with (
        pytest.raises(NotReadyError, match=r"(?s)within 240 s.*still loading"),
        demo_server.running_service(tmp_path, ["grounded_sam"], logs, 240),
    ):
        raise AssertionError("it must not come so far")
    assert mark.exists(), "the child was told to end, and waited for"
