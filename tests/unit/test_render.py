"""Overlays, cut-outs, masks and crops on small pictures."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from segserve.render import PALETTE, Drawing, colors_of, crops, cutout, mask_image, overlay
from segserve.render import _ink_on as ink_on


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rectangle(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return mask


def drawing(label: str, shape: tuple[int, int], box: tuple[int, int, int, int], score: float = 0.9) -> Drawing:
    return Drawing(label, score, box, rectangle(*shape, box))


def test_colors_are_the_same_in_every_picture() -> None:
    assert colors_of(["sofa"])["sofa"] == colors_of(["sofa", "red chair"])["sofa"] == PALETTE[12]
    assert colors_of(["floor"])["floor"] == colors_of(["floor", "wall", "floor"])["floor"]


def test_labels_of_one_picture_never_share_a_color_while_there_are_enough() -> None:
    labels = [f"thing {number}" for number in range(len(PALETTE))]
    assert len(set(colors_of(labels).values())) == len(PALETTE)
    assert len(colors_of([*labels, "one more"])) == len(PALETTE) + 1


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
    def luminance(rgb: tuple[int, int, int]) -> float:
        parts = [channel / 255 for channel in rgb]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(color), luminance(ink_on(color))), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4


def test_overlay_tints_inside_and_leaves_the_rest_and_its_input() -> None:
    image = picture(200, 300)
    before = image.copy()
    box = (100, 60, 200, 140)
    drawn = overlay(image, [drawing("sofa", (200, 300), box)], opacity=0.5, chips=False)
    assert np.array_equal(image, before)
    inside = drawn[70:130, 110:190].astype(float)
    expected = 0.5 * image[70:130, 110:190] + 0.5 * np.asarray(colors_of(["sofa"])["sofa"])
    assert np.abs(inside - expected).max() <= 1
    outside = ~rectangle(200, 300, (95, 55, 205, 145))
    assert np.array_equal(drawn[outside], image[outside])
    assert np.abs(drawn[60, 150].astype(int) - colors_of(["sofa"])["sofa"]).max() < 30, "the outline has the color"


def test_small_objects_stay_visible_on_large_ones_whatever_the_order() -> None:
    shape = (120, 160)
    wall, clock = drawing("wall", shape, (0, 0, 160, 120)), drawing("clock", shape, (60, 40, 100, 80))
    image = np.full((*shape, 3), 128, dtype=np.uint8)
    first = overlay(image, [wall, clock], chips=False)
    second = overlay(image, [clock, wall], chips=False)
    assert np.array_equal(first, second)
    clock_color = np.asarray(colors_of(["wall", "clock"])["clock"], dtype=float)
    wall_color = np.asarray(colors_of(["wall", "clock"])["wall"], dtype=float)
    center = first[60, 80].astype(float)
    assert np.linalg.norm(center - clock_color) < np.linalg.norm(center - wall_color)


def test_chips_do_not_cover_each_other_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    from segserve import render

    placed: list[tuple[int, int, int, int]] = []
    original = render._place

    def spy(*arguments):  # type: ignore[no-untyped-def]
        placed.append(original(*arguments))
        return placed[-1]

    monkeypatch.setattr(render, "_place", spy)
    shape = (480, 640)
    same_place = [drawing(f"thing {i}", shape, (200, 150, 420, 300), 0.9 - i / 10) for i in range(4)]
    overlay(picture(*shape), same_place)
    assert len(placed) == 4
    for (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) in itertools.combinations(placed, 2):
        assert ax1 <= bx0 or bx1 <= ax0 or ay1 <= by0 or by1 <= ay0
    for x0, y0, x1, y1 in placed:
        assert 0 <= x0 < x1 <= 640 and 0 <= y0 < y1 <= 480


def test_chip_size_follows_the_picture() -> None:
    def chip_pixels(side: int) -> int:
        image = np.full((side, side, 3), 90, dtype=np.uint8)
        box = (side // 2, side // 2, side // 2 + 8, side // 2 + 8)
        things = [drawing("lamp", (side, side), box)]
        return int(np.count_nonzero((overlay(image, things) != overlay(image, things, chips=False)).any(axis=2)))

    assert chip_pixels(1600) > 2.5 * chip_pixels(800) > 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (47, 200), (48, 48), (60, 400)])
@pytest.mark.parametrize("label", ["x", "a label that is far too long for any small picture to hold " * 3, "диван", ""])
def test_overlay_of_odd_sizes_and_labels(shape: tuple[int, int], label: str) -> None:
    height, width = shape
    things = [Drawing(label, 1.0, (0, 0, width, height), np.ones(shape, dtype=bool))]
    assert overlay(picture(*shape), things).shape == (*shape, 3)


def test_overlay_without_anything_to_draw() -> None:
    image = picture(60, 80)
    assert np.array_equal(overlay(image, []), image)
    empty = Drawing("ghost", 0.5, (10, 10, 10, 10), np.zeros((60, 80), dtype=bool))
    assert np.array_equal(overlay(image, [empty], chips=False), image)


def test_wrong_mask_size_is_refused() -> None:
    wrong = Drawing("sofa", 0.5, (0, 0, 5, 5), np.ones((5, 6), dtype=bool))
    with pytest.raises(ValueError, match=r"\(5, 6\)"):
        overlay(picture(6, 5), [wrong])
    with pytest.raises(ValueError, match=r"\(5, 6\)"):
        cutout(picture(6, 5), wrong.mask)


def test_cutout() -> None:
    image = picture(3, 4)
    mask = rectangle(3, 4, (1, 0, 3, 2))
    result = cutout(image, mask)
    assert result.shape == (3, 4, 4)
    assert np.array_equal(result[mask], np.column_stack([image[mask], np.full(4, 255)]))
    assert not result[~mask].any()


def test_mask_image_is_the_union() -> None:
    masks = [rectangle(2, 4, (0, 0, 2, 1)), rectangle(2, 4, (1, 0, 3, 2))]
    assert mask_image(masks, 2, 4).tolist() == [[255, 255, 255, 0], [0, 255, 255, 0]]
    assert not mask_image([], 2, 4).any()


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((1, 1, 3, 2), (1, 1, 3, 2)),
        ((0.4, 0.9, 2.1, 1.2), (0, 0, 3, 2)),
        ((-5, -5, 50, 50), (0, 0, 6, 4)),
        ((2, 2, 2, 2), (2, 2, 3, 3)),
        ((9, 9, 12, 12), (5, 3, 6, 4)),
    ],
)
def test_crops(box: tuple[float, ...], expected: tuple[int, int, int, int]) -> None:
    image = picture(4, 6)
    x0, y0, x1, y1 = expected
    (part,) = crops(image, [box])
    assert np.array_equal(part, image[y0:y1, x0:x1])
    part[:] = 0
    assert image.any(), "a crop is a copy"
