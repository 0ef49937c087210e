"""Models side by side on the same annotated pictures: size, latency, memory and COCO AP.

Models take turns picture by picture, and who begins alternates: a machine that is busy with something else for a
while slows all of them alike, and the ratio of their latencies, taken picture by picture, stays what it is.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segserve.errors import InvalidRequestError
from segserve.imaging import Rgb
from segserve.models.mask_rcnn import MaskRcnn, MaskRcnnParameters
from segserve.models.mask_rcnn.checkpoint import WEIGHTS_FILE
from segserve.models.segmentation import Segmentation
from segserve.training.coco import Dataset, LabeledPicture, read_picture
from segserve.training.coco_evaluation import CocoScores, FoundObject, found_objects, score_dataset
from segserve.training.memory_peak import peak_growth

SAMPLES = 3
"""Pictures whose answers are kept to be drawn."""

_WARM_UPS = 2
_MEMORY_PICTURES = 3


@dataclass(frozen=True)
class Contestant:
    """A model to be compared.

    Attributes:
        name: unique among those compared.
        predict: H x W x 3 uint8 RGB -> its instances, run-length masks included.
        classes: the labels that it knows.
        parameters: numbers in its weights.
        file_bytes: of the weights' file.
        device: where it runs.
    """

    name: str
    predict: Callable[[Rgb], Segmentation]
    classes: tuple[str, ...]
    parameters: int
    file_bytes: int
    device: torch.device


@dataclass(frozen=True)
class Result:
    """What was measured of one model.

    Attributes:
        latencies: milliseconds of each single picture in turn, all rounds; the same order for all models.
        peak_memory: bytes that one picture needs beyond the loaded model, or None where that cannot be told.
        unknown_classes: of the dataset, which the model does not know.
        cpu_times: like latencies, the processor time of all threads: hardly more on a machine that others keep busy.
    """

    name: str
    parameters: int
    file_bytes: int
    latencies: tuple[float, ...]
    peak_memory: int | None
    scores: CocoScores
    unknown_classes: tuple[str, ...] = ()
    cpu_times: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """Milliseconds of half of the pictures at most."""
        return float(np.median(self.latencies))

    @property
    def p90(self) -> float:
        """Milliseconds of nine pictures in ten at most."""
        return float(np.percentile(self.latencies, 90))

    @property
    def cpu_median(self) -> float:
        """Milliseconds of processor time, of all threads, that half of the pictures need at most."""
        return float(np.median(self.cpu_times)) if self.cpu_times else 0.0

    @property
    def pictures_per_second(self) -> float:
        """One after the other."""
        return 1000 * len(self.latencies) / sum(self.latencies)

    def ratio_to(self, other: Result) -> float:
        """The median over the pictures of this model's latency divided by the other's."""
        return float(np.median(np.asarray(self.latencies) / np.asarray(other.latencies)))


@dataclass(frozen=True)
class Sample:
    """One picture with what each model found in it, in the models' order."""

    picture: LabeledPicture
    image: Rgb
    answers: tuple[Segmentation, ...]


@dataclass(frozen=True)
class Comparison:
    """Results in the order of the contestants, and some pictures to look at."""

    results: tuple[Result, ...]
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``models`` by name; the latency's ratio is to the first of them."""
        first = self.results[0]
        return {
            "pictures": first.scores.pictures,
            "instances": first.scores.instances,
            "models": {result.name: _figures(result, first) for result in self.results},
        }


@dataclass
class _Measuring:
    """One contestant with what has been measured of it so far."""

    contestant: Contestant
    latencies: list[float] = field(default_factory=list)
    cpu_times: list[float] = field(default_factory=list)
    found: dict[int, list[FoundObject]] = field(default_factory=dict)
    peaks: list[int] = field(default_factory=list)

    def take_turn(self, image: Rgb) -> Segmentation:
        start, cpu_start = time.perf_counter(), time.process_time()
        answer = self.contestant.predict(image)
        self.latencies.append(1000 * (time.perf_counter() - start))
        self.cpu_times.append(1000 * (time.process_time() - cpu_start))
        return answer

    def result(self, dataset: Dataset) -> Result:
        one = self.contestant
        unknown = tuple(name for name in dataset.classes if name not in one.classes)
        scores = score_dataset(dataset, self.found)
        return Result(
            name=one.name,
            parameters=one.parameters,
            file_bytes=one.file_bytes,
            latencies=tuple(self.latencies),
            peak_memory=max(self.peaks, default=None),
            scores=scores,
            unknown_classes=unknown,
            cpu_times=tuple(self.cpu_times),
        )


def mask_rcnn_contestant(folder: Path, name: str, device: str = "auto") -> Contestant:
    """A checkpoint folder of Mask R-CNN, with the thresholds that it was written with.

    Raises:
        NotFoundError: the folder or a file of it is missing.
        InvalidRequestError: not a checkpoint of Mask R-CNN, or an unknown device.
    """
    predictor = MaskRcnn.from_folder(folder, device=device)
    state = predictor.network.state_dict().values()
    return Contestant(
        name=name,
        predict=lambda image: predictor.predict([image], [MaskRcnnParameters()])[0],
        classes=predictor.classes,
        parameters=sum(tensor.numel() for tensor in state if tensor.is_floating_point()),
        file_bytes=(folder / WEIGHTS_FILE).stat().st_size,
        device=predictor.placement.device,
    )


def compare(
    contestants: Sequence[Contestant],
    dataset: Dataset,
    *,
    rounds: int = 1,
    done: Callable[[], None] | None = None,
) -> Comparison:
    """Shows every picture to every model, one at a time.

    Accuracy is that of the first round; the others only add latencies.

    Args:
        contestants: at least one, with different names.
        dataset: pictures with their truth.
        rounds: how often every picture is shown, 1 or more.
        done: called after each picture of each round, for a progress bar.

    Raises:
        InvalidRequestError: no pictures, names that repeat, a model that knows none of the classes, or a picture
            that cannot be read.
    """
    _check(contestants, dataset)
    measuring = [_Measuring(contestant) for contestant in contestants]
    _prepare(measuring, dataset)
    kept = sample_positions(len(dataset.pictures))
    samples: list[Sample] = []
    for number in range(rounds):
        for position, picture in enumerate(dataset.pictures):
            image = read_picture(picture)
            begins_first = (number + position) % 2 == 0
            answers = {one.contestant.name: one.take_turn(image) for one in measuring[:: 1 if begins_first else -1]}
            if number == 0:
                for one in measuring:
                    one.found[picture.id] = found_objects(answers[one.contestant.name], dataset.classes)
                if position in kept:
                    in_order = tuple(answers[contestant.name] for contestant in contestants)
                    samples.append(Sample(picture, image, in_order))
            if done:
                done()
    results = tuple(one.result(dataset) for one in measuring)
    return Comparison(results, tuple(samples), dataset.classes)


def sample_positions(count: int) -> list[int]:
    """Which of so many pictures are drawn: up to SAMPLES, spread evenly."""
    chosen = min(SAMPLES, count)
    return [(2 * number + 1) * count // (2 * chosen) for number in range(chosen)]


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on: processor or GPU, threads, and PyTorch's version."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "torch": torch.__version__}
    return {
        "device": f"cpu: {_processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _check(contestants: Sequence[Contestant], dataset: Dataset) -> None:
    names = [contestant.name for contestant in contestants]
    if len(set(names)) != len(names):
        raise InvalidRequestError(f"names: expected a different one for each model, got {', '.join(names)}")
    if not dataset.pictures:
        raise InvalidRequestError("there are no pictures to compare models on")
    for contestant in contestants:
        if not set(contestant.classes) & set(dataset.classes):
            raise InvalidRequestError(
                f"{contestant.name} knows none of the pictures' classes: it has {_listed(contestant.classes)}, "
                f"they have {_listed(dataset.classes)}"
            )


def _prepare(measuring: Sequence[_Measuring], dataset: Dataset) -> None:
    """First calls are slower than all others; none of these is timed. The memory is measured on the way."""
    largest = sorted(dataset.pictures, key=lambda picture: -picture.width * picture.height)[:_MEMORY_PICTURES]
    images = [read_picture(picture) for picture in largest]
    for one in measuring:
        predict = one.contestant.predict
        for _ in range(_WARM_UPS):
            predict(images[0])
        for image in images:
            peak = peak_growth(partial(predict, image), one.contestant.device)
            if peak is not None:
                one.peaks.append(peak)


def _figures(result: Result, first: Result) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "parameters": result.parameters,
        "file_bytes": result.file_bytes,
        "latency_ms": {"median": round(result.median, 2), "p90": round(result.p90, 2)},
        "cpu_time_ms": round(result.cpu_median, 2),
        "latency_ratio": round(result.ratio_to(first), 4),
        "pictures_per_second": round(result.pictures_per_second, 3),
        "peak_memory_bytes": result.peak_memory,
        **result.scores.to_dict(),
    }
    if result.unknown_classes:
        figures["unknown_classes"] = list(result.unknown_classes)
    return figures


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
