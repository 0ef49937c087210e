"""torch and ONNX Runtime side by side on the same pictures: runtimes, distances of their answers, file sizes.

The engines take turns batch by batch, and who begins alternates: a machine that is busy with something else for a
while slows both alike, and the ratio of their times, taken batch by batch, stays what it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segserve.errors import InvalidRequestError
from segserve.export.differences import Agreement, Difference, Logits, agreement, difference
from segserve.export.verification import Runner
from segserve.imaging import Rgb

SAMPLES = 3
"""Pictures whose answers are kept to be drawn."""

_WARM_UPS = 2


@dataclass(frozen=True)
class Runtimes:
    """What one engine took.

    Attributes:
        wall: milliseconds of each batch, all rounds; the same order for both engines.
        cpu: the same of processor time, of all threads of this process.
        pictures: in each batch.
    """

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    pictures: int

    @property
    def median(self) -> float:
        """Milliseconds of half of the batches at most."""
        return float(np.median(self.wall))

    @property
    def p90(self) -> float:
        """Milliseconds of nine batches in ten at most."""
        return float(np.percentile(self.wall, 90))

    @property
    def cpu_median(self) -> float:
        """Milliseconds of processor time that half of the batches need at most."""
        return float(np.median(self.cpu))

    @property
    def pictures_per_second(self) -> float:
        """One batch after the other."""
        return 1000 * self.pictures * len(self.wall) / sum(self.wall)

    def ratio_to(self, other: Runtimes) -> float:
        """The median over the batches of this engine's time divided by the other's."""
        return float(np.median(np.asarray(self.wall) / np.asarray(other.wall)))

    def to_dict(self, first: Runtimes) -> dict[str, Any]:
        """For JSON; the ratio is to ``first``."""
        return {
            "latency_ms": {"median": round(self.median, 2), "p90": round(self.p90, 2)},
            "cpu_time_ms": round(self.cpu_median, 2),
            "latency_ratio": round(self.ratio_to(first), 4),
            "pictures_per_second": round(self.pictures_per_second, 3),
        }


@dataclass(frozen=True)
class EngineSample:
    """One picture with what each engine says of it, at the size of the logits, h x w.

    Attributes:
        name: of the picture.
        image: H x W x 3 uint8.
        labels: by engine, the class of each pixel, h x w.
        apart: the largest difference of a logit at each pixel, h x w.
    """

    name: str
    image: Rgb
    labels: Mapping[str, NDArray[np.intp]]
    apart: NDArray[np.float32]


@dataclass(frozen=True)
class EngineComparison:
    """What was measured.

    Attributes:
        runtimes: by engine, the first of which is what the others are held against.
        agreement: of the other engine's answers with the first's.
        worst: the name of the picture with the largest difference of a logit.
        samples: some pictures to look at.
    """

    runtimes: Mapping[str, Runtimes]
    agreement: Agreement
    worst: str
    samples: tuple[EngineSample, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        first = next(iter(self.runtimes.values()))
        return {
            "batch_size": first.pictures,
            "batches": len(first.wall),
            "engines": {name: runtimes.to_dict(first) for name, runtimes in self.runtimes.items()},
            "answers": {**self.agreement.to_dict(), "worst_picture": self.worst},
        }


@dataclass
class _Turn:
    """One engine with what has been measured of it so far."""

    run: Runner
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def take(self, pixels: Tensor) -> NDArray[np.float32]:
        start, cpu_start = time.perf_counter(), time.process_time()
        logits = self.run(pixels)
        self.wall.append(1000 * (time.perf_counter() - start))
        self.cpu.append(1000 * (time.process_time() - cpu_start))
        return logits


def compare_engines(
    engines: Mapping[str, Runner],
    pictures: Iterable[tuple[str, Rgb]],
    prepare: Callable[[Rgb], Tensor],
    *,
    count: int,
    batch_size: int = 1,
    rounds: int = 1,
    done: Callable[[], None] | None = None,
) -> EngineComparison:
    """Give every picture to both engines and compare what they answer and what that takes.

    Timed is the network alone, from the prepared input to logits in this process's memory. A batch holds one picture
    as often as is asked for, since pictures of different input sizes cannot run together.

    Args:
        engines: two, by name; the first is what the other is held against.
        pictures: names with H x W x 3 uint8; gone through once.
        prepare: a picture's input, 3 x h x w float32.
        count: how many pictures there are.
        batch_size: 1 or more.
        rounds: how often each is shown, 1 or more.
        done: called after each picture, for a progress bar.

    Raises:
        InvalidRequestError: no pictures, or answers of different shapes.
    """
    turns = {name: _Turn(run) for name, run in engines.items()}
    first, second = turns
    kept = _sample_positions(count)
    found: dict[str, Difference] = {}
    samples: list[EngineSample] = []
    for position, (name, image) in enumerate(pictures):
        pixels = torch.stack([prepare(image)] * batch_size)
        if position == 0:
            for _ in range(_WARM_UPS):
                for turn in turns.values():
                    turn.run(pixels)
        for number in range(rounds):
            order = [first, second] if (position + number) % 2 == 0 else [second, first]
            answers = {engine: turns[engine].take(pixels)[0] for engine in order}
        if answers[first].shape != answers[second].shape:
            shapes = f"{answers[first].shape} and {answers[second].shape}"
            raise InvalidRequestError(f"{name}: the engines answer with logits of different shapes, {shapes}.")
        found[name] = difference(answers[first], answers[second])
        if position in kept:
            samples.append(_sample(name, image, {engine: answers[engine] for engine in turns}))
        if done:
            done()
    if not found:
        raise InvalidRequestError("there are no pictures to compare the engines on.")
    return EngineComparison(
        runtimes={name: Runtimes(tuple(turn.wall), tuple(turn.cpu), batch_size) for name, turn in turns.items()},
        agreement=agreement(list(found.values())),
        worst=max(found, key=lambda name: np.nan_to_num(found[name].max_abs, nan=np.inf)),
        samples=tuple(samples),
    )


def _sample(name: str, image: Rgb, logits: Mapping[str, Logits]) -> EngineSample:
    first, second = logits.values()
    labels = {engine: each.argmax(0) for engine, each in logits.items()}
    return EngineSample(name, image, labels, np.asarray(np.abs(first - second).max(0), dtype=np.float32))


def _sample_positions(count: int) -> list[int]:
    """Which of so many pictures are drawn: up to SAMPLES, spread evenly."""
    chosen = min(SAMPLES, count)
    return [(2 * number + 1) * count // (2 * chosen) for number in range(chosen)]
