"""Pictures of label maps on small pictures: blending, borders, color maps, cut-outs, colors of classes."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from segserve.colors import PALETTE, class_colors, colors_of
from segserve.label_render import color_map, colors_of_classes, cutout, legend_entries, overlay

CLASSES = ("background", "floor", "wall")
HEIGHT, WIDTH = 60, 90


def picture(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stripes(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A third of the width each: 0, 1, 2."""
    return np.repeat(np.arange(3, dtype=np.uint8), width // 3)[None].repeat(height, axis=0)


def test_overlay_blends_away_from_borders_and_leaves_background_alone() -> None:
    image, labels = picture(), stripes()
    before = image.copy()
    drawn = overlay(image, labels, CLASSES, opacity=0.4)
    assert np.array_equal(image, before)
    assert np.array_equal(drawn[:HEIGHT, :30], image[:, :30])
    pale = 0.2 * image + 0.8 * (image @ [0.299, 0.587, 0.114])[..., None]
    for index, left in ((1, 30), (2, 60)):
        inside = slice(left + 3, left + 27)
        expected = 0.6 * pale[:, inside] + 0.4 * np.asarray(colors_of_classes(CLASSES)[index])
        assert np.abs(drawn[:HEIGHT, inside] - expected).max() <= 2
    for column, index in ((30, 1), (59, 1), (60, 2)):
        error = np.abs(drawn[:HEIGHT, column].astype(int) - colors_of_classes(CLASSES)[index]).max()
        assert error <= 0.15 * 255 + 1, "in nearly full color at a border"
    assert drawn.shape[0] > HEIGHT + 10
    assert overlay(image, labels, CLASSES, legend=False).shape == image.shape


def test_a_classs_color_is_the_same_whatever_it_lies_over() -> None:
    """Red, green and blue of one lightness come out nearly alike, and far from another class over the same."""
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for band, color in enumerate(((200, 0, 0), (0, 102, 0), (60, 60, 60))):
        image[20 * band : 20 * band + 20] = color
    drawn = overlay(image, stripes(), CLASSES)[:HEIGHT].astype(float)
    floors, walls = drawn[10::20, 45], drawn[10::20, 75]
    among = max(np.linalg.norm(first - second) for first, second in itertools.combinations(floors, 2))
    between = min(np.linalg.norm(floor - wall) for floor in floors for wall in walls)
    assert between > 2.5 * among


def test_overlay_is_the_same_however_high_the_picture() -> None:
    """Pictures are worked on in bands of rows: a border on a band's edge is none of its own making."""
    image = picture(600, 60)
    upright = np.zeros((600, 60), dtype=np.uint8)
    upright[256:] = 1
    upright[511:] = 2
    lying = overlay(image.transpose(1, 0, 2).copy(), upright.T.copy(), CLASSES, legend=False)
    assert np.array_equal(overlay(image, upright, CLASSES, legend=False), lying.transpose(1, 0, 2))


def test_a_label_map_of_the_models_size_covers_the_whole_picture() -> None:
    image = picture()
    assert np.array_equal(overlay(image, stripes(6, 9), CLASSES)[:HEIGHT], overlay(image, stripes(), CLASSES)[:HEIGHT])
    assert np.array_equal(color_map(stripes(6, 9), CLASSES, HEIGHT, WIDTH), color_map(stripes(), CLASSES, 60, 90))
    assert np.array_equal(cutout(image, stripes(6, 9), CLASSES), cutout(image, stripes(), CLASSES))


def test_color_map_has_the_classes_colors_and_black_background() -> None:
    drawn = color_map(stripes(), CLASSES, HEIGHT, WIDTH)
    assert [tuple(drawn[5, column]) for column in (0, 45, 89)] == [(0, 0, 0), *class_colors(CLASSES[1:])]
    assert drawn.shape[0] > HEIGHT
    assert color_map(stripes(), CLASSES, HEIGHT, WIDTH, legend=False).shape == (HEIGHT, WIDTH, 3)


def test_more_classes_than_a_byte_counts() -> None:
    classes = tuple(f"class {index}" for index in range(300))
    labels = np.full((HEIGHT, WIDTH), 299, dtype=np.uint16)
    drawn = color_map(labels, classes, HEIGHT, WIDTH)
    assert (drawn[:HEIGHT] == colors_of_classes(classes)[299]).all()
    assert (overlay(picture(), labels, classes, opacity=1.0)[:HEIGHT] == colors_of_classes(classes)[299]).all()


def test_cutout_leaves_background_out() -> None:
    image = picture()
    cut = cutout(image, stripes(), CLASSES)
    assert cut.shape == (HEIGHT, WIDTH, 4)
    assert not cut[:, :30].any() and (cut[:, 30:, 3] == 255).all() and np.array_equal(cut[:, 30:, :3], image[:, 30:])
    assert (cutout(image, stripes(), ("floor", "wall", "door"))[..., 3] == 255).all()


def test_legend_lists_what_is_there_by_share() -> None:
    labels = stripes()
    labels[:, :20] = 2
    listed = [(entry.name, round(entry.share, 3)) for entry in legend_entries(labels, ("a", "b", "c", "d"))]
    assert listed == [("c", 0.556), ("b", 0.333), ("a", 0.111)]
    unpainted = legend_entries(labels, CLASSES, unpainted=True)
    assert {entry.name: entry.color is None for entry in unpainted} == {
        "wall": False,
        "floor": False,
        "background": True,
    }


def test_colors_that_are_asked_for_are_taken() -> None:
    mine = {"floor": (1, 2, 3)}
    drawn = overlay(picture(), stripes(), CLASSES, opacity=1.0, colors=mine)
    assert (drawn[:HEIGHT, 30:60] == (1, 2, 3)).all() and (drawn[0, 70] == colors_of_classes(CLASSES)[2]).all()
    assert [entry.color for entry in legend_entries(stripes(), CLASSES, colors=mine)][1] == (1, 2, 3)


def test_an_index_without_a_class_is_refused() -> None:
    for draw in (lambda: overlay(picture(), stripes(), CLASSES[:2]), lambda: color_map(stripes(), CLASSES[:2], 60, 90)):
        with pytest.raises(ValueError, match="class 2, but there are 2"):
            draw()


def test_a_classs_color_depends_on_the_models_classes_only() -> None:
    with_background = colors_of_classes(("background", "floor", "wall"))
    alone = colors_of(["floor", "wall"])
    assert with_background[1:] == colors_of_classes(("floor", "wall")) == [alone["floor"], alone["wall"]]
    assert colors_of_classes(("a", "b", "a"))[0] == colors_of_classes(("a", "b", "a"))[2]


@pytest.mark.parametrize(("count", "apart"), [(13, 15), (16, 15), (20, 15), (40, 12), (149, 5)])
def test_colors_of_many_classes_are_apart(count: int, apart: float) -> None:
    colors = class_colors(tuple(f"thing {index}" for index in range(count)))
    assert len(set(colors)) == count and (count < 16 or set(PALETTE) <= set(colors))
    lab = cv2.cvtColor(np.asarray([colors], dtype=np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    assert min(float(np.linalg.norm(first - second)) for first, second in itertools.combinations(lab, 2)) > apart
