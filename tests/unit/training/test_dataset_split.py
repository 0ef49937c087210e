"""The split: exact sizes, the same everywhere, and classes on both sides."""

from __future__ import annotations

import pytest

from segserve.errors import InvalidRequestError
from segserve.training.dataset_split import split

NAMES = [f"{index:03d}.png" for index in range(50)]


def test_the_draw_is_the_same_everywhere() -> None:
    """The order is that of `printf '0\\n000.png' | sha256sum` and so on, which no library can change."""
    assert split(NAMES[:10], [set()] * 10, 0.7, 0) == ([0, 1, 2, 3, 6, 7, 9], [4, 5, 8])


def test_the_order_of_the_files_does_not_matter() -> None:
    training, _ = split(NAMES, [set()] * 50, 0.8, 3)
    backwards, _ = split(NAMES[::-1], [set()] * 50, 0.8, 3)
    assert {NAMES[index] for index in training} == {NAMES[::-1][index] for index in backwards}


def test_seeds_draw_differently() -> None:
    assert len({tuple(split(NAMES, [set()] * 50, 0.8, seed)[1]) for seed in range(20)}) == 20


@pytest.mark.parametrize(
    ("count", "fraction", "sizes"),
    [
        (50, 0.8, (40, 10)),
        (5, 0.5, (2, 3)),
        (2, 0.99, (1, 1)),
        (2, 0.01, (1, 1)),
        (50, 0.999, (49, 1)),
        (3, 0.8, (2, 1)),
    ],
)
def test_sizes(count: int, fraction: float, sizes: tuple[int, int]) -> None:
    classes = [{"wall", f"c{index % 3}"} for index in range(count)]
    training, validation = split(NAMES[:count], classes, fraction, 0)
    assert (len(training), len(validation)) == sizes
    assert sorted(training + validation) == list(range(count))


@pytest.mark.parametrize("seed", range(30))
def test_rare_classes_are_on_both_sides(seed: int) -> None:
    classes: list[set[str]] = [{"wall"} for _ in NAMES]
    for first, name in ((0, "bed"), (10, "plant"), (11, "lamp"), (20, "rug")):
        classes[first].add(name)
        classes[first + 1].add(name)
    classes[40].add("once")
    training, validation = split(NAMES, classes, 0.9, seed)
    for name in ("bed", "plant", "lamp", "rug", "wall"):
        for part in (training, validation):
            assert any(name in classes[index] for index in part), name


def test_there_may_be_no_room_for_all() -> None:
    classes = [{f"c{index // 2}"} for index in range(20)]
    training, validation = split(NAMES[:20], classes, 0.9, 0)
    assert len(validation) == 2
    assert {name for index in training for name in classes[index]} == {f"c{index}" for index in range(10)}


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 80, float("nan")])
def test_no_fraction(fraction: float) -> None:
    with pytest.raises(InvalidRequestError, match="split: expected the part for training, over 0 and under 1"):
        split(NAMES, [set()] * 50, fraction, 0)


def test_one_picture_cannot_be_split() -> None:
    with pytest.raises(InvalidRequestError, match="expected 2 pictures or more to be divided, got 1"):
        split(NAMES[:1], [set()], 0.5, 0)
