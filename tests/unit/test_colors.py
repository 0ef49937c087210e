"""Colors of labels, shades of their instances, ink."""

from __future__ import annotations

import colorsys
import itertools

import cv2
import numpy as np
import pytest

from segserve.colors import PALETTE, SHADES, colors_of, ink_on, instance_colors
from segserve.training.scenes import CATEGORIES


def luminance(rgb: tuple[int, int, int]) -> float:
    parts = [channel / 255 for channel in rgb]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colors_are_the_same_in_every_picture() -> None:
    assert colors_of(["sofa"])["sofa"] == colors_of(["sofa", "red chair"])["sofa"] == PALETTE[12]
    assert colors_of(["floor"])["floor"] == colors_of(["floor", "wall", "floor"])["floor"]


def test_labels_of_one_picture_never_share_a_color_while_there_are_enough() -> None:
    labels = [f"thing {number}" for number in range(len(PALETTE))]
    assert len(set(colors_of(labels).values())) == len(PALETTE)
    more = [f"thing {number}" for number in range(80)]
    colors = colors_of(more)
    assert len(set(colors.values())) > 76 and set(PALETTE) <= set(colors.values())


def test_a_label_that_loses_its_color_moves_no_third_one() -> None:
    by_pick: dict[tuple[int, int, int], list[str]] = {}
    for number in range(200):
        label = f"thing {number}"
        by_pick.setdefault(colors_of([label])[label], []).append(label)
    first, second = next(labels for labels in by_pick.values() if len(labels) > 1)[:2]
    others = [labels[0] for labels in by_pick.values() if first not in labels][:-1]
    colors = colors_of([first, second, *others])
    assert all(colors[label] == colors_of([label])[label] for label in [first, *others])
    assert colors[second] not in {colors[label] for label in [first, *others]}


def test_plain_names_keep_their_color_before_longer_ones() -> None:
    own = colors_of(["wall"])["wall"]
    rival = next(f"a {n} chair" for n in range(500) if colors_of([f"a {n} chair"])[f"a {n} chair"] == own)
    assert colors_of([rival, "wall"])["wall"] == own != colors_of([rival, "wall"])[rival]


def test_palette_is_well_separated() -> None:
    lab = cv2.cvtColor(np.asarray([PALETTE], dtype=np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    distances = [float(np.linalg.norm(first - second)) for first, second in itertools.combinations(lab, 2)]
    assert min(distances) > 15


@pytest.mark.parametrize("color", PALETTE)
def test_chips_are_readable(color: tuple[int, int, int]) -> None:
    """In every shade that its instances may take."""
    label = next(name for name in (f"thing {number}" for number in range(400)) if colors_of([name])[name] == color)
    shades = instance_colors([label] * len(SHADES), [(0, 0, 10, 10)] * len(SHADES))
    for shade in shades:
        lighter, darker = sorted((luminance(shade), luminance(ink_on(shade))), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4


ROW = [(0, 0, 10, 10), (10, 0, 20, 10), (20, 0, 30, 10), (60, 0, 70, 10)]


def test_neighbors_of_one_label_get_different_shades_and_others_its_color() -> None:
    own = colors_of(["cell"])["cell"]
    first, second, third, apart = instance_colors(["cell"] * 4, ROW)
    assert first == third == apart == own != second


def test_neighbors_of_other_labels_change_nothing() -> None:
    labels = ["cell", "cat", "cell", "cat"]
    assert instance_colors(labels, ROW) == [colors_of(labels)[label] for label in labels]


def test_margin_says_what_is_a_neighbor() -> None:
    boxes = [(0, 0, 10, 10), (14, 0, 20, 10)]
    near, far = (instance_colors(["cell", "cell"], boxes, margin) for margin in (4, 3.9))
    assert near[0] != near[1] and far[0] == far[1]


def test_known_labels_fix_the_colors_whatever_a_picture_shows() -> None:
    known = list(CATEGORIES)
    fixed = colors_of(known)
    assert any(colors_of([label])[label] != color for label, color in fixed.items()), "some would share a color"
    for label, color in fixed.items():
        assert instance_colors([label], [(0, 0, 1, 1)], known=known) == [color]
        assert instance_colors([label, "wall"], ROW[::3], known=known) == [color, fixed["wall"]]


def test_more_neighbors_than_shades_share_them_evenly() -> None:
    shades = instance_colors(["cell"] * 9, [(0, 0, 10, 10)] * 9)
    assert sorted(shades.count(shade) for shade in set(shades)) == [2, 2, 2, 3]


@pytest.mark.parametrize("color", PALETTE)
def test_shades_keep_the_hue_and_are_well_apart(color: tuple[int, int, int]) -> None:
    label = next(name for name in (f"thing {number}" for number in range(400)) if colors_of([name])[name] == color)
    shades = instance_colors([label] * len(SHADES), [(0, 0, 10, 10)] * len(SHADES))
    hues = [colorsys.rgb_to_hsv(*(channel / 255 for channel in shade))[0] for shade in shades]
    assert all(min(abs(hue - hues[0]), 1 - abs(hue - hues[0])) < 0.03 for hue in hues)
    lab = cv2.cvtColor(np.asarray([shades], dtype=np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    distances = [float(np.linalg.norm(one - other)) for one, other in itertools.combinations(lab, 2)]
    assert min(distances) > 8


def test_nothing_to_color() -> None:
    assert instance_colors([], []) == []
