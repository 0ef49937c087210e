"""Comparison: turns, figures and plots, with models whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from PIL import Image

from segserve.errors import InvalidRequestError
from segserve.imaging import Rgb
from segserve.masks import bounding_box
from segserve.models.segmentation import Instance, Segmentation
from segserve.training.coco import Dataset, read_dataset
from segserve.training.coco_evaluation import CocoScores
from segserve.training.comparison import Comparison, Contestant, Result, compare, machine, sample_positions
from segserve.training.comparison_plot import comparison_figure, write_comparison_plot
from segserve.training.memory_peak import peak_growth

CPU = torch.device("cpu")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Four pictures, black but for a white square (class "square"); the first has a wider one ("bar") too."""
    images, annotations = [], []
    for number in range(1, 5):
        pixels = np.zeros((40, 60, 3), np.uint8)
        boxes = [(5 * number, 5, 10, 10)] + ([(5, 25, 40, 10)] if number == 1 else [])
        for position, (x, y, width, height) in enumerate(boxes):
            pixels[y : y + height, x : x + width] = 255
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": position + 1, "iscrowd": 0,
                 "bbox": [x, y, width, height], "segmentation": [corners], "area": width * height}
            )  # fmt: skip
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
        images.append({"id": number, "file_name": f"{number}.png", "width": 60, "height": 40})
    categories = [{"id": 1, "name": "square"}, {"id": 2, "name": "bar"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "coco.json").write_text(json.dumps(content), "utf-8")
    return read_dataset(tmp_path / "coco.json", tmp_path)


def find_white(image: Rgb) -> Segmentation:
    """The white areas, as squares or bars: never wrong on the pictures above."""
    count, parts = cv2.connectedComponents(image[..., 0])
    found = []
    for number in range(1, count):
        mask = parts == number
        box = bounding_box(mask)
        assert box is not None
        label = "bar" if box[2] - box[0] > 15 else "square"
        found.append(Instance.from_mask(label, 0.9, tuple(float(side) for side in box), mask))
    return Segmentation(image.shape[1], image.shape[0], found)


def find_nothing(image: Rgb) -> Segmentation:
    return Segmentation(image.shape[1], image.shape[0], [])


def contestant(
    name: str, predict: Callable[[Rgb], Segmentation] = find_white, classes: tuple[str, ...] = ("square", "bar")
) -> Contestant:
    return Contestant(name, predict, classes, 1_000_000, 4_000_000, CPU)


def test_accuracy_is_that_of_each_models_own_answers(dataset: Dataset) -> None:
    comparison = compare([contestant("right"), contestant("blind", find_nothing)], dataset)
    right, blind = comparison.results
    assert (right.name, blind.name) == ("right", "blind")
    assert right.scores.mask_ap == right.scores.box_ap == pytest.approx(1.0)
    assert blind.scores.mask_ap == blind.scores.box_ap == 0.0
    assert right.scores.per_class["bar"].instances == 1


def test_models_take_turns_and_who_begins_alternates(dataset: Dataset) -> None:
    calls: list[tuple[str, int]] = []

    def noting(name: str) -> Callable[[Rgb], Segmentation]:
        def predict(image: Rgb) -> Segmentation:
            calls.append((name, int(image[5:15, :, 0].any(axis=0).argmax()) // 5))
            return find_white(image)

        return predict

    steps: list[None] = []
    comparison = compare(
        [contestant("a", noting("a")), contestant("b", noting("b"))],
        dataset, rounds=2, done=lambda: steps.append(None),
    )  # fmt: skip
    timed = calls[-16:]
    first_round = [("a", 1), ("b", 1), ("b", 2), ("a", 2), ("a", 3), ("b", 3), ("b", 4), ("a", 4)]
    second_round = [("b", 1), ("a", 1), ("a", 2), ("b", 2), ("b", 3), ("a", 3), ("a", 4), ("b", 4)]
    assert timed == first_round + second_round
    assert {name for name, _ in calls[:-16]} == {"a", "b"}, "both are warmed up"
    assert [len(result.latencies) for result in comparison.results] == [8, 8]
    assert len(steps) == 8
    assert comparison.results[0].scores.mask_ap == pytest.approx(1.0), "a second round adds no second answers"


def test_samples_hold_every_models_answers_in_order(dataset: Dataset) -> None:
    comparison = compare([contestant("blind", find_nothing), contestant("right")], dataset)
    assert [sample.picture.id for sample in comparison.samples] == [1, 3, 4]
    for sample in comparison.samples:
        assert [len(answer.instances) > 0 for answer in sample.answers] == [False, True]
        assert sample.image.shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("count", "positions"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (6, [1, 3, 5]), (200, [33, 100, 166])]
)
def test_samples_are_spread_over_the_pictures(count: int, positions: list[int]) -> None:
    assert sample_positions(count) == positions


def test_a_class_that_a_model_does_not_know_is_told_and_counts_as_missed(dataset: Dataset) -> None:
    comparison = compare([contestant("half", find_nothing, ("square", "spaceship"))], dataset)
    assert comparison.results[0].unknown_classes == ("bar",)
    assert comparison.to_dict()["models"]["half"]["unknown_classes"] == ["bar"]


@pytest.mark.parametrize(
    ("contestants", "message"),
    [
        ([contestant("a"), contestant("a")], "different one for each model"),
        ([contestant("a"), contestant("b", classes=("cat", "dog"))], "b knows none of the pictures' classes"),
    ],
)
def test_what_cannot_be_compared_is_refused(dataset: Dataset, contestants: Sequence[Contestant], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        compare(contestants, dataset)


def test_no_pictures_are_refused(dataset: Dataset) -> None:
    with pytest.raises(InvalidRequestError, match="no pictures"):
        compare([contestant("a")], Dataset(dataset.classes, (), dataset.category_ids))


def result(name: str, latencies: tuple[float, ...], ap50: float = 0.8, megabytes: float = 10.0) -> Result:
    scores = CocoScores(0.6, ap50, 0.7, None, 0.5, 0.6, 0.7, 0.8, {}, len(latencies), 12)
    return Result(name, 4_500_000, int(megabytes * 1e6), latencies, 123_000_000, scores)


def test_figures_of_latencies() -> None:
    slow = result("slow", (100.0, 200.0, 300.0, 400.0))
    fast = result("fast", (50.0, 20.0, 100.0, 100.0))
    assert (slow.median, fast.median) == (250.0, 75.0)
    assert slow.p90 == pytest.approx(370.0)
    assert slow.pictures_per_second == pytest.approx(4.0)
    # Picture by picture 0.5, 0.1, 1/3, 0.25; the medians alone would give 0.3.
    assert fast.ratio_to(slow) == pytest.approx((0.25 + 1 / 3) / 2)
    assert slow.ratio_to(slow) == 1.0


def test_the_report_is_json_with_every_figure() -> None:
    comparison = Comparison((result("slow", (100.0, 200.0)), result("fast", (50.0, 60.0))), (), ())
    report = json.loads(json.dumps(comparison.to_dict()))
    fast = report["models"]["fast"]
    assert fast["latency_ms"] == {"median": 55.0, "p90": 59.0}
    assert fast["latency_ratio"] == 0.4
    assert (fast["parameters"], fast["file_bytes"], fast["peak_memory_bytes"]) == (4_500_000, 10_000_000, 123_000_000)
    assert (fast["mask_ap"], fast["mask_ap50"], fast["mask_ap_small"]) == (0.6, 0.8, None)
    assert report["pictures"] == 2


def test_latency_is_by_the_clock_and_cpu_time_by_the_processor(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, used=0.0)
    times = SimpleNamespace(perf_counter=lambda: clock.now, process_time=lambda: clock.used)
    monkeypatch.setattr("segserve.training.comparison.time", times)

    def slow(image: Rgb) -> Segmentation:
        clock.now += 0.3
        clock.used += 0.1
        return find_white(image)

    result = compare([contestant("slow", slow)], dataset).results[0]
    assert result.latencies == pytest.approx([300.0] * 4)
    assert result.cpu_times == pytest.approx([100.0] * 4)
    assert result.cpu_median == pytest.approx(100.0)


def test_machine_names_what_runs_and_no_host() -> None:
    told = machine(CPU)
    assert told["device"].startswith("cpu: ")
    assert set(told) == {"device", "threads", "torch"}


class TestPlot:
    def test_markers_stand_at_latency_and_accuracy(self, dataset: Dataset) -> None:
        measured = compare([contestant("right")], dataset).results[0]
        results = tuple(
            Result(name, 1, size, latencies, None, measured.scores)
            for name, size, latencies in (("a", 40_000_000, (100.0, 200.0)), ("b", 10_000_000, (50.0, 60.0)))
        )
        figure = comparison_figure(Comparison(results, (), dataset.classes), "a and b")
        accuracy = figure.axes[0]
        markers = [points for points in accuracy.collections if isinstance(points, PathCollection)]
        areas: dict[tuple[float, float], float] = {}
        for points in markers:
            place = tuple(points.get_offsets()[0])
            areas[place] = max(areas.get(place, 0.0), points.get_sizes()[0])
        assert sorted(areas) == [pytest.approx((55.0, 1.0)), pytest.approx((150.0, 1.0))]
        assert max(areas.values()) == pytest.approx(4 * min(areas.values()))
        assert "ms" in accuracy.get_xlabel()
        assert "AP50" in accuracy.get_ylabel()
        heights = [bar.get_height() for bar in figure.axes[2].patches]
        assert heights == pytest.approx([1.0] * 4), "two classes, two models"
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert legend == [
            "a: 40.0 MB, 150 ms, mask AP50 1.000, mask AP 1.000",
            "b: 10.0 MB, 55 ms, mask AP50 1.000, mask AP 1.000",
        ]
        assert [label.get_text() for label in figure.axes[2].get_xticklabels()] == ["square\n(4)", "bar\n(1)"]

    def test_is_written_as_a_picture(self, dataset: Dataset, tmp_path: Path) -> None:
        comparison = compare([contestant("right"), contestant("blind", find_nothing)], dataset)
        write_comparison_plot(comparison, "two models", tmp_path / "plot.png")
        with Image.open(tmp_path / "plot.png") as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 700
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_memory_of_a_call_is_what_it_needs_at_its_height() -> None:
    def touch(megabytes: int) -> Callable[[], None]:
        return lambda: np.ones(megabytes * 2**20, np.uint8).sum(dtype=np.uint8)

    grown = peak_growth(touch(200), CPU)
    if grown is None:
        assert not Path("/proc/self/clear_refs").exists()
        return
    assert 150 * 2**20 < grown < 400 * 2**20
    again = peak_growth(touch(20), CPU)
    assert again is not None
    assert again < 100 * 2**20, "the peak of the call before is forgotten"


def test_a_picture_that_cannot_be_read_is_named(dataset: Dataset) -> None:
    dataset.pictures[2].path.write_bytes(b"no picture")
    with pytest.raises(InvalidRequestError, match=r"3\.png"):
        compare([contestant("a")], dataset)
