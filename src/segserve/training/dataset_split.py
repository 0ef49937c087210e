"""Which pictures are for training and which for validation: the same everywhere, for a seed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence, Set

from segserve.errors import InvalidRequestError


def split(names: Sequence[str], classes: Sequence[Set[str]], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the pictures for training and of those for validation, each rising.

    The order of the draw is that of a hash of the seed and the picture's name, so neither the order of the files nor
    the version of anything matters. Then classes, the rarest first, that two pictures or more show get one in each part
    as long as the parts have room; the others follow in the order of the draw. The sizes are exact.

    Args:
        names: of the pictures, all different.
        classes: what each picture shows.
        fraction: the part for training, over 0 and under 1; both parts get one picture or more.
        seed: any whole number.

    Raises:
        InvalidRequestError: a fraction out of its range, or less than two pictures.
    """
    if not 0 < fraction < 1:
        raise InvalidRequestError(f"split: expected the part for training, over 0 and under 1, got {fraction:g}")
    if len(names) < 2:
        raise InvalidRequestError(f"split: expected 2 pictures or more to be divided, got {len(names)}")
    for_training = min(max(round(fraction * len(names)), 1), len(names) - 1)
    room = {True: for_training, False: len(names) - for_training}
    drawn = sorted(range(len(names)), key=lambda index: _draw(seed, names[index]))
    placed: dict[int, bool] = {}
    for name in _rarest_first(classes):
        showing = [index for index in drawn if name in classes[index]]
        for part in (False, True):
            free = [index for index in showing if index not in placed]
            if len(showing) > 1 and free and room[part] and all(placed.get(index) is not part for index in showing):
                placed[free[0]] = part
                room[part] -= 1
    for index in drawn:
        if index not in placed:
            placed[index] = room[True] > 0
            room[placed[index]] -= 1
    training = sorted(index for index, part in placed.items() if part)
    return training, sorted(set(placed).difference(training))


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).digest()


def _rarest_first(classes: Iterable[Set[str]]) -> list[str]:
    count = Counter(name for shown in classes for name in shown)
    return sorted(count, key=lambda name: (count[name], name))
